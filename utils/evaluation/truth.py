"""The boxes that detections are scored against."""

from typing import Any

import numpy as np

from utils.boxes import xywhn_to_xyxy


def truth_of(index: Any, row: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """True boxes of one picture: (n, 4) xyxy pixels, classes (n,), crowd (n,), area (n,) pixels^2."""
    rows = slice(int(index.offsets[row]), int(index.offsets[row + 1]))
    h, w = (int(v) for v in index.shapes[row])
    xyxy = xywhn_to_xyxy(index.boxes[rows].astype(np.float64), w, h)  # (n, 4)
    return xyxy.round(3), index.classes[rows], index.crowd[rows], index.area[rows]  # 3 digits: float32 holds no more
