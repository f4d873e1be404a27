"""Annotations of one picture of a COCO json -> rows."""

import math
from typing import Any

import numpy as np

from data.formats.coco import CocoFile, whole
from data.formats.rows import Problem, RowError, Rows, clip_box, outside


def coco_rows(coco: CocoFile, i: int, hw: tuple[int, int], path: str) -> Rows:
    """Boxes of picture i of the json; hw: its size as found on disk, the json's own size going first."""
    height, width = size = coco.sizes[i] or hw
    problems, classes, boxes, area, crowd = [], [], [], [], []
    if size != tuple(hw):
        how = "boxes are scaled"
        if size == tuple(hw)[::-1]:  # EXIF: tools draw on the upright picture and note the size of the other
            (height, width), how = hw, "boxes are taken as drawn on the upright picture. Look at them"
        text = f"the json says {size[1]}x{size[0]}, {coco.file_names[i]} has {hw[1]}x{hw[0]} pixels; {how}."
        problems.append(Problem(path, None, text, "remark"))
    for a in coco.annotations[i]:
        cls = coco.class_of.get(whole(a["category_id"]))
        if cls is None:
            continue  # said once for the category
        try:
            box, pixels, note = _box(a, height, width)
        except RowError as e:
            text = f"annotation {str(a.get('id'))[:40]} of {coco.file_names[i]}: {e}"
            problems.append(Problem(path, None, text, e.kind))
            continue
        if note:
            text = f"annotation {str(a.get('id'))[:40]} of {coco.file_names[i]}: {note}"
            problems.append(Problem(path, None, text, outside(np.array(a["bbox"], float), "remark")))
        classes.append(cls)
        boxes.append(box)
        area.append(_area(a, pixels))
        crowd.append(a.get("iscrowd") in (1, "1"))
    return Rows(
        np.array(classes, np.int32),
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(area, np.float32),
        np.array(crowd, bool),
        problems,
    )


def _box(a: dict[str, Any], height: int, width: int) -> tuple[np.ndarray, float, str | None]:
    """Box xywhn (4,), its w * h in pixels, a remark; it may reach out a little, as in COCO's own truth."""
    try:
        x, y, w, h = (float(v) for v in a["bbox"])
    except (KeyError, TypeError, ValueError, OverflowError):
        x = y = w = h = math.nan
    shown = str(a.get("bbox"))[:80]
    if not (abs(x) + abs(y) + abs(w) + abs(h) < 1e9 and w > 0 and h > 0):
        raise RowError(f"bbox {shown} is no box in a picture of {width}x{height}; left out.")
    box = np.array([(x + w / 2) / width, (y + h / 2) / height, w / width, h / height])
    try:
        clipped, note = clip_box(box)
    except RowError:
        text = f"bbox {shown} is no box in a picture of {width}x{height}; left out."
        raise RowError(text, outside(np.array([x, y, w, h]))) from None
    if note:
        return clipped, w * h, f"bbox {shown} reaches out of the picture of {width}x{height}; it is clipped."
    return box, w * h, None


def _area(a: dict[str, Any], pixels: float) -> float:
    """The annotation's own area (of its mask), or that of its box."""
    try:
        area = float(a["area"])
    except (KeyError, TypeError, ValueError, OverflowError):
        return pixels
    return area if 0 <= area < 1e12 else pixels
