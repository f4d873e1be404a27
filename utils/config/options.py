"""How a command line and a hyp file become a `Hyp`."""

from collections.abc import Sequence
from typing import Any

from utils.config.files import load_hyp_file
from utils.config.schema import Command, Hyp, check
from utils.config.words import parse_tokens
from utils.errors import UserError

DEMO = "demo"  # the hyp file of the embedded demo
NO_DATA = "neither --hyp, --weights nor --data is given: the embedded demo (--hyp demo)"


def parse_args(argv: list[str]) -> tuple[Command, Hyp, list[str]]:
    """Command line -> what to do now, the run, and notes for the user. Order: default, --hyp file, command line."""
    given_options, notes = parse_tokens(argv, {**Hyp.model_fields, **Command.model_fields})
    given_options, demo = or_demo(given_options)
    command, hyp, more = resolve(given_options)
    return command, hyp, notes + demo + more


def or_demo(given_options: dict[str, Any], keys: Sequence[str] = ("hyp",)) -> tuple[dict[str, Any], list[str]]:
    """The options as given, or with `keys` of the embedded demo where nothing says what to work on; a note on that."""
    if {"hyp", "weights", "data", "resume", "extend"} & given_options.keys():
        return given_options, []
    demo = {"hyp": DEMO} if "hyp" in keys else {key: load_hyp_file(DEMO)[0][key] for key in keys}
    return demo | given_options, [NO_DATA if given_options else "no options given: the embedded demo (--hyp demo)"]


def resolve(given_options: dict[str, Any]) -> tuple[Command, Hyp, list[str]]:
    """Values by today's names, one of them perhaps `hyp` -> what `parse_args` returns."""
    notes = []
    command = check({k: v for k, v in given_options.items() if k not in Hyp.model_fields}, Command)
    line = {k: v for k, v in given_options.items() if k in Hyp.model_fields}
    if command.no_warmup:
        line |= {"warmup": "none", "warmup_epochs": 0.0}
    file, file_notes = load_hyp_file(command.hyp, command.keep_gains, line) if command.hyp else ({}, [])
    for key in sorted(line.keys() & file.keys()):
        if line[key] != file[key]:
            notes.append(f"{key}: {line[key]} (command line) in place of {file[key]} ({command.hyp})")
    return command, check(file | line), notes + file_notes


def as_trained(options: Any, trained_with: dict[str, Any], keys: Sequence[str]) -> tuple[Any, list[str]]:
    """Options with `keys` that nobody gave as the run behind the weights had them, and notes on what that changes.

    `trained_with` comes from a file: a value that the key cannot have is left out.
    """
    taken = {}
    for key in (key for key in keys if key in trained_with and key not in options.model_fields_set):
        try:
            value = getattr(check({key: trained_with[key]}, type(options)), key)
        except UserError:
            continue
        if value != getattr(options, key):
            taken[key] = value
    given_options = {key: getattr(options, key) for key in options.model_fields_set}
    named = ", ".join(f"{key} {value}" for key, value in taken.items())
    notes = [f"as the weights were trained: {named} (unless given)"] if taken else []
    size = trained_with.get("imgsz")
    if "imgsz" in options.model_fields_set and isinstance(size, int) and size != options.imgsz:
        notes.append(f"imgsz {options.imgsz} is given; the weights were trained at {size}")
    return check({**given_options, **taken}, type(options)), notes
