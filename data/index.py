"""Dataset yaml -> columnar index of a split, with every problem named; cached outside the dataset."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from data.causes import counted_from_one
from data.dataset_yaml import DatasetConfig, load_dataset_yaml
from data.formats import Problem
from data.index_file import index_file, load_index, newest_index, save_index
from data.paths import Paths, spread
from data.sources import Content
from data.split_source import MixedSource, Source, open_source
from utils.errors import UserError

__all__ = ["DatasetConfig", "Index", "Problem", "build_index", "count_pictures", "load_dataset_yaml", "report_problems"]

COLUMNS = ("shapes", "boxes", "classes", "area", "crowd", "offsets", "image_ids")


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
    problems: list[Problem] = field(default_factory=list)

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


def build_index(config: DatasetConfig, split: str, strict: bool = False, single_cls: bool = False) -> Index:
    """Index of 'train', 'val' or 'test'; read from the cache folder when no picture and no label has changed."""
    source = open_source(config, split, single_cls)
    file = index_file(config, split, single_cls, source.stamps())
    kept = load_index(file, COLUMNS)
    if kept is None:
        index = _columns(source.pictures, source.read(), config.names)
        save_index(file, index, COLUMNS)
    else:
        index = Index(**kept | {"paths": Paths.of(kept["paths"])}, names=config.names)
    _refuse_hopeless(index, source, config, split, strict)
    if single_cls:
        index = replace(index, names=["item"], category_ids=[1], classes=np.zeros_like(index.classes))
    return index


def count_pictures(data: str | None, single_cls: bool = False, download: bool = False) -> tuple[int, bool]:
    """Training pictures of a dataset yaml, none of them read: of the kept index and True, else files and False."""
    config = load_dataset_yaml(data, download)
    file = newest_index(config, "train")
    kept = load_index(file, ()) if file else None
    paths = kept["paths"] if kept else []
    first = (config.train or [None])[0]
    if paths and _is_json(config.train) and first.is_file() and first.stat().st_mtime < file.stat().st_mtime:
        return len(paths), True  # a large json is not read again only to be counted
    source = open_source(config, "train", single_cls)
    if not source.pictures:
        raise UserError(f"no pictures in {source.where} ('train' of {config.path}).")
    if paths and (paths == source.pictures or index_file(config, "train", single_cls, source.stamps()) == file):
        return len(paths), True
    return len(source.pictures), False


def report_problems(index: Index, log: Callable[[str], None], limit: int = 10) -> None:
    """Print the first problems, one a line, and how many there are."""
    for problem in index.problems[:limit]:
        log(str(problem))
    if len(index.problems) > limit:
        log(f"... and {len(index.problems) - limit} more problems ({len(index.problems)} in all)")


def _is_json(sources: list[Path] | None) -> bool:
    return bool(sources) and len(sources) == 1 and sources[0].suffix.lower() == ".json"


def _columns(pictures: list[str], content: Content, names: list[str]) -> Index:
    """Join what was read of each picture; pictures without a shape are left out."""
    kept = [i for i, (shape, _) in enumerate(content.rows) if shape is not None]
    rows = [content.rows[i][1] for i in kept]
    shapes = np.array([content.rows[i][0] for i in kept], np.int32).reshape(-1, 2)
    counts = np.array([len(r.classes) for r in rows], np.int64)
    boxes = np.concatenate([np.zeros((0, 4)), *[r.boxes for r in rows]])
    hw = np.repeat(shapes, counts, axis=0)  # (m, 2) size of each box's picture
    area = boxes[:, 2] * hw[:, 1] * boxes[:, 3] * hw[:, 0]
    if any(r.area is not None for r in rows):
        area = np.concatenate([r.area for r in rows])
    classes = np.concatenate([np.zeros(0), *[r.classes for r in rows]]).astype(np.int32)
    problems = content.problems + [p for _, r in content.rows for p in r.problems]
    cause = counted_from_one(classes, problems, names)
    crowd = [np.zeros(len(r.classes), bool) if r.crowd is None else r.crowd for r in rows]
    return Index(
        paths=Paths.of([pictures[i] for i in kept]),
        shapes=shapes,
        boxes=boxes.astype(np.float32),
        classes=classes,
        area=area.astype(np.float32),
        crowd=np.concatenate([np.zeros(0), *crowd]).astype(bool),
        offsets=np.concatenate([[0], counts.cumsum()]).astype(np.int64),
        names=names,
        image_ids=np.array([content.image_ids[i] for i in kept], np.int64),
        category_ids=content.category_ids,
        problems=[cause, *problems] if cause else problems,
    )


def _refuse_hopeless(
    index: Index, source: Source | MixedSource, config: DatasetConfig, split: str, strict: bool
) -> None:
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
    if index.crowd.all():
        raise UserError(
            f"all {len(index.classes)} boxes of '{split}' in {config.path} are crowds (COCO's iscrowd) or difficult "
            f"objects (VOC), which are not trained on and not scored. Set the flag to 0 for ordinary objects."
        )
    if strict and index.problems:
        shown = "\n".join(map(str, index.problems[:10]))
        raise UserError(f"{len(index.problems)} problems in '{split}' of {config.path}, and --strict is set:\n{shown}")
