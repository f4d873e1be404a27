"""Frames put together for a forward pass: a batch as evaluation has it, with the pictures it was made of."""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch

from data.pictures.decode import to_long_side
from data.pictures.letterbox import Letterbox, place


@dataclass(frozen=True)
class Frame:
    """One picture, from a file, or from a video or camera."""

    path: str  # of the file; of a camera its number or address
    hw: tuple[int, int]  # height, width as seen
    number: int | None = None  # of a video's frame, from 0; None: a picture file
    picture: np.ndarray | None = None  # BGR (h, w, 3) uint8, where somebody wants to draw on it or cut from it


@dataclass(frozen=True)
class Placed:
    """A frame as the network sees it."""

    frame: Frame
    img: np.ndarray  # RGB (3, H, W) uint8
    letterbox: Letterbox


def placed(frame: Frame, picture: np.ndarray, imgsz: int, shape: tuple[int, int]) -> Placed:
    """BGR picture at full size -> scaled and letterboxed into `shape` exactly as for evaluation."""
    img, box = place(to_long_side(picture, frame.hw, imgsz), frame.hw, shape)
    out = np.empty((3, *shape), np.uint8)
    cv2.split(img, [out[2], out[1], out[0]])
    return Placed(frame, out, box)


def batch_of(ready: list[Placed]) -> dict[str, Any]:
    """img (b, 3, H, W) uint8; index 0..b-1, letterbox, ori_shape and frames as lists."""
    return {
        "img": torch.from_numpy(np.stack([one.img for one in ready])),
        "index": list(range(len(ready))),
        "letterbox": [one.letterbox for one in ready],
        "ori_shape": [one.frame.hw for one in ready],
        "frames": [one.frame for one in ready],
    }
