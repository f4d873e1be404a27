"""Dataset yaml -> columnar index of a split, with every problem named; cached outside the dataset."""

import contextlib
import hashlib
import json
import logging
import os
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from data.dataset_yaml import DatasetConfig, load_dataset_yaml
from data.formats import CocoFile, Problem, Rows, coco_rows, parse_yolo, read_coco
from data.scan import find_pictures, label_path, parallel, picture_shape, stamp
from utils.env import cache_dir
from utils.errors import UserError

__all__ = ["DatasetConfig", "Index", "Problem", "build_index", "load_dataset_yaml", "report_problems"]

VERSION = 1  # of the cached file: raise it when the columns or the rules change
COLUMNS = ("shapes", "boxes", "classes", "area", "crowd", "offsets")


@dataclass(frozen=True, eq=False)
class Index:
    """The pictures of a split and their boxes, as columns; boxes of picture i are rows(i)."""

    paths: list[str]  # absolute
    shapes: np.ndarray  # (n, 2) int32: height, width after EXIF rotation
    boxes: np.ndarray  # (m, 4) float32 xywhn
    classes: np.ndarray  # (m,) int32
    area: np.ndarray  # (m,) float32 pixels^2
    crowd: np.ndarray  # (m,) bool
    offsets: np.ndarray  # (n + 1,) int64
    names: list[str]
    image_ids: list[int]  # of a COCO json, else 1..n
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

    def rows(self, i: int) -> slice:
        """Rows of `boxes`, `classes`, `area`, `crowd` that belong to picture i."""
        return slice(int(self.offsets[i]), int(self.offsets[i + 1]))


def build_index(config: DatasetConfig, split: str, strict: bool = False, single_cls: bool = False) -> Index:
    """Index of 'train', 'val' or 'test'; read from the cache folder when no picture and no label has changed."""
    sources = getattr(config, split)
    if sources is None:
        raise UserError(f"{config.path} has no '{split}'. Add '{split}: <folder>', relative to {config.root}.")
    is_json = len(sources) == 1 and sources[0].suffix.lower() == ".json"
    source = _CocoSource(sources[0], config) if is_json else _YoloSource(sources, config, single_cls)
    file = _cache_file(config, split, single_cls, source.stamps())
    index = _load(file, config.names)
    if index is None:
        index = source.read()
        _save(file, index)
    _refuse_hopeless(index, source, config, split, strict)
    if single_cls:
        index = replace(index, names=["item"], category_ids=[1], classes=np.zeros_like(index.classes))
    return index


def report_problems(index: Index, log: Callable[[str], None], limit: int = 10) -> None:
    """Print the first problems, one a line, and how many there are."""
    for problem in index.problems[:limit]:
        log(str(problem))
    if len(index.problems) > limit:
        log(f"... and {len(index.problems) - limit} more problems ({len(index.problems)} in all)")


class _YoloSource:
    """Pictures from folders and lists, labels from the .txt of each."""

    def __init__(self, sources: list[Path], config: DatasetConfig, single_cls: bool):
        self.pictures = find_pictures(sources, config.root)
        self.where = ", ".join(map(str, sources))
        self.names, self.nc = config.names, None if single_cls else len(config.names)
        self.labels = [label_path(picture) for picture in self.pictures]

    def stamps(self) -> list[tuple[str, int, int]]:
        files = self.pictures + self.labels
        return [(file, *info) for file, info in zip(files, parallel(stamp, files), strict=True)]

    def read(self) -> Index:
        rows = parallel(self._read_picture, list(range(len(self.pictures))))
        return _columns(self.pictures, rows, self.names, None, list(range(1, len(self.names) + 1)), [])

    def _read_picture(self, i: int) -> tuple[tuple[int, int] | None, Rows]:
        shape, reason = picture_shape(self.pictures[i])
        if shape is None:
            return None, _no_rows([Problem(self.pictures[i], None, reason)])
        try:
            text = Path(self.labels[i]).read_text(encoding="utf-8-sig")
        except FileNotFoundError:
            return shape, _no_rows([])
        except (OSError, UnicodeDecodeError) as e:
            message = f"cannot be read as UTF-8 text ({e}); its picture is left out. Save it again as plain text."
            return None, _no_rows([Problem(self.labels[i], None, message)])
        return shape, parse_yolo(text, self.labels[i], self.nc)

    def no_labels(self) -> str:
        example = f"; for {self.pictures[0]} that is {self.labels[0]}" if self.pictures else ""
        return f"looked for a .txt of the same name with the folder 'images' replaced by 'labels'{example}"


class _CocoSource:
    """Pictures and labels from a COCO instances json."""

    def __init__(self, path: Path, config: DatasetConfig):
        if not path.is_file():
            raise UserError(f"{path} does not exist. Correct the split in {config.path}.")
        self.path, self.where, self.names = path, str(path), config.names
        self.coco: CocoFile = read_coco(path, config.names)
        self.folder = self._picture_folder()
        self.pictures = [os.path.normpath(self.folder / name) for name in self.coco.file_names]

    def _picture_folder(self) -> Path:
        """The first of the usual folders that holds one of the json's first pictures."""
        split = self.path.stem.removeprefix("instances_")
        here, up = self.path.parent, self.path.parent.parent
        places = [up / "images" / split, up / split, here / split, here / "images", here, up / "images", up]
        for place in places:
            if any((place / name).is_file() for name in self.coco.file_names[:20]):
                return place
        raise UserError(
            f"the pictures of {self.path} were not found; the first is {self.coco.file_names[:1]}. Looked in: "
            f"{', '.join(map(str, places))}."
        )

    def stamps(self) -> list[tuple[str, int, int]]:
        files = [str(self.path), *self.pictures]
        return [(file, *info) for file, info in zip(files, parallel(stamp, files), strict=True)]

    def read(self) -> Index:
        rows = parallel(self._read_picture, list(range(len(self.pictures))))
        coco = self.coco
        return _columns(self.pictures, rows, self.names, coco.image_ids, coco.category_ids, coco.problems)

    def _read_picture(self, i: int) -> tuple[tuple[int, int] | None, Rows]:
        shape, reason = picture_shape(self.pictures[i])
        if shape is None:
            return None, _no_rows([Problem(self.pictures[i], None, reason)])
        return shape, coco_rows(self.coco, i, shape, str(self.path))

    def no_labels(self) -> str:
        return "its 'annotations' hold no usable box"


def _no_rows(problems: list[Problem]) -> Rows:
    return Rows(np.zeros(0, np.int32), np.zeros((0, 4), np.float32), problems=problems)


def _columns(
    pictures: list[str],
    read: list[tuple[tuple[int, int] | None, Rows]],
    names: list[str],
    image_ids: list[int] | None,
    category_ids: list[int],
    problems: list[Problem],
) -> Index:
    """Join what was read of each picture; pictures without a shape are left out."""
    kept = [i for i, (shape, _) in enumerate(read) if shape is not None]
    rows = [read[i][1] for i in kept]
    shapes = np.array([read[i][0] for i in kept], np.int32).reshape(-1, 2)
    counts = np.array([len(r.classes) for r in rows], np.int64)
    boxes = np.concatenate([r.boxes for r in rows] or [np.zeros((0, 4))]).astype(np.float32)
    hw = np.repeat(shapes, counts, axis=0).astype(np.float32)  # (m, 2) size of each box's picture
    area = boxes[:, 2] * hw[:, 1] * boxes[:, 3] * hw[:, 0]
    if any(r.area is not None for r in rows):
        area = np.concatenate([r.area for r in rows])
    crowd = np.concatenate([np.zeros(len(r.classes), bool) if r.crowd is None else r.crowd for r in rows] or [area])
    return Index(
        paths=[pictures[i] for i in kept],
        shapes=shapes,
        boxes=boxes,
        classes=np.concatenate([r.classes for r in rows] or [area]).astype(np.int32),
        area=area.astype(np.float32),
        crowd=crowd.astype(bool),
        offsets=np.concatenate([[0], counts.cumsum()]).astype(np.int64),
        names=names,
        image_ids=list(range(1, len(kept) + 1)) if image_ids is None else [image_ids[i] for i in kept],
        category_ids=category_ids,
        problems=problems + [p for _, r in read for p in r.problems],
    )


def _refuse_hopeless(
    index: Index, source: _YoloSource | _CocoSource, config: DatasetConfig, split: str, strict: bool
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
    if strict and index.problems:
        shown = "\n".join(map(str, index.problems[:10]))
        raise UserError(f"{len(index.problems)} problems in '{split}' of {config.path}, and --strict is set:\n{shown}")


def _cache_file(config: DatasetConfig, split: str, single_cls: bool, stamps: list[tuple[str, int, int]]) -> Path:
    """Name of the cached index: which dataset, and in which state its files are."""
    which = hashlib.sha256(json.dumps([str(config.path), split]).encode()).hexdigest()[:12]
    state = hashlib.sha256(json.dumps([VERSION, config.names, single_cls]).encode())
    for path, size, mtime in stamps:
        state.update(f"{path}\0{size}\0{mtime}\n".encode(errors="surrogateescape"))
    return cache_dir() / "indexes" / f"{config.path.stem}-{split}-{which}-{state.hexdigest()[:20]}.npz"


def _save(file: Path, index: Index) -> None:
    """Write beside the target and move over it: no other run sees half a file. A full disk costs the cache only."""
    temporary = file.with_name(f"{file.name}.{os.getpid()}.tmp")
    problems = [[p.path, p.line, p.message] for p in index.problems]
    text = [index.paths, index.image_ids, index.category_ids, problems]
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        for old in file.parent.glob(file.name.rpartition("-")[0] + "-*.npz"):
            old.unlink(missing_ok=True)  # the same dataset in an earlier state
        with open(temporary, "wb") as f:
            columns = {name: getattr(index, name) for name in COLUMNS}
            np.savez(f, text=np.frombuffer(json.dumps(text).encode(), np.uint8), **columns)
        os.replace(temporary, file)
    except OSError as e:
        with contextlib.suppress(OSError):
            temporary.unlink()
        logging.getLogger(__name__).warning(
            f"the index could not be kept in {file.parent} ({e}); it is rebuilt next time"
        )


def _load(file: Path, names: list[str]) -> Index | None:
    """The cached index, or None where there is none of this state (or a damaged one)."""
    try:
        with np.load(file, allow_pickle=False) as content:
            columns = {name: content[name] for name in COLUMNS}
            paths, image_ids, category_ids, problems = json.loads(content["text"].tobytes())
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    return Index(
        paths=paths,
        names=names,
        image_ids=image_ids,
        category_ids=category_ids,
        problems=[Problem(*p) for p in problems],
        **columns,
    )
