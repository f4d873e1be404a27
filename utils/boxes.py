"""Boxes: conversions, clipping, area, IoU. Pure functions of numpy arrays or torch tensors."""

from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    import torch

Array = TypeVar("Array", np.ndarray, "torch.Tensor")


def _stack(columns: list[Array]) -> Array:
    """Join four (n,) columns into (n, 4), in the library that they come from."""
    if isinstance(columns[0], np.ndarray | np.generic):
        return np.stack(columns, -1)
    import torch  # only where its tensors are: an index of a dataset is read without it

    return torch.stack(columns, -1)


def xywhn_to_xyxy(boxes: Array, w: float, h: float, padw: float = 0, padh: float = 0) -> Array:
    """Centre, size in 0..1 of a picture of w x h pixels (n, 4) -> corners in pixels (n, 4), moved by the padding."""
    x, y, bw, bh = (boxes[..., k] for k in range(4))
    return _stack([w * (x - bw / 2) + padw, h * (y - bh / 2) + padh, w * (x + bw / 2) + padw, h * (y + bh / 2) + padh])


def xyxy_to_xywhn(boxes: Array, w: float, h: float) -> Array:
    """Corners in pixels (n, 4) -> centre, size in 0..1 of a picture of w x h pixels (n, 4)."""
    x1, y1, x2, y2 = (boxes[..., k] for k in range(4))
    return _stack([(x1 + x2) / (2 * w), (y1 + y2) / (2 * h), (x2 - x1) / w, (y2 - y1) / h])


def clip_xyxy(boxes: Array, w: float, h: float) -> Array:
    """Corners (n, 4) moved into the picture of w x h pixels; a new array."""
    x1, y1, x2, y2 = (boxes[..., k] for k in range(4))
    return _stack([x1.clip(0, w), y1.clip(0, h), x2.clip(0, w), y2.clip(0, h)])


def area(boxes: Array) -> Array:
    """Area (n,) of xyxy boxes (n, 4); 0 for a box turned inside out."""
    return (boxes[..., 2] - boxes[..., 0]).clip(0) * (boxes[..., 3] - boxes[..., 1]).clip(0)


def pairwise_iou(a: "torch.Tensor", b: "torch.Tensor") -> "torch.Tensor":
    """IoU of every box in a (n, 4) with every box in b (m, 4), both xyxy in pixels; returns (n, m)."""
    import torch

    lt = torch.maximum(a[:, None, :2], b[None, :, :2])  # (n, m, 2)
    rb = torch.minimum(a[:, None, 2:], b[None, :, 2:])  # (n, m, 2)
    inter = (rb - lt).clamp(min=0).prod(-1)  # (n, m); 0 when the boxes are apart
    union = area(a)[:, None] + area(b)[None, :] - inter  # (n, m)
    return inter / union.clamp(min=1e-9)  # two empty boxes: 0, not NaN
