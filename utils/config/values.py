"""Values as they are written: YAML, and those of keys that take more than one spelling."""

import re
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BeforeValidator

from utils.errors import UserError


class Loader(yaml.SafeLoader):
    """Safe YAML that also reads 1e-4 as a number (YAML 1.1 wants 1.0e-4 and calls 1e-4 a string)."""


Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def read_yaml(path: Path) -> Any:
    """Content of a YAML file; nothing in it can run. Raises UserError naming the line that is not YAML."""
    try:
        return yaml.load(path.read_text(encoding="utf-8-sig"), Loader)
    except OSError as e:
        raise UserError(f"cannot read {path}: {e.strerror}.") from e
    except (yaml.YAMLError, UnicodeDecodeError) as e:
        raise UserError(f"{path} is not valid YAML: {e}. Correct it (indent with spaces, not tabs).") from e


def _class_list(value: Any) -> Any:
    """A text is a list with commas: a,b or [a, b]; a number is the id of one class."""
    if isinstance(value, str):
        value = [word.strip().strip("'\"") for word in value.strip().strip("[]").split(",")]
    value = [value] if isinstance(value, int) else value
    if isinstance(value, list) and (not value or any(isinstance(v, bool) or v in ("", None) for v in value)):
        raise ValueError("name classes, or give their ids; a name that YAML takes for yes, no or null wants quotes")
    return value


def _fold(value: Any) -> Any:
    """k/K in its shortest spelling."""
    parts = value.split("/") if isinstance(value, str) else []
    if len(parts) != 2 or not all(part.strip().isascii() and part.strip().isdecimal() for part in parts):
        raise ValueError("give k/K: the fold that is val, and the number of folds, as 2/6")
    k, folds = map(int, parts)
    if not (folds >= 2 and 1 <= k <= folds):
        raise ValueError("k is 1 to K, and K is at least 2")
    return f"{k}/{folds}"


def _save_every(value: Any) -> Any:
    """Minutes as a number, or 'N batches'."""
    words = value.split() if isinstance(value, str) else []
    if len(words) == 2 and words[0].isascii() and words[0].isdecimal() and words[1] in ("batch", "batches"):
        if int(words[0]) == 0:
            raise ValueError("give at least one batch, or 0 for the end of an epoch only")
        return f"{int(words[0])} batches"
    if not isinstance(value, int | float) or isinstance(value, bool) or value < 0:
        raise ValueError("give minutes, 0 or more, or batches, as '200 batches'")
    return float(value)


SaveEvery = Annotated[float | str, BeforeValidator(_save_every)]
Fold = Annotated[str | None, BeforeValidator(lambda value: value if value is None else _fold(value))]
Classes = Annotated[list[str | int] | None, BeforeValidator(_class_list)]
