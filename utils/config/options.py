"""How a command line and a hyp file become a `Hyp`: spellings of today, of YOLOv5 and of ultralytics."""

import re
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, get_args, get_origin

import yaml
from pydantic import BaseModel

from utils.config.foreign import (
    FOREIGN_KEYS,
    INVERTED,
    MEANT,
    NEUTRAL,
    OLD_SPELLINGS,
    OLD_VALUES,
    SAME,
    WHEN_FALSE,
    adapt,
    origin,
)
from utils.config.schema import Command, Hyp, check
from utils.env import REPO
from utils.errors import UserError, suggest

TEXTS = {"device", "name", "project", "weights", "data", "resume", "hyp", "split", "source"}  # never read as a number
CHOICES = {  # words of a short list; `off` is no boolean
    "cache", "amp", "optimizer", "warmup", "decay", "head", "recipe", "decay_from", "clock", "warmup_accumulate",
    "scale_lr", "loader", "hsv_mode", "hsv_on", "channels_last",
}  # fmt: skip
FREE = {"name", "project", "hyp", "resume", "sweep", "source"}  # may hold key=value: a run is named after what it tries
DEMO = "demo"  # the hyp file of the embedded demo
NO_DATA = "neither --hyp, --weights nor --data is given: the embedded demo (--hyp demo)"
BARE = {"cache": "ram", "resume": "latest", "multi_scale": "0.5"}  # these may stand without a value, as in YOLOv5


class _Loader(yaml.SafeLoader):
    """Safe YAML that also reads 1e-4 as a number (YAML 1.1 wants 1.0e-4 and calls 1e-4 a string)."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def read_yaml(path: Path) -> Any:
    """Content of a YAML file; nothing in it can run. Raises UserError naming the line that is not YAML."""
    try:
        return yaml.load(path.read_text(encoding="utf-8-sig"), _Loader)
    except OSError as e:
        raise UserError(f"cannot read {path}: {e.strerror}.") from e
    except (yaml.YAMLError, UnicodeDecodeError) as e:
        raise UserError(f"{path} is not valid YAML: {e}. Correct it (indent with spaces, not tabs).") from e


def parse_tokens(argv: list[str], known: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """`--key value`, `--key=value`, `key=value` and bare flags -> values by name, and notes on old spellings.

    `known` maps a name to its pydantic field. Raises UserError for a word that is none of these.
    """
    values, notes, words = {}, [], list(argv)
    while words:
        token = words.pop(0)
        if not is_option(token):
            raise UserError(
                f"'{token}' is neither --key value nor key=value.{_meant(token, known)} All options: --help"
            )
        word, _, text = token.removeprefix("--").partition("=")
        if "=" not in token and words and words[0].lower() in {"true", "false"}:
            token, text = "=", words.pop(0)  # --val False, as val=False
        if _is_neutral(word, text):
            notes.append(f"'{word}' has no meaning here, and {text} changes nothing")
            continue
        key, value, note = _today(word, text if "=" in token else None, known)
        if value is None:
            value = _following_value(word, key, known, words)
        if key == "hyp" and key in values:
            raise UserError("--hyp is given twice: a run has one hyp file; --plan lays several over each other.")
        values[key] = _value(key, value)
        notes += [note] if note else []
    return values, notes


def take_lists(argv: list[str], keys: Sequence[str], known: dict[str, Any]) -> tuple[list[str], dict[str, list[str]]]:
    """The command line without `--key a b ...` of the keys that take several words, and those words by key.

    One word alone stays where it is, and is read like any other value.
    """
    left, lists, words = [], {}, list(argv)
    while words:
        word = words.pop(0)
        key = word.removeprefix("--").replace("-", "_")
        if not (word.startswith("--") and key in keys):
            left.append(word)
            continue
        values = []
        while words and not _ends_before(words[0], key, known):
            values.append(words.pop(0))
        if len(values) > 1:
            lists[key] = values
        else:
            left += [word, *values]
    return left, lists


def _meant(word: str, known: dict[str, Any]) -> str:
    """What a word without an option is meant to be: the option of a file, or one of several values; perhaps empty."""
    if re.fullmatch(r"-?[\d.]+", word):
        return " A key has one value; several are a list: --freeze [0,1,2]."
    keys = {".pt": "weights", ".yaml": "data", ".yml": "data"}
    key = keys.get(Path(word).suffix.lower())
    return f" Did you mean --{key} {word}?" if key in known else ""


def is_option(word: str) -> bool:
    """Whether a word is `--key ...` or `key=value`; a path that holds '=' is none (/data/version=3/data.yaml)."""
    key, equals, _ = word.partition("=")
    return word.startswith("--") or (bool(equals) and key.replace("-", "_").isidentifier())


def _ends_before(word: str, key: str, known: dict[str, Any]) -> bool:
    """Whether `word`, which follows `--key`, is an option of its own and no value of `key`."""
    if word.startswith("--") or key in FREE:
        return word.startswith("--")
    name = word.partition("=")[0].replace("-", "_")
    is_known = name in known or name in OLD_SPELLINGS or name in INVERTED or name in FOREIGN_KEYS
    return is_option(word) and (is_known or key not in TEXTS)


def _is_neutral(word: str, text: str) -> bool:
    """Whether a word names what Preheat lacks, at the value at which its owner leaves it out (rect=false)."""
    key = word.replace("-", "_")
    if (key, text.lower()) in SAME:
        return True
    if key not in NEUTRAL or key in OLD_SPELLINGS or not text:
        return False
    return text.lower() in {"false", "0", "0.0", "none", "null"}


def _following_value(word: str, key: str, known: dict[str, Any], words: list[str]) -> str:
    """The value behind `--key`, taken from `words`; a switch, and the keys of BARE, may stand alone."""
    field = known[key]
    last = not words or _ends_before(words[0], key, known)
    if _is_bool(field):
        return words.pop(0) if not last and words[0].lower() in {"true", "false"} else "true"
    if not last:
        return words.pop(0)
    if key in BARE:
        return BARE[key]
    words = allowed_words(field)
    listed = f" ({' | '.join(words)})" if words else ""
    raise UserError(f"--{word} needs a value{listed}: {field.description}.")


def _today(word: str, text: str | None, known: dict[str, Any]) -> tuple[str, str | None, str]:
    """Today's key and value of a spelling, and a note when it is an old one."""
    key = word.replace("-", "_")
    if key in known:
        return key, text, ""
    if key.startswith("no_") and key[3:] in known and _is_bool(known[key[3:]]):
        return key[3:], "false", ""
    if key in INVERTED and INVERTED[key] in known:
        value = "true" if str(text).lower() in {"false", "0"} else "false"
        return INVERTED[key], value, f"'{word}' is today {INVERTED[key]}={value}"
    target = OLD_SPELLINGS.get(key)
    if str(text).lower() == "false":
        target = WHEN_FALSE.get(key, ("", None) if target else None)
    name, value = target if isinstance(target, tuple) else (target, text)
    if name in known:
        return name, value, f"'{word}' is today {name}{f'={value}' if isinstance(target, tuple) else ''}"
    if key in FOREIGN_KEYS or name is not None:
        raise UserError(f"'{word}' is an option of YOLOv5 or ultralytics that has no meaning here; leave it out.")
    meant = MEANT.get(key)
    hint = f" Did you mean '{meant}'?" if meant in known else suggest(key, list(known))
    raise UserError(f"unknown option '{word}'.{hint} All options: --help")


def _is_bool(field: Any) -> bool:
    return field.annotation is bool


def _value(key: str, text: str) -> Any:
    """A word as YAML reads it; old values are translated, and what must be text stays text."""
    text = OLD_VALUES.get((key, text.lower()), text)
    if key in CHOICES:
        return text.lower()
    if text.lower() in {"none", "null", ""}:
        return None
    if key in TEXTS or (key == "classes" and not text.startswith("[")):
        return text
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as e:
        raise UserError(f"{key}: '{text}' is not readable: {e}.") from e


def find_hyp_file(name: str) -> Path:
    """A hyp file as given, or in the repo's hyps/ folder, with or without .yaml."""
    places = [Path(name), REPO / name, REPO / "hyps" / name, REPO / "hyps" / f"{name}.yaml"]
    for path in places:
        if path.is_file():
            return path
    have = sorted(p.name for p in (REPO / "hyps").glob("*.yaml"))
    meant = suggest(Path(name).stem, [Path(file).stem for file in have])
    raise UserError(
        f"no hyp file '{name}': looked at {', '.join(map(str, places))}.{meant} In hyps/: {', '.join(have)}."
    )


def load_hyp_file(
    name: str, keep_gains: bool = False, overridden: Mapping[str, Any] = MappingProxyType({})
) -> tuple[dict[str, Any], list[str]]:
    """Values of a hyp file under today's names, and notes on what it was and what is not used.

    `overridden`: values of the command line, which replace those of the file, so that these harm nobody.
    """
    path = find_hyp_file(name)
    content = read_yaml(path) or {}
    if not isinstance(content, dict):
        raise UserError(f"{path} holds a {type(content).__name__}; a hyp file is a list of 'key: value' lines.")
    fields, notes, values = Hyp.model_fields, [], {}
    project = origin(content)
    gains = [k for k in ("box", "cls") if k in content and k not in overridden]
    if project == "yolov5" and gains and not keep_gains:
        content = content | {"gains": "anchor-based"}  # another network will refuse them: see with_gains
    if project or FOREIGN_KEYS & {str(word) for word in content}:
        nullable = {name for name, field in fields.items() if type(None) in get_args(field.annotation)}
        recipe = overridden.get("recipe", content.get("recipe"))
        content, unused, notes = adapt(content, project, nullable, recipe == "ultralytics")
        notes += [f"of {project or 'YOLOv5 or ultralytics'}, not used here: {', '.join(unused)}"] if unused else []
        if project and "recipe" not in content:
            notes.append(f"names no recipe: preheat's timing, unless you say recipe: {project}, which repeats its own")
    for word, value in content.items():
        try:
            key, text, note = _today(str(word), str(value), fields)
        except UserError as e:
            raise UserError(f"{path}: {e}") from e
        notes += [note] if note else []
        plain = isinstance(value, int | float | list) and key == word and key not in TEXTS | CHOICES
        plain = plain and (key, str(value).lower()) not in OLD_VALUES
        values[key] = value if plain else _value(key, str(text))
    return values, [f"{path.name}: {note}" for note in notes]


def parse_args(argv: list[str]) -> tuple[Command, Hyp, list[str]]:
    """Command line -> what to do now, the run, and notes for the user. Order: default, --hyp file, command line."""
    given_options, notes = parse_tokens(argv, {**Hyp.model_fields, **Command.model_fields})
    given_options, demo = or_demo(given_options)
    command, hyp, more = resolve(given_options)
    return command, hyp, notes + demo + more


def or_demo(given_options: dict[str, Any], keys: Sequence[str] = ("hyp",)) -> tuple[dict[str, Any], list[str]]:
    """The options as given, or with `keys` of the embedded demo where nothing says what to work on; a note on that."""
    if {"hyp", "weights", "data", "resume"} & given_options.keys():
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


def help_text(script: str, *models: type[BaseModel]) -> str:
    """Every option with its default and meaning, made from the schema; those of other `models` stand first."""
    lines = [f"usage: python {script} [--key value | key=value ...]", ""]
    return "\n".join(lines + option_lines(*models, Command, Hyp))


def option_lines(*models: type[BaseModel], without: Container[str] = ()) -> list[str]:
    """One line for each key: what it means, the words that it allows, its default; of a key of two models the first."""
    lines = {}
    for name, field in ((name, field) for model in models for name, field in model.model_fields.items()):
        words = allowed_words(field)
        listed = f" [{' | '.join(words)}]" if words else ""
        line = f"  --{name.replace('_', '-'):<18} {field.description}{listed} (default: {field.default})"
        if name not in without:
            lines.setdefault(name, line)
    return list(lines.values())


def allowed_words(field: Any) -> list[str]:
    """The words that a key allows, where it allows a few only; those of a key that takes numbers or words, too."""
    parts = [field.annotation, *get_args(field.annotation)]
    return [str(word) for part in parts if get_origin(part) is Literal for word in get_args(part)]
