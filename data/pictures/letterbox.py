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


def long_side_shape(hw: tuple[int, int], imgsz: int) -> tuple[int, int]:
    """(h, w) of a picture whose long side is scaled to imgsz; rounded up, as ultralytics loads pictures."""
    h, w = int(hw[0]), int(hw[1])
    gain = imgsz / max(h, w)
    if gain == 1:
        return h, w
    return min(math.ceil(h * gain), imgsz), min(math.ceil(w * gain), imgsz)
