"""Names of the classes as a dataset yaml writes them."""

import contextlib
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from data.formats.coco import coco_names
from data.formats.voc_folder import is_voc, voc_names, voc_xmls
from utils.env import cache_dir
from utils.errors import UserError
from utils.files import stamp, write_whole

EXAMPLE = "Write 'names: [first, second]' or 'names: {0: first, 1: second}'."


def names_of(content: dict[str, Any], file: Path) -> list[str] | None:
    """Class names by id, from a list or a dict of id: name; None where the yaml has none."""
    names = content.get("names")
    if not names:
        return None
    if isinstance(names, dict):
        names = _by_id(names, file)
    if not isinstance(names, list):
        raise UserError(f"{file}: 'names' is {str(names)[:60]!r}, neither a list nor a dict. {EXAMPLE}")
    for k, name in enumerate(names):
        if not isinstance(name, str) or not name.strip():
            what = "empty" if name is None or isinstance(name, str) else f"a {type(name).__name__}"
            raise UserError(f"{file}: the name of class {k} is {what}. {EXAMPLE}")
    names = [name.strip() for name in names]
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise UserError(f"{file}: 'names' has {twice[:10]} more than once. Give each class a name of its own.")
    nc = count_of(content, file)
    if nc not in (None, len(names)):
        raise UserError(f"{file}: nc is {nc}, but 'names' has {len(names)}. Correct one; nc may be left out.")
    return names


def count_of(content: dict[str, Any], file: Path) -> int | None:
    """The yaml's nc, or None."""
    nc = content.get("nc")
    if nc is None:
        return None
    try:
        if isinstance(nc, bool) or int(nc) != float(nc) or not 0 < int(nc) <= 100_000:
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise UserError(f"{file}: nc is {str(nc)[:60]!r}; it is the number of classes, and may be left out.") from None
    return int(nc)


def _by_id(names: dict[Any, Any], file: Path) -> list[Any]:
    """The values of a dict whose keys are 0, 1, ..., also when they are text."""
    try:
        by_id = {int(key): value for key, value in names.items()}
    except (TypeError, ValueError):
        raise UserError(f"{file}: the keys of 'names' must be class ids 0, 1, ...; found {list(names)[:5]}.") from None
    if len(by_id) < len(names):
        raise UserError(
            f"{file}: an id of 'names' is there twice, with and without quotes or zeros: {list(names)[:10]}."
        )
    lacks = [k for k in range(len(by_id)) if k not in by_id]
    if lacks:
        raise UserError(
            f"{file}: the ids of 'names' must be 0 to {len(names) - 1} without gaps: {sorted(by_id)[:20]} lacks "
            f"{lacks[:10]}. Name every id that the labels use ('unused' will do), or renumber the labels."
        )
    return [by_id[k] for k in range(len(by_id))]


def class_of(name: str, names: list[str]) -> int | None:
    """The class of that name: spelt exactly so, else the only one spelt so but for case; None where there is none."""
    if name in names:
        return names.index(name)
    folded = [other.strip().casefold() for other in names]
    return folded.index(name.strip().casefold()) if folded.count(name.strip().casefold()) == 1 else None


def joined(lists: Iterable[list[str]]) -> list[str]:
    """One list of names out of several, each class once, in the order of their first appearance."""
    names: list[str] = []
    for more in lists:
        names += [name for name in more if class_of(name, names) is None]
    return names


def found_names(splits: dict[str, list[Path] | None]) -> list[str]:
    """Names of all splits, those of the first one first; empty where no split is a COCO json or a VOC folder."""
    names: dict[str, None] = {}
    for place in dict.fromkeys(place for places in splits.values() for place in places or []):
        if place.suffix.lower() == ".json" and place.is_file():
            names |= dict.fromkeys(_remembered(place, [str(place)]))
        elif is_voc(place):
            names |= dict.fromkeys(_remembered(place, voc_xmls(place)))
    return list(names)


def _remembered(place: Path, files: list[str]) -> list[str]:
    """The names of one place, read again only when one of its files has changed: a json may have half a gigabyte."""
    state = json.dumps([str(place), [(file, *stamp(file)) for file in files]])
    stored = cache_dir() / "names" / f"{hashlib.sha256(state.encode()).hexdigest()[:24]}.json"
    with contextlib.suppress(OSError, ValueError):
        return json.loads(stored.read_text())
    names = coco_names(place) if place.suffix.lower() == ".json" else voc_names(place)
    with contextlib.suppress(OSError):  # no room in the cache folder costs only the time
        stored.parent.mkdir(parents=True, exist_ok=True)
        write_whole(stored, json.dumps(names).encode())
    return names
