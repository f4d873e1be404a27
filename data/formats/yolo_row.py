"""One row of a YOLO label file -> class and box, as far as it can be understood."""

import math
import re
from collections.abc import Sequence

import numpy as np

from data.formats.rows import Kind, RowError, check_box, outside

Row = tuple[float, ...]  # class, x, y, w, h
DECIMAL = re.compile(r"[+-]?\d*[.,]?\d*(e[+-]?\d+)?", re.IGNORECASE)
SEPARATORS = re.compile(r"[,;]")


def parse_row(line: str, nc: int | None, names: Sequence[str] = ()) -> tuple[Row, list[tuple[str, Kind]]]:
    """'class x y w h' or a polygon 'class x1 y1 x2 y2 x3 y3 ...' -> (class, x, y, w, h) and remarks about the row.

    nc None: every class is accepted, and counts as class 0.
    """
    remarks: list[str] = []
    words = _split(line, remarks)
    words = _with_class_id(words, names, remarks)
    if len(words) < 5:
        raise RowError(f"{len(words)} columns where 'class x y w h' needs 5: {_short(line)}. Complete the row.")
    try:
        values = [float(word) for word in words]
    except ValueError:
        word = next(w for w in words if not _is_number(w))
        raise RowError(f"'{_short(word)}' is not a number. Rows are 'class x y w h', decimal points, spaces.") from None
    if not all(map(math.isfinite, values)):
        raise RowError(f"NaN or infinity: {_short(line)}. Correct or delete the row.")
    if len(values) == 6 and 0 <= values[5] <= 1:
        values.pop()
        remarks.append("6 columns: the last, from 0 to 1, is taken for a confidence and ignored. Delete it.")
    if len(values) > 5 and len(values) % 2 == 0:
        raise RowError(
            f"{len(words)} columns: neither 'class x y w h' (5) nor a polygon 'class x1 y1 x2 y2 ...' (odd): "
            f"{_short(line)}. Delete the columns that are no coordinates."
        )
    cls = _check_class(values[0], nc)
    points = np.array(values[1:])
    given = points if len(points) == 4 else _polygon_to_xywh(points)
    box, note = check_box(given)
    said: list[tuple[str, Kind]] = [(remark, "remark") for remark in remarks]
    if note:
        said.append((note, outside(given, "remark") if len(points) == 4 else "remark"))
    return (cls, *box.tolist()), said


def _split(line: str, remarks: list[str]) -> list[str]:
    """Columns of a row; commas are decimal commas where the row has its columns without them, else separators."""
    words = line.split()
    if "," not in line and ";" not in line:
        return words
    by_semicolon = line.replace(";", " ").split()
    for columns in (words, by_semicolon):
        if len(columns) >= 5 and len(columns) % 2 and all(map(DECIMAL.fullmatch, columns[1:])):
            what = "decimal commas are read as points" if "," in line else "semicolons are read as spaces"
            remarks.append(f"{what}. Write 'class x y w h' with points and spaces.")
            return [word.replace(",", ".") for word in columns]
    remarks.append("commas between the columns are read as spaces. Write 'class x y w h' with spaces.")
    return SEPARATORS.sub(" ", line).split() or words


def _with_class_id(words: list[str], names: Sequence[str], remarks: list[str]) -> list[str]:
    """Columns whose class is a number: a name of the yaml, also one of several words, stands for its id."""
    k = next((k for k, word in enumerate(words) if _is_number(word)), len(words))
    name = " ".join(words[:k])
    if name not in names:
        return words
    remarks.append(f"'{name}' is a name in place of a number: read as class {names.index(name)}. Write the number.")
    return [str(names.index(name)), *words[k:]]


def _check_class(value: float, nc: int | None) -> int:
    if value != int(value):
        raise RowError(f"class {value:g} is not a whole number. The first column is the class id, from 0.")
    if value < 0 or (nc is not None and value >= nc):
        known = f"'names' has {nc} classes (0-{nc - 1})" if nc is not None else "ids start at 0"
        message = f"class {value:.17g} is out of range: {known}. Correct the label, or add the class to 'names'."
        raise RowError(message, "past_last" if value == nc else "row")
    return 0 if nc is None else int(value)


def _polygon_to_xywh(points: np.ndarray) -> np.ndarray:
    """x1 y1 x2 y2 ... (2k,) -> the box around them, centre and size (4,)."""
    xy = points.reshape(-1, 2)
    lo, hi = xy.min(0), xy.max(0)
    return np.concatenate([(lo + hi) / 2, hi - lo])


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _short(text: str) -> str:
    text = text.strip()
    return text if len(text) <= 60 else text[:57] + "..."
