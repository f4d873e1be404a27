"""Dataset yaml -> columnar index of a split, with every problem named; cached outside the dataset."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from data.columns import from_columns
from data.dataset_yaml import DatasetConfig, load_dataset_yaml
from data.formats import Problem
from data.index_file import IndexFile, index_file, open_index, write_index
from data.paths import Paths, spread
from data.reading import read_split
from data.sources import Source, open_source
from data.stamps import State
from data.table import Table
from utils.errors import UserError

__all__ = ["DatasetConfig", "Index", "Problem", "build_index", "count_pictures", "load_dataset_yaml", "report_problems"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Index:
    """The pictures of a split and their boxes, as columns; boxes of picture i are rows(i)."""

    paths: Paths  # absolute; paths[i] is a str
    shapes: np.ndarray  # (n, 2) int32: height, width after EXIF rotation
    boxes: np.ndarray  # (m, 4) float32 xywhn
    classes: np.ndarray  # (m,) int32
    area: np.ndarray  # (m,) float32 pixels^2
    crowd: np.ndarray  # (m,) bool
    offsets: np.ndarray  # (n + 1,) int64
    names: list[str]
    image_ids: np.ndarray  # (n,) int64, of a COCO json, else 1..n
    category_ids: list[int]  # of a COCO json, else 1..nc
    problems: Sequence[Problem] = field(default_factory=list)
    file: IndexFile | None = field(default=None, init=False, repr=False)  # whose columns these are, as they stand there

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def n(self) -> int:
        """Number of pictures."""
        return len(self.paths)

    @property
    def nc(self) -> int:
        """Number of classes."""
        return len(self.names)

    def take(self, pictures: np.ndarray) -> "Index":
        """The index of some pictures (k,), in their order; problems stay."""
        starts, counts = self.offsets[pictures], self.offsets[np.asarray(pictures) + 1] - self.offsets[pictures]
        rows = spread(starts, counts)
        columns = {name: getattr(self, name)[rows] for name in ("boxes", "classes", "area", "crowd")}
        columns |= {name: getattr(self, name)[pictures] for name in ("shapes", "image_ids")}
        offsets = np.concatenate([[0], counts.cumsum()]).astype(np.int64)
        return replace(self, paths=self.paths.take(pictures), offsets=offsets, **columns)

    def rows(self, i: int) -> slice:
        """Rows of `boxes`, `classes`, `area`, `crowd` that belong to picture i."""
        return slice(int(self.offsets[i]), int(self.offsets[i + 1]))

    def __reduce__(self) -> tuple[Any, ...]:
        """A process that was not forked opens the file again: pickling would copy the columns."""
        if self.file and self.file.in_place():
            return _open_again, (self.file.path, self.file.key)
        return Index, tuple(getattr(self, f.name) for f in fields(self) if f.init)


def build_index(
    config: DatasetConfig, split: str, strict: bool = False, single_cls: bool = False, trust: bool = False
) -> Index:
    """Index of 'train', 'val' or 'test'; kept in the cache folder for as long as no picture and no label changes.

    strict: everything is read again, and a problem is an error. trust: what is kept is used without looking.
    """
    kept = None if strict else _open_kept(config, split, single_cls)
    if kept is None or not (trust or _is_current(kept)):
        if trust and not strict:
            log.info(f"trust_index: no index of '{split}' is kept; {config.path} is read")
        kept = _build(config, split, single_cls, kept)
    index = _index(kept)
    if strict and index.problems:
        shown = "\n".join(map(str, index.problems[:10]))
        raise UserError(f"{len(index.problems)} problems in '{split}' of {config.path}, and --strict is set:\n{shown}")
    return index


def count_pictures(data: str | None, single_cls: bool = False, download: bool = False) -> tuple[int, bool]:
    """Training pictures of a dataset yaml, none of them read: of the kept index and True, else files and False."""
    config = load_dataset_yaml(data, download)
    kept = _open_kept(config, "train", single_cls)
    if kept and _state(kept).same_places(kept.header["sha256"]):
        return kept.header["usable"], True
    source = open_source(config, "train", single_cls)
    if not source.pictures:
        raise UserError(f"no pictures in {source.where} ('train' of {config.path}).")
    found = Paths.of(source.pictures)
    if kept and (found == _index(kept).paths or sorted(found) == sorted(_state(kept).paths)):
        return kept.header["usable"], True
    return len(found), False


def report_problems(index: Index, log: Callable[[str], None], limit: int = 10) -> None:
    """Print the first problems, one a line, and how many there are."""
    for problem in index.problems[:limit]:
        log(str(problem))
    if len(index.problems) > limit:
        log(f"... and {len(index.problems) - limit} more problems ({len(index.problems)} in all)")


def _open_kept(config: DatasetConfig, split: str, single_cls: bool) -> IndexFile | None:
    """The kept index of a split, if it was made by the same yaml."""
    kept = open_index(index_file(config, split, single_cls))
    return kept if kept and kept.header["settings"] == _settings(config, split) else None


def _settings(config: DatasetConfig, split: str) -> list[Any]:
    """What in the yaml an index depends on."""
    return [config.names, str(config.root), [str(source) for source in getattr(config, split) or []]]


def _is_current(kept: IndexFile) -> bool:
    """Whether no file that the index depends on has changed, and the kept index itself is whole."""
    state = _state(kept)
    return state.same_places(kept.header["sha256"]) and state.same_files(kept.checks())


def _state(kept: IndexFile) -> State:
    return from_columns(State, kept.columns)


def _build(config: DatasetConfig, split: str, single_cls: bool, kept: IndexFile | None) -> IndexFile:
    """Read a split, and keep what was read; what the kept index knows of unchanged files is taken from there."""
    source = open_source(config, split, single_cls)
    known = kept if kept and kept.undamaged() else None
    header, columns = read_split(source, known, f"reading {split}")
    header["settings"] = _settings(config, split)
    if single_cls:
        header |= {"names": ["item"], "category_ids": [1]}
        columns["classes"] = np.zeros_like(columns["classes"])
    path = index_file(config, split, single_cls)
    built = IndexFile(path, "", 0, header, columns)
    _refuse_hopeless(_index(built), source, config, split)
    return (write_index(path, header, columns) and open_index(path)) or built


def _index(kept: IndexFile) -> Index:
    """The index whose columns are those of a file; pictures that cannot be used stand at the end, and are left out."""
    table, n = from_columns(Table, kept.columns), kept.header["usable"]
    paths = from_columns(State, kept.columns).paths
    index = Index(
        paths=Paths(paths.flat, paths.offsets[: n + 1]),
        shapes=table.shapes[:n],
        boxes=table.boxes,
        classes=table.classes,
        area=table.area,
        crowd=table.crowd,
        offsets=table.offsets[: n + 1],
        names=kept.header["names"],
        image_ids=kept.columns["image_ids"][:n],
        category_ids=kept.header["category_ids"],
        problems=table.problems,
    )
    object.__setattr__(index, "file", kept)
    return index


def _open_again(path: Path, key: str) -> Index:
    kept = open_index(path)
    if kept is None or kept.key != key:
        raise UserError(f"{path} was replaced by another run: the dataset has changed. Start again.")
    return _index(kept)


def _refuse_hopeless(index: Index, source: Source, config: DatasetConfig, split: str) -> None:
    """Raise where training or evaluating on this index would be pointless."""
    first = f" First problem: {index.problems[0]}" if index.problems else ""
    if not source.pictures:
        raise UserError(
            f"no pictures in {source.where} ('{split}' of {config.path}). Put pictures there, or correct it."
        )
    if not index.n:
        raise UserError(f"none of the {len(source.pictures)} pictures of {source.where} can be used.{first}")
    if not len(index.classes):
        raise UserError(
            f"no labels at all for the {index.n} pictures of '{split}' in {config.path}: {source.no_labels()}.{first}"
        )
