"""Paths of a dataset yaml -> paths of this machine."""

import os
import re
from pathlib import Path

from utils.env import cache_dir
from utils.errors import UserError

COMMON = {"images", "labels"}  # names of folders that every split may have
DRIVE = re.compile(r"[A-Za-z]:([\\/]|$)|\\\\")  # C:\sets, \\server\sets


def resolve(value: object, base: Path, key: str, file: Path) -> Path:
    """One path of the yaml `file`, relative to `base`; backslashes are separators, ${cache} is the cache folder."""
    if not isinstance(value, str):
        raise UserError(f"{file}: '{key}' must be a path or a list of paths, not {_brief(value)}.")
    if os.name != "nt" and DRIVE.match(value):
        end = found_near(Path(value.replace("\\", "/")), base)
        if key != "path" and end.is_relative_to(base):
            return end
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
    places = [found_near(place, root) for place in places]
    once = {os.path.realpath(place): place for place in reversed(places)}  # a folder in two spellings: the first
    return list(once.values())[::-1]


def found_near(place: Path, root: Path) -> Path:
    """A place that is there, or else the one that was meant by it.

    Roboflow writes ../train/images for a folder beside the yaml, and its downloads, like trainers in the cloud, the way
    from another folder or machine (Boards-1/train/images, /content/Boards-1/train/images): the longest end of the path
    that is inside the data set's folder. A mere `images` is none: it may be that of another split.
    """
    if place.exists():
        return place
    if place.is_relative_to(root) and place.relative_to(root).parts[:1] == ("..",):
        parts = place.relative_to(root).parts[1:]
        return root.joinpath(*parts) if root.joinpath(*parts).exists() else place
    ends = [place.parts[k:] for k in range(1, len(place.parts))]
    there = [end for end in ends if end[-1] not in COMMON or len(end) > 1]
    return next((root.joinpath(*end) for end in there if root.joinpath(*end).exists()), place)


def _brief(value: object) -> str:
    """A value for a message; a list may unfold into thousands."""
    return f"{value!r}"[:60] if isinstance(value, int | float) else f"a {type(value).__name__}"
