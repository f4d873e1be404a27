"""What was read of pictures, as columns: the boxes and the problems of each, one picture after the other."""

import json
from dataclasses import dataclass

import numpy as np

from data.formats.rows import Problem, Read
from data.index.columns import Texts, spread


class Problems(Texts):
    """What is wrong with a dataset, each decoded when it is looked at: there may be millions."""

    @classmethod
    def of(cls, problems: list[Problem]) -> "Problems":
        """From any problems."""
        return cls.pack([json.dumps([p.path, p.line, p.message, p.kind]).encode() for p in problems])

    def decode(self, text: bytes) -> Problem:
        """As it was found."""
        return Problem(*json.loads(text))


@dataclass(frozen=True, eq=False)
class Table:
    """Pictures 0..n-1; boxes and problems of picture i are those from offsets[i] to offsets[i + 1]."""

    shapes: np.ndarray  # (n, 2) int32 height, width; 0, 0: the picture cannot be used
    offsets: np.ndarray  # (n + 1,) int64 into the columns of boxes
    boxes: np.ndarray  # (m, 4) float32 xywhn
    classes: np.ndarray  # (m,) int32
    area: np.ndarray  # (m,) float32 pixels^2
    crowd: np.ndarray  # (m,) bool
    tops: np.ndarray  # (n,) float32 largest value of a picture with more than 8 bits a channel; 0: it has 8
    problem_offsets: np.ndarray  # (n + 1,) int64 into problems
    problems: Problems

    @property
    def usable(self) -> np.ndarray:
        """Which pictures can be used (n,)."""
        return self.shapes[:, 0] > 0

    def take(self, pictures: np.ndarray) -> "Table":
        """Some pictures (k,), in their order."""
        rows, offsets = _runs(self.offsets, pictures)
        boxes = {name: getattr(self, name)[rows] for name in ("boxes", "classes", "area", "crowd")}
        rows, problem_offsets = _runs(self.problem_offsets, pictures)
        problems = self.problems.take(rows)
        rest = {"tops": self.tops[pictures], "problem_offsets": problem_offsets, "problems": problems}
        return Table(self.shapes[pictures], offsets, **boxes, **rest)


def pack(read: list[Read]) -> Table:
    """The columns of pictures just read; what cannot be used has no boxes."""
    rows = [one.rows for one in read]
    shapes = np.array([one.shape or (0, 0) for one in read], np.int32).reshape(-1, 2)
    counts = np.array([len(r.classes) for r in rows], np.int64)
    boxes = np.concatenate([np.zeros((0, 4)), *[r.boxes for r in rows]])  # (m, 4) float64
    hw = np.repeat(shapes, counts, axis=0)  # (m, 2) size of each box's picture
    area = boxes[:, 2] * hw[:, 1] * boxes[:, 3] * hw[:, 0]
    given = np.repeat(np.array([r.area is not None for r in rows], bool), counts)
    area[given] = np.concatenate([np.zeros(0), *[r.area for r in rows if r.area is not None]])
    crowd = [np.zeros(len(r.classes), bool) if r.crowd is None else r.crowd for r in rows]
    return Table(
        shapes=shapes,
        offsets=_ends(counts),
        boxes=boxes.astype(np.float32),
        classes=np.concatenate([np.zeros(0), *[r.classes for r in rows]]).astype(np.int32),
        area=area.astype(np.float32),
        crowd=np.concatenate([np.zeros(0), *crowd]).astype(bool),
        tops=np.array([one.top for one in read], np.float32),
        problem_offsets=_ends(np.array([len(r.problems) for r in rows], np.int64)),
        problems=Problems.of([p for r in rows for p in r.problems]),
    )


def join(tables: list[Table]) -> Table:
    """The pictures of several tables, one table after the other."""
    tables = [pack([]), *tables]  # at least one
    names = ("shapes", "boxes", "classes", "area", "crowd", "tops")
    columns = {name: np.concatenate([getattr(t, name) for t in tables]) for name in names}
    for name in ("offsets", "problem_offsets"):
        columns[name] = _ends(np.concatenate([np.diff(getattr(t, name)) for t in tables]))
    ends = [(int(t.problem_offsets[0]), int(t.problem_offsets[-1])) for t in tables]
    problems = [Texts(t.problems.flat, t.problems.offsets[a : b + 1]) for t, (a, b) in zip(tables, ends, strict=True)]
    return Table(**columns, problems=Problems.join(problems))


def _runs(offsets: np.ndarray, pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of some pictures (k,), and their new offsets (k + 1,)."""
    starts, counts = offsets[pictures], offsets[np.asarray(pictures) + 1] - offsets[pictures]
    return spread(starts, counts), _ends(counts)


def _ends(counts: np.ndarray) -> np.ndarray:
    """Counts (k,) -> offsets (k + 1,)."""
    return np.concatenate([[0], counts.cumsum()]).astype(np.int64)
