"""What a split of a dataset consists of, in numbers; columns only, so that a million pictures take seconds."""

import os
from dataclasses import dataclass

import numpy as np

from data.formats.find import label_path
from data.index.index import Index

SMALL, MEDIUM = 32**2, 96**2  # pixels^2: COCO's borders between small, medium and large boxes
TINY = 8  # pixels: the finest stride of the usual networks; a box with a side below it hardly shows on the grid


@dataclass(frozen=True, eq=False)
class Counts:
    """Numbers of one split; crowd boxes count nowhere but in `crowds`."""

    pictures: int
    boxes: int
    crowds: int
    backgrounds: int  # pictures without a box
    unlabelled: int  # backgrounds without a label file; 0 where labels are not a file for each picture
    left_out: int  # pictures that cannot be used
    per_epoch: int  # pictures of an epoch, where it has parts of some data sets; else 0
    per_picture: np.ndarray  # (n,) boxes of each picture
    shapes: np.ndarray  # (n, 2) height, width
    class_boxes: np.ndarray  # (nc,)
    class_pictures: np.ndarray  # (nc,) pictures with at least one box of the class
    sizes: np.ndarray  # (m, 2) width, height of each box in pixels of its picture
    area: np.ndarray  # (m,) pixels^2
    long_side: np.ndarray  # (m,) of each box's picture
    owner: np.ndarray  # (m,) row of each box's picture
    xywhn: np.ndarray  # (m, 4)

    def at(self, imgsz: int) -> np.ndarray:
        """Width and height (m, 2) of each box in a picture letterboxed to imgsz."""
        return self.sizes * (imgsz / self.long_side[:, None])

    def by_area(self, imgsz: int | None = None) -> np.ndarray:
        """Numbers of small, medium and large boxes, in the pictures as they are or letterboxed to imgsz."""
        area = self.area if imgsz is None else self.area * (imgsz / self.long_side) ** 2
        return np.bincount(np.digitize(area, [SMALL, MEDIUM]), minlength=3)

    def tiny(self, imgsz: int) -> float:
        """Share of boxes with a side below 8 pixels in a picture letterboxed to imgsz."""
        return float((self.at(imgsz).min(1) < TINY).mean()) if self.boxes else 0.0

    def larger_than(self, side: float) -> int:
        """Number of pictures whose long side is above `side` pixels."""
        return int((self.shapes.max(1) > side).sum())


def count(index: Index, txt: bool = True) -> Counts:
    """The numbers of an index; txt: its labels may be a .txt for each picture, not one json."""
    owner = np.repeat(np.arange(index.n), np.diff(index.offsets))  # (m,)
    real = np.flatnonzero(~np.asarray(index.crowd))
    owner, classes, xywhn = owner[real], np.asarray(index.classes)[real], np.asarray(index.boxes)[real]
    shapes = np.asarray(index.shapes)
    hw = shapes[owner]  # (m, 2)
    per_picture = np.bincount(owner, minlength=index.n)
    pairs = np.unique(owner * index.nc + classes)  # each class of a picture once
    backgrounds = np.flatnonzero(np.diff(index.offsets) == 0)
    return Counts(
        pictures=index.n,
        boxes=len(real),
        crowds=len(index.crowd) - len(real),
        backgrounds=len(backgrounds),
        unlabelled=_without_label_file(index, backgrounds) if txt else 0,
        left_out=_left_out(index),
        per_epoch=index.per_epoch if index.parts else 0,
        per_picture=per_picture,
        shapes=shapes,
        class_boxes=np.bincount(classes, minlength=index.nc),
        class_pictures=np.bincount(pairs % index.nc, minlength=index.nc),
        sizes=xywhn[:, 2:] * hw[:, ::-1],
        area=np.asarray(index.area)[real],
        long_side=hw.max(1),
        owner=owner,
        xywhn=xywhn,
    )


def _without_label_file(index: Index, backgrounds: np.ndarray) -> int:
    """How many backgrounds have no .txt; asked only of datasets with a .txt for each picture."""
    labelled = np.flatnonzero(np.diff(index.offsets))
    if not len(labelled) or not os.path.exists(label_path(index.paths[int(labelled[0])])):
        return 0
    return sum(not os.path.exists(label_path(index.paths[int(row)])) for row in backgrounds)


def _left_out(index: Index) -> int:
    """Pictures that are not in the index, because they or their label files cannot be read."""
    return len({p.path for p in index.problems if p.kind in ("picture", "label")})
