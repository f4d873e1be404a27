"""The stored index of a split: opened when no file that it depends on has changed, else built anew."""

import logging
import os
from typing import Any

import numpy as np

from data.definition.config import DatasetConfig
from data.index.columns import from_columns
from data.index.file import IndexFile, index_file, open_index, write_index
from data.index.read import read_split
from data.index.state import State
from data.index.table import Problems
from data.sources.split import Source, open_source
from utils.errors import UserError

log = logging.getLogger(__name__)


def open_stored(config: DatasetConfig, split: str, single_cls: bool) -> IndexFile | None:
    """The stored index of a split, if it was made by the same yaml; whether it is still true is another question."""
    stored = open_index(index_file(config, split, single_cls))
    return stored if stored and stored.header["settings"] == _settings(config, split) else None


def find_stored(config: DatasetConfig, split: str, single_cls: bool, strict: bool, trust: bool) -> IndexFile:
    """The stored index if it is current (strict: never; trust: it is believed), or a new one."""
    stored = None if strict else open_stored(config, split, single_cls)
    if stored and (trust or is_current(stored)):
        return stored
    if trust and not strict:
        log.info(f"trust_index: no index of '{split}' is kept; {config.path} is read")
    return _build(config, split, single_cls, stored)


def is_current(stored: IndexFile) -> bool:
    """Whether no file that the index depends on has changed, and the stored index itself is whole."""
    state = from_columns(State, stored.columns)
    return state.same_places(stored.header["sha256"]) and state.same_files(stored.checks())


def same_pictures(stored: IndexFile, pictures: list[str]) -> bool:
    """Whether the stored index would be that of these pictures, of which none was read; it may lack useless ones."""
    paths, n = from_columns(State, stored.columns).paths, stored.header["usable"]
    return len(pictures) in (n, len(paths)) and sorted(pictures) in (sorted(paths[:n]), sorted(paths))


def _settings(config: DatasetConfig, split: str) -> list[Any]:
    """What in the yaml an index depends on."""
    return [config.names, str(config.root), _places(config, split)]


def _places(config: DatasetConfig, split: str) -> list[Any]:
    """The places of a split as text; of another data set what its index would depend on, and its part."""
    places = [str(place) for place in config.own(split)]
    return places + [[place.part, *_settings(place.config, split)] for place in config.listed(split)]


def _build(config: DatasetConfig, split: str, single_cls: bool, stored: IndexFile | None) -> IndexFile:
    """Read a split, and keep what was read; what the stored index knows of unchanged files is taken from there."""
    source = open_source(config, split, single_cls)
    known = stored if stored and stored.undamaged() else None
    header, columns = read_split(source, known, f"reading {split}")
    header["settings"] = _settings(config, split)
    if single_cls:
        header |= {"names": ["item"], "category_ids": [1]}
        columns["classes"] = np.zeros_like(columns["classes"])
    path = index_file(config, split, single_cls)
    built = IndexFile(path, "", 0, header, columns)
    _refuse_hopeless(built, source, config, split)
    return (write_index(path, header, columns) and open_index(path)) or built


def _refuse_hopeless(built: IndexFile, source: Source, config: DatasetConfig, split: str) -> None:
    """Raise where training or evaluating on this index would be pointless."""
    n, problems = built.header["usable"], Problems(*(built.columns[f"problems_{part}"] for part in ("flat", "ends")))
    first = f" First problem: {problems[0]}" if problems else ""
    if not source.pictures:
        raise UserError(
            f"no pictures in {source.where} ('{split}' of {config.path}). Put pictures there, or correct it."
        )
    if not n:
        raise UserError(f"none of the {len(source.pictures)} pictures of {source.where} can be used.{first}")
    if not len(built.columns["classes"]):
        empty = 0 if problems else sum(os.path.exists(label) for label in source.labels if label)
        if empty:
            raise UserError(
                f"the label files of '{split}' in {config.path} are empty: {empty} for {n} pictures, and none "
                "has a box. Label some pictures, or choose others."
            )
        raise UserError(
            f"no labels at all for the {n} pictures of '{split}' in {config.path}: {source.no_labels()}.{first}"
        )
    if built.columns["crowd"].all():
        raise UserError(
            f"all {len(built.columns['crowd'])} boxes of '{split}' in {config.path} are crowds (COCO's iscrowd) or "
            f"difficult objects (VOC), which are not trained on and not scored. Set the flag to 0 for ordinary objects."
        )
