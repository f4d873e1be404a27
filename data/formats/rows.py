"""Rows of labels: what is known of the boxes of one picture, what is wrong with them, and when a box is usable."""

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np

from utils.boxes import clip_xyxy, xywhn_to_xyxy, xyxy_to_xywhn

TOLERANCE = 0.01  # how far outside 0..1 a coordinate may lie: rounding by the tool that wrote it
SMALLEST = 1e-6  # of a side: far below one pixel of any picture
EXACT = 1e-6  # a box that reaches out by less is left as it is written


Kind = Literal[
    "picture",  # a picture that cannot be used is left out; `path` is the picture
    "label",  # a label file that cannot be used: its picture is left out; `path` is the label file
    "row",  # a row, annotation or object is left out
    "past_last",  # the same, for its class is one past the last: ids may count from 1
    "corners",  # a row that reaches outside as a box and would fit as two corners: left out, or clipped
    "repeated",  # the same thing twice: it is used once
    "remark",  # something is read in spite of a fault
    "file",  # of a list, json or name table as a whole
    "cause",  # one cause behind many of the others
]


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with the dataset: where, what to do, and of which kind; `line` counts from 1."""

    path: str
    line: int | None
    message: str
    kind: Kind

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
    usable: bool = True  # False: nothing is known of the picture's objects, so it is no background picture either


class Read(NamedTuple):
    """What was read of a picture."""

    shape: tuple[int, int] | None  # height, width; None: it cannot be used
    rows: Rows
    top: float = 0.0  # its largest value, where it has more than 8 bits a channel


def no_rows(problems: list[Problem], usable: bool = True) -> Rows:
    """A picture without boxes."""
    return Rows(np.zeros(0, np.int32), np.zeros((0, 4), np.float32), problems=problems, usable=usable)


class RowError(ValueError):
    """A label row that cannot be used, and why."""

    def __init__(self, message: str, kind: Kind = "row") -> None:
        super().__init__(message)
        self.kind = kind


def check_box(box: np.ndarray) -> tuple[np.ndarray, str | None]:
    """Box (4,) xywhn of a label -> the box, clipped where it reaches out of the picture, and a remark when far."""
    x, y, w, h = box
    if not (w >= SMALLEST and h >= SMALLEST):
        raise RowError(f"a box without width or height (x y w h = {shown(box)}). Correct or delete it.")
    if box.max() > 1 + TOLERANCE or min(x, y) < -TOLERANCE:
        advice = "Correct or delete the row."
        if box.max() > 2:
            advice = "They look like pixels: divide x, w by the picture's width and y, h by its height."
        raise RowError(f"coordinates outside 0..1 (x y w h = {shown(box)}). {advice}", outside(box))
    try:
        return clip_box(box)
    except RowError as e:
        raise RowError(str(e), outside(box)) from None


def outside(box: np.ndarray, kind: Kind = "row") -> Kind:
    """`corners` where the four numbers of a box that reaches outside could be its two corners, else `kind`."""
    return "corners" if box.min() >= 0 and box[2] > box[0] and box[3] > box[1] else kind


def clip_box(box: np.ndarray) -> tuple[np.ndarray, str | None]:
    """Box (4,) xywhn -> clipped to the picture, and a remark when it reached out by more than rounding explains."""
    xyxy = xywhn_to_xyxy(box, 1, 1)
    over = max(-xyxy.min(), xyxy.max() - 1)
    if over <= EXACT:
        return box, None
    clipped = xyxy_to_xywhn(clip_xyxy(xyxy, 1, 1), 1, 1)
    if min(clipped[2:]) < SMALLEST:
        raise RowError(f"the box lies outside the picture (x y w h = {shown(box)}). Correct or delete it.")
    if over <= TOLERANCE:
        return clipped, None
    return clipped, f"the box reaches {over:.1%} outside the picture (x y w h = {shown(box)}); it is clipped."


def shown(box: np.ndarray) -> str:
    """The four numbers of a box for a message."""
    return " ".join(f"{v:g}" for v in box)
