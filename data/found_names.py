"""Class names from the labels themselves, for a yaml that has none: of COCO jsons by id, of VOC folders sorted."""

import contextlib
import hashlib
import json
import os
from pathlib import Path

from data.coco import coco_names
from data.scan import stamp
from data.voc_folder import is_voc, voc_names, voc_xmls
from utils.env import cache_dir


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
    kept = cache_dir() / "names" / f"{hashlib.sha256(state.encode()).hexdigest()[:24]}.json"
    with contextlib.suppress(OSError, ValueError):
        return json.loads(kept.read_text())
    names = coco_names(place) if place.suffix.lower() == ".json" else voc_names(place)
    with contextlib.suppress(OSError):  # no room in the cache folder costs only the time
        kept.parent.mkdir(parents=True, exist_ok=True)
        beside = kept.with_suffix(f".{os.getpid()}.tmp")
        beside.write_text(json.dumps(names))
        os.replace(beside, kept)
    return names
