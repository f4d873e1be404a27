"""Letterbox: a picture scaled into a shape with its aspect kept and the rest filled with grey; and the way back."""

import math
from dataclasses import dataclass

import cv2
import numpy as np

FILL = 114  # grey of everything that is not picture: the value that pretrained YOLO weights have seen


@dataclass(frozen=True)
class Letterbox:
    """Mapping of pixels really used, x_out = x * gain_x + pad_left; new_h, new_w: the scaled picture, unpadded."""

    gain_x: float
    gain_y: float
    pad_left: int
    pad_top: int
    new_h: int
    new_w: int

    def apply(self, boxes: np.ndarray) -> np.ndarray:
        """Boxes (n, 4) xyxy in pixels of the picture -> pixels of the letterboxed one; numpy or torch."""
        out = boxes * 1.0  # a copy, and integers become floats
        out[..., 0::2] = boxes[..., 0::2] * self.gain_x + self.pad_left
        out[..., 1::2] = boxes[..., 1::2] * self.gain_y + self.pad_top
        return out

    def undo(self, boxes: np.ndarray, clip_to: tuple[int, int] | None = None) -> np.ndarray:
        """Boxes (n, 4) xyxy of the letterboxed picture -> pixels of the picture, clipped to (h, w) where given."""
        out = boxes * 1.0
        out[..., 0::2] = (boxes[..., 0::2] - self.pad_left) / self.gain_x
        out[..., 1::2] = (boxes[..., 1::2] - self.pad_top) / self.gain_y
        if clip_to is not None:
            out[..., 0::2] = out[..., 0::2].clip(0, clip_to[1])
            out[..., 1::2] = out[..., 1::2].clip(0, clip_to[0])
        return out


def letterbox_geometry(hw: tuple[int, int], shape: tuple[int, int], scaleup: bool = True) -> Letterbox:
    """How a picture (h, w) is placed in the middle of `shape` (H, W), in pixels; without scaleup never enlarged."""
    (h, w), (out_h, out_w) = hw, shape
    gain = min(out_h / h, out_w / w)
    if not scaleup:
        gain = min(gain, 1.0)
    new_h, new_w = max(round(h * gain), 1), max(round(w * gain), 1)
    # - 0.1: with an odd remainder the top and left side get the smaller half, as in ultralytics
    top, left = round((out_h - new_h) / 2 - 0.1), round((out_w - new_w) / 2 - 0.1)
    return Letterbox(new_w / w, new_h / h, left, top, new_h, new_w)


def letterbox(
    img: np.ndarray, shape: tuple[int, int], scaleup: bool = True, fill: int = FILL
) -> tuple[np.ndarray, Letterbox]:
    """Picture (h, w, c) uint8 -> (H, W, c) of `shape`, with the geometry used."""
    box = letterbox_geometry(img.shape[:2], shape, scaleup)
    out = np.full((*shape, img.shape[2]), fill, np.uint8)
    inner = out[box.pad_top : box.pad_top + box.new_h, box.pad_left : box.pad_left + box.new_w]
    if img.shape[:2] == (box.new_h, box.new_w):
        inner[:] = img
    else:
        cv2.resize(img, (box.new_w, box.new_h), dst=inner, interpolation=cv2.INTER_LINEAR)
    return out, box


def place(img: np.ndarray, hw: tuple[int, int], shape: tuple[int, int]) -> tuple[np.ndarray, Letterbox]:
    """A picture whose long side has been scaled, put into `shape` without enlarging it; and the way from its full size.

    hw: height and width of the picture in its file, whose pixels the geometry counts in.
    """
    h, w = img.shape[:2]
    out, box = letterbox(img, shape, scaleup=False)
    gain_x, gain_y = box.gain_x * w / hw[1], box.gain_y * h / hw[0]  # of both resizes together
    return out, Letterbox(gain_x, gain_y, box.pad_left, box.pad_top, box.new_h, box.new_w)


@dataclass(frozen=True)
class RectBatches:
    """Pictures sorted by aspect, so that a batch shares a shape with little padding."""

    order: np.ndarray  # (n,) which picture stands at each place
    batch_of: np.ndarray  # (n,) batch of each place
    shapes: np.ndarray  # (batches, 2) height, width of each, in whole strides


def rect_batches(
    shapes: np.ndarray, imgsz: int, stride: int, batch: int, rect: bool = True, pad: float = 0.5
) -> RectBatches:
    """How pictures of `shapes` (n, 2) are put into batches of `batch`; without rect, in their order and square."""
    order = np.arange(len(shapes))
    batch_of = order // batch
    square = np.tile([imgsz, imgsz], (batch_of[-1] + 1, 1))
    if not rect:
        return RectBatches(order, batch_of, square)
    aspect = shapes[:, 0] / shapes[:, 1]
    order = aspect.argsort(kind="stable")
    return RectBatches(order, batch_of, _rect_shapes(aspect[order], batch_of, imgsz, stride, pad))


def _rect_shapes(aspect: np.ndarray, batch_of: np.ndarray, imgsz: int, stride: int, pad: float) -> np.ndarray:
    """Smallest shape (h, w) that holds every picture of each batch, in whole strides, with the padding."""
    shapes = np.ones((batch_of[-1] + 1, 2))
    for b in range(len(shapes)):
        low, high = aspect[batch_of == b].min(), aspect[batch_of == b].max()
        if high < 1:
            shapes[b, 0] = high
        elif low > 1:
            shapes[b, 1] = 1 / low
    return np.ceil(shapes * imgsz / stride + pad).astype(int) * stride


def long_side_shape(hw: tuple[int, int], imgsz: int) -> tuple[int, int]:
    """(h, w) of a picture whose long side is scaled to imgsz; rounded up, as ultralytics loads pictures."""
    h, w = int(hw[0]), int(hw[1])
    gain = imgsz / max(h, w)
    if gain == 1:
        return h, w
    return min(math.ceil(h * gain), imgsz), min(math.ceil(w * gain), imgsz)
