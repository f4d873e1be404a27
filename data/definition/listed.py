"""Data sets that a dataset yaml lists among its splits."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from data.definition.config import OWN, SPLITS, DatasetConfig, Listed
from data.definition.names import class_of
from data.definition.places import resolve
from utils.errors import UserError, suggest

MOST = 100  # times that an epoch may have each picture of a listed data set
SHOWN = 5  # class names in a message


def names_yaml(entry: object) -> bool:
    """Whether an entry of a split is another data set: a path to a yaml, or {data: other.yaml, part: 0.2}."""
    if isinstance(entry, dict):
        return bool({"data", "part"} & set(entry))
    return isinstance(entry, str) and entry.strip().lower().endswith((".yaml", ".yml"))


def read_listed(
    entries: list[Any], key: str, root: Path, chain: tuple[Path, ...], open_yaml: Callable[[Path], DatasetConfig]
) -> list[Listed]:
    """The data sets that a split lists; UserError for one that cannot be used there.

    chain: the yaml, behind those that list it, the first one first.
    """
    found: dict[str, Listed] = {}
    file = chain[-1]
    for entry in entries:
        name, part = _entry(entry, key, file)
        other = _find_listed(name, key, root, file)
        if os.path.realpath(other) in map(os.path.realpath, chain):
            way = " -> ".join(path.name for path in (*chain, other))
            raise UserError(f"{file}: '{key}' lists {name}, which lists itself: {way}. Take it out of one of them.")
        if os.path.realpath(other) in found:
            raise UserError(f"{file}: '{key}' lists {name} twice. Name it once, with the part that is meant: part: 2.")
        config = open_yaml(other)
        if getattr(config, key) is None:
            raise UserError(f"{file}: '{key}' lists {name}, but {other} has no '{key}'. Add it there.")
        found[os.path.realpath(other)] = Listed(config, part)
    return list(found.values())


def _entry(entry: Any, key: str, file: Path) -> tuple[str, float]:
    """Path and part of an entry that names another data set."""
    if isinstance(entry, str):
        return entry.strip(), 1.0
    wrong = [str(word) for word in entry if word not in ("data", "part")]
    if wrong or not isinstance(entry.get("data"), str):
        what = f"has no key '{wrong[0]}'" if wrong else "needs 'data'"
        raise UserError(f"{file}: an entry of '{key}' {what}. Write it as {{data: other.yaml, part: 0.2}}.")
    part = entry.get("part", 1)
    number = isinstance(part, int | float) and not isinstance(part, bool)
    if not number or not 0 < part <= MOST:
        raise UserError(
            f"{file}: 'part: {part}' of {entry['data']} in '{key}' is no share of its pictures: above 0, 1 for all, "
            f"at most {MOST} (2: each twice an epoch)."
        )
    if key != "train" and part != 1:
        raise UserError(
            f"{file}: 'part: {part}' of {entry['data']} in '{key}': only 'train' draws a part; a score needs the same "
            "pictures every time. Leave part out."
        )
    return entry["data"].strip(), float(part)


def _find_listed(name: str, key: str, root: Path, file: Path) -> Path:
    """The yaml that a split lists, from the data set's folder or that of its yaml, or one of this repo by its name."""
    places = [resolve(name, base, key, file) for base in dict.fromkeys((root, file.parent.absolute()))]
    if Path(name).name == name:
        places += [folder / (name + suffix) for folder in OWN for suffix in ("", ".yaml")]
    for place in places:
        if place.is_file():
            return place.absolute()
    near = [path.name for path in places[0].parent.glob("*.y*ml")] if places[0].parent.is_dir() else []
    looked = ", ".join(map(str, places[:2]))
    raise UserError(
        f"{file}: '{key}' lists {name}, which does not exist; looked for: {looked}.{suggest(Path(name).name, near)}"
    )


def require_common(config: DatasetConfig, listed: list[DatasetConfig]) -> None:
    """Raise where the names of a yaml have no class of a data set that it lists."""
    for other in listed:
        if all(class_of(name, config.names) is None for name in other.names):
            raise UserError(
                f"{config.path} lists {other.path}, but its 'names' has none of the classes there "
                f"({some(other.names)}). Add those that are meant, or leave 'names' out."
            )


def left_out_classes(config: DatasetConfig, splits: Iterable[str] = SPLITS) -> list[str]:
    """A line for each listed data set with classes that 'names' lacks: boxes of those go, pictures stay."""
    lines: dict[Path, str] = {}
    for other in (place.config for split in splits for place in config.listed(split)):
        absent = [name for name in other.names if class_of(name, config.names) is None]
        if absent:
            lines[other.path] = (
                f"{other.path.name}: {len(absent)} of its {len(other.names)} classes are not among the 'names' of "
                f"{config.path.name}, so their boxes are left out: {some(absent)}"
            )
    return list(lines.values())


def some(names: list[str]) -> str:
    """The first names of a list, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
