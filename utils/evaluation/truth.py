"""The boxes that detections are scored against."""

from typing import Any

import numpy as np

from utils.boxes import xywhn_to_xyxy

LIMIT = 100  # detections of a class that COCO counts in one picture


def truth_of(index: Any, row: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """True boxes of one picture: (n, 4) xyxy pixels, classes (n,), crowd (n,), area (n,) pixels^2."""
    rows = slice(int(index.offsets[row]), int(index.offsets[row + 1]))
    h, w = (int(v) for v in index.shapes[row])
    xyxy = xywhn_to_xyxy(index.boxes[rows].astype(np.float64), w, h)  # (n, 4)
    return xyxy.round(3), index.classes[rows], index.crowd[rows], index.area[rows]  # 3 digits: float32 holds no more


def most_boxes(index: Any) -> int:
    """The largest number of boxes of one class in one picture; crowds do not count."""
    single = ~np.asarray(index.crowd)
    picture = np.repeat(np.arange(len(index.image_ids)), np.diff(index.offsets))[single]  # of each box
    pairs = picture * len(index.names) + np.asarray(index.classes)[single]
    return int(np.unique(pairs, return_counts=True)[1].max(initial=0))
