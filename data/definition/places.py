"""Paths of a dataset yaml -> paths of this machine."""

import os
import re
from pathlib import Path

from utils.env import cache_dir
from utils.errors import UserError

DRIVE = re.compile(r"[A-Za-z]:([\\/]|$)|\\\\")  # C:\sets, \\server\sets


def resolve(value: object, base: Path, key: str, file: Path) -> Path:
    """One path of the yaml `file`, relative to `base`; backslashes are separators, ${cache} is the cache folder."""
    if not isinstance(value, str):
        raise UserError(f"{file}: '{key}' must be a path or a list of paths, not {_brief(value)}.")
    if os.name != "nt" and DRIVE.match(value):
        raise UserError(
            f"{file}: '{key}: {value}' is a Windows path, which this machine does not have. Write where it is here, or "
            f"relative to the yaml: then one file serves both."
        )
    text = value.strip().replace("\\", "/").replace("${cache}", cache_dir().as_posix())
    try:
        place = base / Path(text).expanduser()
        place.exists()
    except (OSError, RuntimeError, ValueError) as e:  # too long a name; ~nobody; a NUL
        raise UserError(f"{file}: '{key}: {text[:80]}' is no usable path ({e}).".replace("\0", "\\0")) from None
    return place


def resolve_split(value: object, root: Path, key: str, file: Path) -> list[Path] | None:
    """Paths of a split: of one entry or a list of them; None where there is none."""
    if value in (None, "", []):
        return None
    places = [resolve(v, root, key, file) for v in (value if isinstance(value, list) else [value])]
    places = [_as_roboflow_means(place, root) for place in places]
    once = {os.path.realpath(place): place for place in reversed(places)}  # a folder in two spellings: the first
    return list(once.values())[::-1]


def _as_roboflow_means(place: Path, root: Path) -> Path:
    """Roboflow writes ../train/images for a folder beside the yaml, and ultralytics reads it so."""
    parts = place.relative_to(root).parts if place.is_relative_to(root) else ()
    if parts[:1] == ("..",) and not place.exists() and root.joinpath(*parts[1:]).exists():
        return root.joinpath(*parts[1:])
    return place


def _brief(value: object) -> str:
    """A value for a message; a list may unfold into thousands."""
    return f"{value!r}"[:60] if isinstance(value, int | float) else f"a {type(value).__name__}"
