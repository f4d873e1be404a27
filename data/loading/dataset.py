"""Training sample = f(seed, epoch, position), evaluation sample = f(row): no hidden random state."""

import os

import cv2
import numpy as np
import torch

from data.index.index import Index
from data.loading.augment import (
    PixelTransforms,
    blend,
    change_colour,
    coloured_later,
    draw_flips,
    draw_gains,
    flip_boxes,
    split_flipped,
)
from data.loading.blocks import Blocks
from data.loading.mosaic import compose, draw_centre, draw_geometry, place_four, place_one
from data.loading.order import BLOCK, block_of, epoch_order, generator, picture_weights
from data.pictures.cache import Pictures, open_pictures
from data.pictures.letterbox import long_side_shape, place, rect_batches
from utils.boxes import xywhn_to_xyxy, xyxy_to_xywhn
from utils.config.schema import Hyp

KEEP = 2 * BLOCK  # decoded pictures that a process remembers (the last block is up to twice as long) ...
KEEP_BYTES = 256 * 2**20  # ... as long as they need no more than this

Picture = tuple[np.ndarray, np.ndarray, np.ndarray]  # img (h, w, 3) BGR, boxes (n, 4) xywhn, classes (n,)
Boxes = tuple[np.ndarray, np.ndarray]  # boxes (n, 4) xyxy pixels, classes (n,)
Sample = dict[str, object]


def to_chw(img: np.ndarray) -> torch.Tensor:
    """BGR (h, w, 3) uint8 -> RGB (3, h, w)."""
    out = np.empty((3, *img.shape[:2]), np.uint8)
    cv2.split(img, [out[2], out[1], out[0]])  # three times faster than a transposed copy
    return torch.from_numpy(out)


class TrainDataset(torch.utils.data.Dataset):
    """Augmented samples; the key (epoch, position) comes from the sampler, so the dataset itself has no state."""

    def __init__(self, index: Index, hyp: Hyp, imgsz: int):
        self.index, self.hyp, self.imgsz = index, hyp, imgsz
        self.names, self.nc = index.names, index.nc
        self.pixel_transforms = PixelTransforms(hyp.albumentations) if hyp.albumentations else None
        self.coloured_later = coloured_later(hyp)
        self.weights, self.n = picture_weights(index, hyp.balance), index.per_epoch
        remember = min(KEEP, KEEP_BYTES // (3 * imgsz**2))
        self.pictures = open_pictures(
            index, imgsz, hyp.cache, True, remember, hyp.cache_gb, hyp.strict, white=hyp.white_level
        )
        self._room: tuple[int, np.ndarray] | None = None
        self.blocks: Blocks | None = None  # of the worker processes of a ring, when nothing is cached

    def __len__(self) -> int:
        return self.n

    @property
    def decodes(self) -> bool:
        """Whether some pictures are decoded for each sample."""
        return self.pictures.cached < self.index.n

    @property
    def most_boxes(self) -> int:
        """No sample has more."""
        counts = np.diff(self.index.offsets)
        return int(counts.max(initial=0)) * (4 if self.hyp.mosaic else 1) * (2 if self.hyp.mixup else 1)

    def mixes(self, epoch: int) -> bool:
        """Whether mosaic and mixup are on: not in the last `close_mosaic` epochs."""
        return epoch < self.hyp.epochs - self.hyp.close_mosaic

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        """img uint8 (3, imgsz, imgsz) RGB, cls (n,) float32, bboxes (n, 4) float32 xywhn; gains (3,) of `recolour`."""
        img = np.empty((3, self.imgsz, self.imgsz), np.uint8)
        rows = torch.from_numpy(self.write(*key, img))
        sample = {"img": torch.from_numpy(img), "cls": rows[:, 0], "bboxes": rows[:, 1:]}
        return sample | ({"gains": self.gains(*key)} if self.coloured_later else {})

    def gains(self, epoch: int, position: int) -> np.ndarray:
        """How the colours of a sample are to change, (3,): by its worker, or on the device (hsv_on)."""
        return draw_gains(generator(self.hyp.seed, epoch, position, "colour"), self.hyp)

    def write(self, epoch: int, position: int, out: np.ndarray) -> np.ndarray:
        """Write a sample into out (3, imgsz, imgsz) uint8, RGB; returns its boxes (n, 5): class, xywhn."""
        hyp = self.hyp
        img, spare = self._work()
        boxes, classes = self._geometry(epoch, position, generator(hyp.seed, epoch, position, "mosaic"), img)
        if self.mixes(epoch) and hyp.mixup:
            boxes, classes = self._mixup(epoch, position, img, spare, boxes, classes)
        if self.pixel_transforms:
            seed = int(generator(hyp.seed, epoch, position, "pixels").integers(2**31))
            img = self.pixel_transforms(img, seed)
        if not self.coloured_later:
            img = change_colour(img, (spare, out), self.gains(epoch, position), hyp.hsv_mode)
        flips = draw_flips(generator(hyp.seed, epoch, position, "flip"), hyp)
        split_flipped(img, flips, out)
        rows = np.empty((len(boxes), 5), np.float32)
        rows[:, 0] = classes
        rows[:, 1:] = xyxy_to_xywhn(flip_boxes(boxes, flips, self.imgsz), self.imgsz, self.imgsz)
        return rows

    def _work(self) -> np.ndarray:
        """Room for two pictures (2, imgsz, imgsz, 3), kept: fresh memory for each costs page faults."""
        if self._room is None or self._room[0] != os.getpid():
            self._room = os.getpid(), np.empty((2, self.imgsz, self.imgsz, 3), np.uint8)
        return self._room[1]

    def _geometry(self, epoch: int, position: int, rng: np.random.Generator, out: np.ndarray) -> Boxes:
        """Mosaic, or the picture alone; then scaled, shifted, rotated, sheared into out (imgsz, imgsz, 3)."""
        if self.mixes(epoch) and rng.random() < self.hyp.mosaic:
            partners = rng.integers(*block_of(position, len(self)), size=3)
            pictures = [self._picture(epoch, p) for p in (position, *partners.tolist())]
            tiles = place_four(pictures, draw_centre(rng, self.imgsz), self.imgsz)
            canvas = (2 * self.imgsz, 2 * self.imgsz)
        else:
            tiles = place_one(*self._picture(epoch, position))
            canvas = tiles[0].img.shape[:2]
        return compose(tiles, draw_geometry(rng, self.hyp, canvas, self.imgsz), out)

    def _mixup(
        self, epoch: int, position: int, img: np.ndarray, spare: np.ndarray, boxes: np.ndarray, classes: np.ndarray
    ) -> Boxes:
        """With probability `mixup`, blend a second sample of the same block into img."""
        rng = generator(self.hyp.seed, epoch, position, "blend")
        if rng.random() >= self.hyp.mixup:
            return boxes, classes
        other = int(rng.integers(*block_of(position, len(self))))
        partner = generator(self.hyp.seed, epoch, position, "partner")
        more_boxes, more_classes = self._geometry(epoch, other, partner, spare)
        blend(img, spare, rng)
        return np.concatenate([boxes, more_boxes]), np.concatenate([classes, more_classes])

    def _picture(self, epoch: int, position: int) -> Picture:
        """The picture at a position of an epoch, long side imgsz, and its boxes; crowds are left out of training."""
        i = int(epoch_order(self.hyp.seed, epoch, self.n, self.weights, self.index.parts)[position])
        rows = self.index.rows(i)
        boxes, classes, crowd = self.index.boxes[rows], self.index.classes[rows], self.index.crowd[rows]
        if crowd.any():
            boxes, classes = boxes[~crowd], classes[~crowd]
        return self._pixels(epoch, position, i), boxes, classes

    def _pixels(self, epoch: int, position: int, i: int) -> np.ndarray:
        """Row i of the index, which stands at a position of the epoch; from the shared blocks if there are any."""
        if self.blocks is None or i < self.pictures.cached:
            return self.pictures[i]
        hw = long_side_shape(tuple(self.index.shapes[i].tolist()), self.imgsz)
        return self.blocks.get(epoch, position, hw, lambda: self.pictures.load(i))


class EvalDataset(torch.utils.data.Dataset):
    """Letterboxed pictures, sorted by aspect so that a batch shares a shape with little padding (rect)."""

    def __init__(
        self,
        index: Index,
        imgsz: int,
        stride: int,
        batch: int,
        rect: bool = True,
        pad: float = 0.5,
        pictures: Pictures | None = None,
        white: float | None = None,
    ):
        """pictures: as the index has them, not reduced; None: decoded when asked for, by `white` (see to_8_bit)."""
        self.index, self.imgsz = index, imgsz
        self.pictures = pictures
        if self.pictures is None:
            self.pictures = open_pictures(index, imgsz, "off", reduce=False, white=white)
        batches = rect_batches(index.shapes, imgsz, stride, batch, rect, pad)
        self.order, self.batch_of, self.shapes = batches.order, batches.batch_of, batches.shapes

    def __len__(self) -> int:
        return self.index.n

    def __getitem__(self, at: int) -> Sample:
        """As a training sample; also index (row), letterbox (original pixels -> batch picture), ori_shape (h, w)."""
        i = int(self.order[at])
        height, width = map(int, self.index.shapes[i])
        shape = tuple(self.shapes[self.batch_of[at]].tolist())
        img, whole = place(self.pictures[i], (height, width), shape)
        rows = self.index.rows(i)
        boxes = whole.apply(xywhn_to_xyxy(self.index.boxes[rows].astype(np.float64), width, height))
        return {
            "img": to_chw(img),
            "cls": torch.from_numpy(self.index.classes[rows].astype(np.float32)),
            "bboxes": torch.from_numpy(xyxy_to_xywhn(boxes, img.shape[1], img.shape[0]).astype(np.float32)),
            "index": i,
            "letterbox": whole,
            "ori_shape": (height, width),
        }
