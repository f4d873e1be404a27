"""An evaluation as text and files: the table on the console, metrics.json, predictions.json, label files, pictures."""

import hashlib
import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from utils.boxes import xyxy_to_xywhn
from utils.drawing.sheet import picture_sheet, save_sheet
from utils.evaluation.evaluate import Evaluation
from utils.evaluation.metrics import CONFUSION_CONF
from utils.evaluation.truth import LIMIT, truth_of

COLUMNS = ("precision", "recall", "mAP50", "mAP75", "mAP50-95")
SHOWN = 8  # pictures on the sheet


def table_lines(result: Evaluation, pictures: int) -> list[str]:
    """The scores of all classes, then of each class that has boxes, then by size of box; fractions, not percent."""
    rows = [row for row in result.per_class if row["boxes"]]
    whole = {key: result.metrics[f"val/{key}"] for key in COLUMNS}
    whole |= {"name": "all", "pictures": pictures, "boxes": sum(row["boxes"] for row in rows)}
    width = max(len(row["name"]) for row in [*rows, whole, {"name": "class"}])
    head = f"{'class':<{width}}  pictures   boxes" + "".join(f"{name:>11}" for name in COLUMNS)
    lines = [head, _table_row(whole, width)]
    if len(rows) > 1 or len(result.per_class) > 1:
        lines += [_table_row(row, width) for row in rows]
    absent = len(result.per_class) - len(rows)
    lines += [f"({absent} of {len(result.per_class)} classes have no box here and count in no mean)"] if absent else []
    m = result.metrics
    sizes = "  ".join(f"{name} {_number(m[f'val/mAP_{name}'])}" for name in ("small", "medium", "large"))
    lines.append(f"mAP50-95 by size of box (32^2 and 96^2 pixels): {sizes}")
    lines.append(f"average recall: AR1 {_number(m['val/AR1'])}  AR100 {_number(m['val/AR100'])}")
    if result.counted > LIMIT:
        lines.append("a picture has more than 100 boxes of a class: all detections up to max_det count, not COCO's 100")
    threshold = result.f1.confidence[result.f1.best]
    lines.append(f"precision and recall are those at score {threshold:.3f}, where the mean F1 at IoU 0.5 is best")
    return lines


def _table_row(row: dict[str, Any], width: int) -> str:
    scores = "".join(f"{_number(row[name]):>11}" for name in COLUMNS)
    return f"{row['name']:<{width}}  {row['pictures']:>8}  {row['boxes']:>6}{scores}"


def _number(value: float) -> str:
    """Four digits, or a dash where there was nothing to find."""
    return "-" if math.isnan(value) else f"{value:.4f}"


def speed_line(result: Evaluation) -> str:
    """Milliseconds per picture, part by part."""
    parts = "  ".join(f"{'NMS' if name == 'nms' else name} {ms:.1f} ms" for name, ms in result.speed.items())
    return f"per picture: {parts}"


def write_json(path: Path, content: Any) -> None:
    """Write JSON; a number that is not finite becomes null, which every reader understands."""
    path.write_text(json.dumps(_plain(content), allow_nan=False), encoding="utf-8")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(v) for key, v in value.items()}
    if isinstance(value, list):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def numbered(predictions: list[dict[str, Any]], index: Any) -> tuple[list[dict[str, Any]], str]:
    """COCO results of pictures that no json numbers, with ids that others know them by, and a sentence on the ids.

    A picture that is named by a number has that number, as in COCO; where not all are, the id is made from the path
    below the pictures' common folder, so that it stays when pictures come or go. `file_name` is in every row.
    """
    root = os.path.commonpath([os.path.dirname(path) for path in index.paths])
    names = [Path(os.path.relpath(path, root)).as_posix() for path in index.paths]
    ids, how = ids_of(names)
    place = {int(old): (new, name) for old, new, name in zip(index.image_ids, ids, names, strict=True)}
    rows = []
    for row in predictions:
        new, name = place[row["image_id"]]
        rows.append(row | {"image_id": new, "file_name": name})
    return rows, f"image ids of predictions.json are {how}; file_name is in every row"


def ids_of(names: list[str]) -> tuple[list[int], str]:
    """Ids of pictures by their names, and where they come from, in words."""
    stems = [Path(name).stem for name in names]
    by_number = all(stem.isascii() and stem.isdecimal() for stem in stems) and len(set(map(int, stems))) == len(stems)
    if by_number:
        return [int(stem) for stem in stems], "the numbers that the pictures are named by"
    return [id_of(name) for name in names], "made from the file names"


def id_of(name: str) -> int:
    """53 bits of a name's sha256: a whole number that every JSON reader keeps exactly."""
    return int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()[:8], "big") >> 11


def write_labels(folder: Path, index: Any, detections: dict[int, np.ndarray]) -> None:
    """One text file per picture, a row per detection: class x y w h score; x y w h in 0..1, best score first."""
    folder.mkdir(parents=True, exist_ok=True)
    stems = [Path(path).stem for path in index.paths]
    count = Counter(stems)
    for row, found in detections.items():
        lines = label_lines(found, *index.shapes[row].tolist())
        stem = stems[row] if count[stems[row]] == 1 else f"{stems[row]}_{index.image_ids[row]}"  # twins of two folders
        (folder / f"{stem}.txt").write_text("".join(lines), encoding="utf-8")


def label_lines(found: np.ndarray, h: int, w: int) -> list[str]:
    """Detections (n, 6) in a picture (h, w) as the lines of a label file: class x y w h score; x y w h in 0..1."""
    boxes = xyxy_to_xywhn(found[:, :4], w, h)  # (n, 4)
    return [
        f"{int(cls)} " + " ".join(f"{v:.6f}" for v in box) + f" {score:.6f}\n"
        for box, score, cls in zip(boxes, found[:, 4], found[:, 5], strict=True)
    ]


class Samples:
    """Keeps pictures that pass by, spread evenly over the batches: wrap the loader with `watch`."""

    def __init__(self) -> None:
        self.kept: list[tuple[int, Any, Any]] = []  # row of the index, uint8 (3, h, w), letterbox

    def watch(self, batches: Iterable[dict[str, Any]], total: int) -> Iterator[dict[str, Any]]:
        """The batches, unchanged; `total` is how many there are."""
        for number, batch in enumerate(batches):
            wanted = SHOWN * (number + 1) // total - SHOWN * number // total
            for i in range(min(wanted, len(batch["index"]))):
                self.kept.append((int(batch["index"][i]), batch["img"][i].clone(), batch["letterbox"][i]))
            yield batch


def write_pictures(path: Path, samples: Samples, index: Any, detections: dict[int, np.ndarray]) -> None:
    """A sheet of truth beside what was found, as a file."""
    save_sheet(truth_and_found(samples.kept, index, detections), path)


def truth_and_found(kept: Iterable[tuple[int, Any, Any]], index: Any, detections: dict[int, np.ndarray]) -> np.ndarray:
    """A sheet of truth beside what was found with a score of at least 0.25; `kept` as in `Samples`."""
    images, boxes, classes, scores, captions = [], [], [], [], []
    for row, image, letterbox in kept:
        truth, truth_classes, _, _ = truth_of(index, row)
        found = detections.get(row, np.zeros((0, 6)))
        found = found[found[:, 4] >= CONFUSION_CONF]  # (n, 6)
        images += [image, image]
        boxes += [letterbox.apply(truth), letterbox.apply(found[:, :4])]
        classes += [truth_classes, found[:, 5]]
        scores += [None, found[:, 4]]
        captions += [f"{Path(index.paths[row]).name}: truth", f"found (score ≥ {CONFUSION_CONF})"]
    return picture_sheet(images, boxes, classes, index.names, scores, captions, columns=4)
