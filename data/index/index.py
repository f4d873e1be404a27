"""Dataset yaml -> columnar index of a split, with every problem named; cached outside the dataset."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from data.definition.config import DatasetConfig
from data.definition.dataset_yaml import load_dataset_yaml
from data.formats.rows import Problem
from data.index.build import find_stored, open_stored, same_pictures
from data.index.columns import Paths, from_columns, spread
from data.index.file import IndexFile, open_index
from data.index.state import State
from data.index.table import Table
from data.sources.depth import Depth
from data.sources.share import group_of
from data.sources.split import open_source
from utils.errors import UserError


@dataclass(frozen=True, eq=False)
class Pool:
    """A larger index that the pictures of another one are drawn from: decoded pictures are kept for all of it."""

    whole: "Index"
    rows: np.ndarray  # (n,) of each picture in it
    own_ids: bool  # whether its image_ids and category_ids are those of COCO jsons


@dataclass(frozen=True, eq=False)
class Parts:
    """Groups of pictures, and how many of each an epoch has: of a split that lists other data sets, one with a part."""

    group: np.ndarray  # (n,) int32 of each picture
    names: list[str]  # of the yaml that each group comes from
    shares: list[float]  # of each group, above 0

    def take(self, pictures: np.ndarray) -> "Parts":
        """Those of some pictures (k,)."""
        return replace(self, group=self.group[pictures])

    def sizes(self) -> list[int]:
        """Pictures of each group."""
        return np.bincount(self.group, minlength=len(self.shares)).tolist()

    def drawn(self) -> list[int]:
        """Pictures of each group in an epoch, at least one where there are any."""
        return [max(round(n * share), min(n, 1)) for n, share in zip(self.sizes(), self.shares, strict=True)]

    def chance(self) -> np.ndarray:
        """How often an epoch has each picture on average, (n,) float64."""
        return (np.array(self.drawn()) / np.maximum(self.sizes(), 1))[self.group]


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
    pool: Pool | None = None
    parts: Parts | None = None  # None: an epoch has every picture once
    depth: Depth = Depth()  # of the pictures of all splits that these were drawn from
    file: IndexFile | None = field(default=None, init=False, repr=False)  # whose columns these are, as they stand there

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def n(self) -> int:
        """Number of pictures."""
        return len(self.paths)

    @property
    def per_epoch(self) -> int:
        """Number of training pictures of an epoch."""
        return self.n if self.parts is None else sum(self.parts.drawn())

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
        pool = self.pool and replace(self.pool, rows=self.pool.rows[pictures])
        parts = self.parts and self.parts.take(pictures)
        return replace(self, paths=self.paths.take(pictures), offsets=offsets, pool=pool, parts=parts, **columns)

    def rows(self, i: int) -> slice:
        """Rows of `boxes`, `classes`, `area`, `crowd` that belong to picture i."""
        return slice(int(self.offsets[i]), int(self.offsets[i + 1]))

    def __reduce__(self) -> tuple[Any, ...]:
        """A process that was not forked opens the file again: pickling would copy the columns."""
        if self.file and self.file.in_place():
            return _open_again, (self.file.path, self.file.key)
        values = [getattr(self, f.name) for f in fields(self) if f.init]
        return Index, tuple(None if isinstance(value, Pool) else value for value in values)  # nobody there asks for it


def build_index(
    config: DatasetConfig, split: str, strict: bool = False, single_cls: bool = False, trust: bool = False
) -> Index:
    """Index of 'train', 'val' or 'test'; stored in the cache folder for as long as no picture and no label changes.

    strict: everything is read again, and a problem is an error. trust: what is stored is used without looking.
    """
    index = _index(find_stored(config, split, single_cls, strict, trust))
    if strict and index.problems:
        shown = "\n".join(map(str, index.problems[:10]))
        raise UserError(f"{len(index.problems)} problems in '{split}' of {config.path}, and --strict is set:\n{shown}")
    return index


def pooled(indexes: list[Index]) -> tuple[Index, bool]:
    """All pictures of one or two indexes, one of both (by its path) once; and whether its ids are those of COCO jsons.

    Ids of the two that clash are numbered anew.
    """
    if len(indexes) == 1:
        return indexes[0], True
    train, val = indexes
    both = set(train.paths) & set(val.paths)
    if both:
        val = val.take(np.array([i for i, path in enumerate(val.paths) if path not in both], np.int64))
    names = ("shapes", "boxes", "classes", "area", "crowd", "image_ids")
    columns = {name: np.concatenate([getattr(train, name), getattr(val, name)]) for name in names}
    own_ids = len(np.unique(columns["image_ids"])) == len(columns["image_ids"])
    own_ids = own_ids and train.category_ids == val.category_ids
    whole = replace(
        train,
        **columns,
        paths=Paths.join([train.paths, val.paths]),
        offsets=np.concatenate([train.offsets, train.offsets[-1] + val.offsets[1:]]),
        problems=[*train.problems, *val.problems],
        depth=train.depth.joined(val.depth),
    )
    if not own_ids:
        whole = replace(whole, image_ids=np.arange(1, whole.n + 1), category_ids=list(range(1, whole.nc + 1)))
    return whole, own_ids


def count_pictures(
    data: str | None, single_cls: bool = False, download: bool = False, split: str = "train"
) -> tuple[int, bool]:
    """Pictures that an epoch of a split has, none of them read: of the stored index and True, else files and False."""
    config = load_dataset_yaml(data, download)
    stored = open_stored(config, split, single_cls)
    if stored and from_columns(State, stored.columns).same_places(stored.header["sha256"]):
        return _index(stored).per_epoch, True
    source = open_source(config, split, single_cls)
    if not source.pictures:
        raise UserError(f"no pictures in {source.where} ('{split}' of {config.path}).")
    if stored and same_pictures(stored, source.pictures):
        return _index(stored).per_epoch, True
    shares = source.shares
    return sum(Parts(group_of(shares), [s.name for s in shares], [s.part for s in shares]).drawn()), False


def report_problems(index: Index, log: Callable[[str], None], limit: int = 10) -> None:
    """Print the first problems, one a line, and how many there are."""
    for problem in index.problems[:limit]:
        log(str(problem))
    if len(index.problems) > limit:
        log(f"... and {len(index.problems) - limit} more problems ({len(index.problems)} in all)")


def _index(stored: IndexFile) -> Index:
    """The index whose columns are those of a file; pictures that cannot be used stand at the end, and are left out."""
    table, n = from_columns(Table, stored.columns), stored.header["usable"]
    paths = from_columns(State, stored.columns).paths
    index = Index(
        paths=Paths(paths.flat, paths.offsets[: n + 1]),
        shapes=table.shapes[:n],
        boxes=table.boxes,
        classes=table.classes,
        area=table.area,
        crowd=table.crowd,
        offsets=table.offsets[: n + 1],
        names=stored.header["names"],
        image_ids=stored.columns["image_ids"][:n],
        category_ids=stored.header["category_ids"],
        problems=table.problems,
        parts=_parts(stored),
        depth=Depth(stored.header["depth"]["top"], tuple(stored.header["depth"]["counts"])),
    )
    object.__setattr__(index, "file", stored)
    return index


def _parts(stored: IndexFile) -> Parts | None:
    """The groups of the pictures of an index, where an epoch has a part of some."""
    if "shares" not in stored.header:
        return None
    names, shares = zip(*stored.header["shares"], strict=True)
    return Parts(stored.columns["group"][: stored.header["usable"]], list(names), list(shares))


def _open_again(path: Path, key: str) -> Index:
    stored = open_index(path)
    if stored is None or stored.key != key:
        raise UserError(f"{path} was replaced by another run: the dataset has changed. Start again.")
    return _index(stored)
