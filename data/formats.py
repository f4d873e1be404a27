"""Rows of labels, and how YOLO txt becomes rows. What is left out is named with file, line and value."""

import math
from dataclasses import dataclass, field

import numpy as np

from utils.boxes import clip_xyxy, xywhn_to_xyxy, xyxy_to_xywhn

TOLERANCE = 0.01  # how far outside 0..1 a coordinate may lie: rounding by the tool that wrote it


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with the dataset: where, and what to do; `line` counts from 1."""

    path: str
    line: int | None
    message: str

    def __str__(self) -> str:
        return f"{self.path}{f', line {self.line}' if self.line else ''}: {self.message}"


@dataclass
class Rows:
    """Boxes of one picture."""

    classes: np.ndarray  # (k,) int32
    boxes: np.ndarray  # (k, 4) float32 xywhn
    area: np.ndarray | None = None  # (k,) float32 pixels^2; None: w * h
    crowd: np.ndarray | None = None  # (k,) bool; None: no crowds
    problems: list[Problem] = field(default_factory=list)


class RowError(ValueError):
    """A label row that cannot be used, and why."""


def parse_yolo(text: str, path: str, nc: int | None) -> Rows:
    """Text of a YOLO label file -> its usable rows; nc None: every class is accepted (and counts as class 0)."""
    problems: list[Problem] = []
    seen: dict[tuple[float, ...], int] = {}  # row -> its line
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row, note = parse_yolo_row(line, nc)
        except RowError as e:
            problems.append(Problem(path, number, f"{e} The row is left out."))
            continue
        if note:
            problems.append(Problem(path, number, note))
        if row in seen:
            problems.append(Problem(path, number, f"the same row as line {seen[row]}. Delete one; it is used once."))
        else:
            seen[row] = number
    table = np.array(list(seen), np.float64).reshape(-1, 5)
    return Rows(table[:, 0].astype(np.int32), table[:, 1:].astype(np.float32), problems=problems)


def parse_yolo_row(line: str, nc: int | None) -> tuple[tuple[float, ...], str | None]:
    """One row 'class x y w h' or 'class x1 y1 x2 y2 x3 y3 ...' -> (class, x, y, w, h) and a remark about it."""
    words = line.split()
    if len(words) < 5:
        raise RowError(f"{len(words)} columns where 'class x y w h' needs 5: {_short(line)}. Complete the row.")
    if len(words) > 5 and len(words) % 2 == 0:
        raise RowError(
            f"{len(words)} columns: neither 'class x y w h' (5) nor a polygon 'class x1 y1 x2 y2 ...' (odd): "
            f"{_short(line)}. If the last column is a confidence, delete it."
        )
    try:
        values = [float(word) for word in words]
    except ValueError:
        word = next(w for w in words if not _is_number(w))
        raise RowError(f"'{_short(word)}' is not a number. Rows are 'class x y w h', decimal points, spaces.") from None
    if not all(map(math.isfinite, values)):
        raise RowError(f"NaN or infinity: {_short(line)}. Correct or delete the row.")
    cls = _check_class(values[0], nc)
    points = np.array(values[1:])
    if len(words) > 5:
        points = _polygon_to_xywh(points)
    return _check_box(cls, points)


def _check_class(value: float, nc: int | None) -> int:
    if value != int(value):
        raise RowError(f"class {value:g} is not a whole number. The first column is the class id, from 0.")
    if value < 0 or (nc is not None and value >= nc):
        known = f"'names' has {nc} classes (0-{nc - 1})" if nc is not None else "ids start at 0"
        raise RowError(f"class {int(value)} is out of range: {known}. Correct the label, or add the class to 'names'.")
    return 0 if nc is None else int(value)


def _polygon_to_xywh(points: np.ndarray) -> np.ndarray:
    """x1 y1 x2 y2 ... (2k,) -> the box around them, centre and size (4,)."""
    xy = points.reshape(-1, 2)
    lo, hi = xy.min(0), xy.max(0)
    return np.concatenate([(lo + hi) / 2, hi - lo])


def _check_box(cls: int, box: np.ndarray) -> tuple[tuple[float, ...], str | None]:
    """Box (4,) xywhn -> the row, clipped to the picture when it reaches out, and a remark when that is much."""
    x, y, w, h = box
    shown = " ".join(f"{v:g}" for v in box)
    if w <= 0 or h <= 0:
        raise RowError(f"a box without width or height (x y w h = {shown}). Correct or delete it.")
    if box.max() > 1 + TOLERANCE or min(x, y) < -TOLERANCE:
        advice = "Correct or delete the row."
        if box.max() > 2:
            advice = "They look like pixels: divide x, w by the picture's width and y, h by its height."
        raise RowError(f"coordinates outside 0..1 (x y w h = {shown}). {advice}")
    xyxy = xywhn_to_xyxy(box, 1, 1)
    over = max(-xyxy.min(), xyxy.max() - 1)
    if over <= 1e-6:  # left as it is written
        return (cls, x, y, w, h), None
    clipped = xyxy_to_xywhn(clip_xyxy(xyxy, 1, 1), 1, 1)
    if min(clipped[2:]) <= 0:
        raise RowError(f"the box lies outside the picture (x y w h = {shown}). Correct or delete it.")
    note = (
        f"the box reaches {over:.1%} outside the picture (x y w h = {shown}); it is clipped."
        if over > TOLERANCE
        else None
    )
    return (cls, *clipped), note


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _short(text: str) -> str:
    text = text.strip()
    return text if len(text) <= 60 else text[:57] + "..."
