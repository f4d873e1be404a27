"""Rows of labels, and how a YOLO label file becomes rows. What is left out is named with file, line and value."""

import math
from collections.abc import Sequence

import numpy as np

from data.formats.rows import EXACT, SMALLEST, Kind, Problem, RowError, Rows, no_rows
from data.formats.text import NotText, decode_text, read_bytes
from data.formats.yolo_row import parse_row


def read_label(path: str, nc: int | None, names: Sequence[str] = ()) -> Rows:
    """A YOLO label file -> its usable rows; no file: a background picture; no text: nothing is known of the picture."""
    try:
        text, encoding = decode_text(read_bytes(path))
    except FileNotFoundError:
        return no_rows([])
    except (OSError, NotText) as e:
        message = f"cannot be read ({e}); its picture is left out. Write rows 'class x y w h' as UTF-8 text."
        return no_rows([Problem(path, None, message, "label")], usable=False)
    rows = parse_yolo(text, path, nc, names)
    if encoding:
        remark = f"this is {encoding}; it is read as such. Save it as UTF-8."
        rows.problems.insert(0, Problem(path, None, remark, "remark"))
    return rows


def parse_yolo(text: str, path: str, nc: int | None, names: Sequence[str] = ()) -> Rows:
    """Text of a YOLO label file -> its usable rows; nc None: every class is accepted (and counts as class 0)."""
    table = _parse_clean(text, nc)
    problems: list[Problem] = []
    if table is None:
        if keypoints := _keypoints(text):
            remark = f"rows look like 'class x y w h' and {keypoints} keypoints: the first five columns are used."
            problems.append(Problem(path, 1, remark, "remark"))
            text = "\n".join(" ".join(line.split()[:5]) for line in text.splitlines())
        table = _parse_line_by_line(text, path, nc, names, problems)
    return Rows(table[:, 0].astype(np.int32), table[:, 1:].astype(np.float32), problems=problems)


def _parse_clean(text: str, nc: int | None) -> np.ndarray | None:
    """Table (k, 5) of a file of plain rows in which nothing has to be said or clipped; None for any other.

    A million files go through here: for the usual handful of rows this is ten times faster than the careful way, and
    faster than numpy, whose calls cost more than they save.
    """
    top = math.inf if nc is None else nc
    rows = []
    try:
        for line in text.splitlines():
            words = line.split()
            if not words:
                continue
            c, x, y, w, h = map(float, words)  # ValueError: not five, or no number
            inside = x - w / 2 >= -EXACT and y - h / 2 >= -EXACT and x + w / 2 - 1 <= EXACT and y + h / 2 - 1 <= EXACT
            if not (inside and w >= SMALLEST and h >= SMALLEST and 0 <= c < top and c % 1 == 0):  # nor NaN
                return None
            rows.append((0.0 if nc is None else c, x, y, w, h))
    except ValueError:
        return None
    return np.array(rows, np.float64).reshape(-1, 5) if len(set(rows)) == len(rows) else None


def _keypoints(text: str) -> int:
    """How many keypoints of two columns follow the box in every row of a file; 0 where rows are anything else.

    Such a row has the columns of a polygon. It is none where all rows have as many columns, at least 11, all keypoints
    that are set (not 0 0) lie in the row's box, and width and height, read as a point, lie far from the keypoints.
    """
    try:
        rows = np.array([line.split() for line in text.splitlines() if line.strip()], np.float64)  # (k, 5 + 2n)
    except ValueError:  # rows of several lengths, or no numbers
        return 0
    if rows.ndim != 2 or rows.shape[1] < 11 or rows.shape[1] % 2 == 0 or not np.isfinite(rows).all():
        return 0
    centre, size, points = rows[:, None, 1:3], rows[:, None, 3:5], rows[:, 5:].reshape(len(rows), -1, 2)
    unset = (points == 0).all(2, keepdims=True)  # (k, n, 1)
    inside = (np.abs(points - centre) <= size / 2 + 0.01) | unset
    low, high = np.where(unset, np.inf, points).min(1), np.where(unset, -np.inf, points).max(1)  # (k, 2)
    far = (np.abs(size[:, 0] - (low + high) / 2) > high - low + 1e-9).any(1)  # by more than half of their extent
    return points.shape[1] if inside.all() and far.mean() > 0.5 else 0


def _parse_line_by_line(
    text: str, path: str, nc: int | None, names: Sequence[str], problems: list[Problem]
) -> np.ndarray:
    """Table (k, 5) of the usable rows; every row that is not, and every remark, is a problem."""
    seen: dict[tuple[float, ...], int] = {}  # row -> its line
    said: dict[tuple[str, Kind], list[int]] = {}  # a remark that holds for many rows of a file is made once
    for number, line in enumerate(text.strip("\x1a").splitlines(), 1):
        if not line.strip():
            continue
        try:
            row, remarks = parse_row(line, nc, names)
        except RowError as e:
            problems.append(Problem(path, number, f"{e} The row is left out.", e.kind))
            continue
        for remark in remarks:
            said.setdefault(remark, []).append(number)
        if row in seen:
            again = f"the same row as line {seen[row]}. Delete one; it is used once."
            problems.append(Problem(path, number, again, "repeated"))
        else:
            seen[row] = number
    for (remark, kind), numbers in said.items():
        more = f" (So in {len(numbers)} rows of this file.)" if len(numbers) > 1 else ""
        problems.append(Problem(path, numbers[0], remark + more, kind))
    problems.sort(key=lambda problem: problem.line)
    return np.array(list(seen), np.float64).reshape(-1, 5)
