"""Detections on a picture."""

from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image

from utils.drawing.sheet import draw_boxes


def drawn(
    picture: np.ndarray,
    found: np.ndarray,
    names: Sequence[str] | None,
    line_width: int | None = None,
    with_scores: bool = True,
) -> np.ndarray:
    """BGR picture (h, w, 3) uint8 with detections (n, 6) xyxy pixels, score, class -> another one with their boxes.

    names: of the classes; None: none is written. line_width: in pixels; None: by the size of the picture. The letters
    grow with it.
    """
    if not len(found):
        return picture
    width = line_width or max(round(sum(picture.shape[:2]) * 0.0015), 2)
    canvas = Image.fromarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))
    scores = found[:, 4] if with_scores else None
    draw_boxes(canvas, found[:, :4], found[:, 5], names, scores, width, max(12, 5 * width))
    return cv2.cvtColor(np.asarray(canvas), cv2.COLOR_RGB2BGR)


def crops(picture: np.ndarray, found: np.ndarray) -> list[np.ndarray]:
    """The part of the picture inside each detection, at least a pixel each way."""
    h, w = picture.shape[:2]
    parts = []
    for x1, y1, x2, y2 in found[:, :4]:
        left, top = min(int(x1), w - 1), min(int(y1), h - 1)
        parts.append(picture[top : max(round(y2), top + 1), left : max(round(x2), left + 1)])
    return parts
