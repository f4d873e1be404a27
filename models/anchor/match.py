"""Which anchors of which cells are to find which box, as YOLOv5 (v7.0) decides it; on the host."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from utils.config.schema import Hyp

NEAR = 0.5  # cells: a neighbour whose border is nearer than this is to find the box, too
CELLS = ((0, 0), (1, 0), (0, 1), (-1, 0), (0, -1))  # own, left, upper, right, lower neighbour
OFFSETS = NEAR * np.array(CELLS, dtype=np.float32)


@dataclass(frozen=True)
class Found:
    """What one level is to find, a row for each pair of an anchor of a cell and a box."""

    cell: Tensor  # (n,) number of the anchor's cell in (b, anchors, h, w), flattened
    anchor: Tensor  # (n,)
    box: Tensor  # (n, 4) xywh in cells, x and y from the cell's corner
    cls: Tensor  # (n,)
    last: Tensor  # (k,) rows, one for each cell that has any: the last one decides what objectness is aimed at

    def to(self, device: torch.device) -> "Found":
        """The same on a device."""
        parts = (self.cell, self.anchor, self.box, self.cls, self.last)
        return Found(*(part.to(device, non_blocking=True) for part in parts))


def as_rows(batch: dict[str, Tensor]) -> np.ndarray:
    """The boxes of a batch (n, 6) float32 on the host: picture, class, xywh in 0..1."""
    head = torch.stack((batch["batch_idx"].float(), batch["cls"].float()), 1)
    return torch.cat((head, batch["bboxes"].float()), 1).cpu().numpy()


def find(rows: np.ndarray, anchors: Tensor, shape: tuple[int, int, int, int], hyp: Hyp, decode: str) -> Found:
    """What a level of `shape` (b, anchors, h, w) with anchors (anchors, 2) in cells is to find of the boxes `rows`.

    A box goes to every anchor that suits its size; to its own cell and, where boxes may leave their cell
    (decode yolov5), to the nearest neighbour in x and the one in y.
    """
    _, _, h, w = shape
    size = np.array([w, h], dtype=np.float32)
    centre, wh = rows[:, 2:4] * size, rows[:, 4:6] * size  # (n, 2), (n, 2) in cells
    suits = _near_in_iou(wh, anchors.numpy(), hyp.iou_t) if decode == "darknet" else _near(wh, anchors.numpy(), hyp)
    anchor, row = np.nonzero(suits)  # anchor by anchor
    xy = centre[row]
    takes = np.ones((1, len(xy)), dtype=bool)
    if decode != "darknet":
        low = (xy % 1 < NEAR) & (xy > 1)  # (k, 2) near the cell's left and upper border
        high = ((size - xy) % 1 < NEAR) & (size - xy > 1)
        takes = np.concatenate((takes, low.T, high.T))  # (5, k)
    offset, k = np.nonzero(takes)
    cell = (xy[k] - OFFSETS[offset]).astype(np.int64).clip(0, [w - 1, h - 1])  # (m, 2)
    row, anchor = row[k], anchor[k]
    flat = np.ravel_multi_index((rows[row, 0].astype(np.int64), anchor, cell[:, 1], cell[:, 0]), shape)
    last = len(flat) - 1 - np.unique(flat[::-1], return_index=True)[1]
    box = np.concatenate((xy[k] - cell, wh[row]), 1).astype(np.float32)
    parts = (flat, anchor, box, rows[row, 1].astype(np.int64), last)
    return Found(*(torch.from_numpy(np.ascontiguousarray(part)) for part in parts))


def _near(wh: np.ndarray, anchors: np.ndarray, hyp: Hyp) -> np.ndarray:
    """Whether (anchors, n) neither side of a box and of an anchor differ by a factor of anchor_t or more."""
    with np.errstate(divide="ignore"):
        ratio = wh[None] / anchors[:, None]  # (anchors, n, 2)
        return np.maximum(ratio, 1 / ratio).max(2) < hyp.anchor_t


def _near_in_iou(wh: np.ndarray, anchors: np.ndarray, iou_t: float) -> np.ndarray:
    """Whether (anchors, n) a box and an anchor that are laid upon each other overlap by more than iou_t (YOLOv3)."""
    inter = np.minimum(wh[None], anchors[:, None]).prod(2)
    return inter / (wh.prod(1)[None] + anchors.prod(1)[:, None] - inter) > iou_t
