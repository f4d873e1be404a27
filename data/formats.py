"""Label formats -> rows: YOLO txt and COCO instances json. What is left out is named with file, line and value."""

import json
import math
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from utils.boxes import clip_xyxy, xywhn_to_xyxy, xyxy_to_xywhn
from utils.errors import UserError

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


@dataclass
class CocoFile:
    """A COCO instances json by picture."""

    file_names: list[str]
    image_ids: list[int]
    sizes: list[tuple[int, int] | None]  # height, width as the json says
    annotations: list[list[dict[str, Any]]]  # of each picture
    category_ids: list[int]  # of each class
    class_of: dict[int, int]  # category id -> class
    problems: list[Problem]


def read_coco(path: Path, names: list[str]) -> CocoFile:
    """Read a COCO instances json; its categories are matched to `names` by name."""
    try:
        content = json.loads(path.read_bytes())
        images, categories = content["images"], content["categories"]
        by_image: dict[int, list[dict[str, Any]]] = defaultdict(list)
        for annotation in content["annotations"]:
            by_image[annotation["image_id"]].append(annotation)
        problems: list[Problem] = []
        category_ids, class_of = _match_categories(categories, names, path, problems)
        sizes = [(int(i["height"]), int(i["width"])) if i.get("height") and i.get("width") else None for i in images]
        ids = [int(i["id"]) for i in images]
        for dangling in sorted(set(by_image) - set(ids), key=str)[:20]:
            problems.append(
                Problem(str(path), None, f"annotations of image_id {dangling}, which 'images' lacks; left out.")
            )
        file_names = [str(i["file_name"]).replace("\\", "/") for i in images]
        return CocoFile(file_names, ids, sizes, [by_image[i] for i in ids], category_ids, class_of, problems)
    except (KeyError, TypeError, ValueError) as e:  # ValueError: also a json that ends too early, or is not text
        raise UserError(
            f"{path} is not a COCO instances json ({type(e).__name__}: {e}). It needs 'images' (id, file_name), "
            f"'annotations' (image_id, category_id, bbox) and 'categories' (id, name)."
        ) from None


def _match_categories(
    categories: list[dict[str, Any]], names: list[str], path: Path, problems: list[Problem]
) -> tuple[list[int], dict[int, int]]:
    """Category id of each class (a free one where the json lacks the class), and class of each category id."""
    id_of = {str(c["name"]): int(c["id"]) for c in categories}
    if not set(id_of) & set(names):
        raise UserError(
            f"No category of {path} is named in the dataset yaml: the json has {sorted(id_of)[:10]}, the yaml has "
            f"{names[:10]}. Write the json's names under 'names'."
        )
    for name in sorted(set(id_of) - set(names)):
        problems.append(
            Problem(str(path), None, f"category '{name}' is not under 'names' in the yaml; its boxes are left out.")
        )
    unused = max(id_of.values()) + 1
    category_ids = []
    for name in names:
        category_ids.append(id_of.get(name, unused))
        unused += name not in id_of
    return category_ids, {id_of[name]: k for k, name in enumerate(names) if name in id_of}


def coco_rows(coco: CocoFile, i: int, hw: tuple[int, int], path: str) -> Rows:
    """Boxes of picture i of the json; hw: its size as found on disk, the json's own size going first."""
    height, width = coco.sizes[i] or hw
    problems, classes, boxes, area, crowd = [], [], [], [], []
    if (height, width) != tuple(hw):
        text = f"the json says {width}x{height}, {coco.file_names[i]} has {hw[1]}x{hw[0]} pixels; boxes are scaled."
        problems.append(Problem(path, None, text))
    for a in coco.annotations[i]:
        if a.get("category_id") not in coco.class_of:
            continue  # said once for the category
        try:
            x, y, w, h = (float(v) for v in a["bbox"])
        except (KeyError, TypeError, ValueError):
            x = y = w = h = math.nan
        if not (math.isfinite(x + y) and 0 < w < math.inf and 0 < h < math.inf) or x >= width or y >= height:
            text = (
                f"annotation {a.get('id')}: bbox {a.get('bbox')} is no box in a picture of {width}x{height}; left out."
            )
            problems.append(Problem(path, None, text))
            continue
        classes.append(coco.class_of[a["category_id"]])
        boxes.append([(x + w / 2) / width, (y + h / 2) / height, w / width, h / height])
        area.append(float(a["area"]) if a.get("area") is not None else w * h)
        crowd.append(bool(a.get("iscrowd", 0)))
    return Rows(
        np.array(classes, np.int32),
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(area, np.float32),
        np.array(crowd, bool),
        problems,
    )
