"""Words of a command line -> values by today's names: spellings of today, of YOLOv5 and of ultralytics."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from utils.config.foreign import FOREIGN_KEYS, INVERTED, MEANT, NEUTRAL, OLD_SPELLINGS, OLD_VALUES, SAME, WHEN_FALSE
from utils.config.help import allowed_words
from utils.config.values import Loader
from utils.errors import UserError, suggest

TEXTS = {"device", "name", "project", "weights", "data", "resume", "extend", "hyp", "split", "source"}  # never a number
CHOICES = {  # words of a short list; `off` is no boolean
    "cache", "amp", "optimizer", "warmup", "decay", "head", "recipe", "decay_from", "clock", "warmup_accumulate",
    "scale_lr", "loader", "hsv_mode", "hsv_on", "channels_last",
}  # fmt: skip
FREE = {"name", "project", "hyp", "resume", "extend", "sweep", "source"}  # may hold key=value: runs are named so
BARE = {"cache": "ram", "resume": "latest", "multi_scale": "0.5"}  # these may stand without a value, as in YOLOv5


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
        key, value, note = today(word, text if "=" in token else None, known)
        if value is None:
            value = _following_value(word, key, known, words)
        if key == "hyp" and key in values:
            raise UserError("--hyp is given twice: a run has one hyp file; --plan lays several over each other.")
        values[key] = read_value(key, value)
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
    keys = {".pt": "weights", ".weights": "weights", ".yaml": "data", ".yml": "data"}
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


def today(word: str, text: str | None, known: dict[str, Any]) -> tuple[str, str | None, str]:
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


def read_value(key: str, text: str) -> Any:
    """A word as YAML reads it; old values are translated, and what must be text stays text."""
    text = OLD_VALUES.get((key, text.lower()), text)
    if key in CHOICES:
        return text.lower()
    if text.lower() in {"none", "null", ""}:
        return None
    if key in TEXTS or (key == "classes" and not text.startswith("[")):
        return text
    try:
        return yaml.load(text, Loader)
    except yaml.YAMLError as e:
        raise UserError(f"{key}: '{text}' is not readable: {e}.") from e
