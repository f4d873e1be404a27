"""Scores of a set of detections: COCO AP by faster-coco-eval, precision and recall at the best F1, confusion matrix.

Truth is an index (columns: shapes, boxes, classes, area, crowd, offsets, names, image_ids, category_ids); detections
are one array (n, 6) per row of it: xyxy in pixels of the original picture, score, class.
"""

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster

from utils.boxes import xywhn_to_xyxy
from utils.matching import match, one_to_one, overlaps

log = logging.getLogger(__name__)
CONFUSION_CONF = 0.25  # detections below this score do not enter the confusion matrix
CONFUSION_IOU = 0.45
AREAS = ("all", "small", "medium", "large")  # COCO's: split at 32^2 and 96^2 pixels of the original picture
AT_1, AT_100 = 0, -1  # positions of the limits 1 and 100 detections per picture and class in COCO's tables


@dataclass(frozen=True)
class CocoScores:
    """COCO's tables, averaged; nan where there is no box to find."""

    metrics: dict[str, float]
    ap: np.ndarray  # (10, nc) average precision at IoU 0.5, 0.55 ... 0.95
    precision50: np.ndarray  # (101, nc) precision at recall 0, 0.01 ... 1, IoU 0.5; its mean over recall is the AP


@dataclass(frozen=True)
class F1Curves:
    """Precision, recall and F1 at IoU 0.5 as functions of the score threshold, for the classes that have boxes."""

    confidence: np.ndarray  # (1000,)
    classes: np.ndarray  # (k,)
    precision: np.ndarray  # (k, 1000)
    recall: np.ndarray  # (k, 1000)
    f1: np.ndarray  # (k, 1000)
    best: int  # where the smoothed mean F1 peaks


def truth_of(index: Any, row: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """True boxes of one picture: (n, 4) xyxy pixels, classes (n,), crowd (n,), area (n,) pixels^2."""
    rows = slice(int(index.offsets[row]), int(index.offsets[row + 1]))
    h, w = (int(v) for v in index.shapes[row])
    xyxy = xywhn_to_xyxy(index.boxes[rows].astype(np.float64), w, h)  # (n, 4)
    return xyxy.round(3), index.classes[rows], index.crowd[rows], index.area[rows]  # 3 digits: float32 holds no more


def coco_results(index: Any, detections: dict[int, np.ndarray]) -> list[dict[str, Any]]:
    """Detections as the list of a COCO results file: image_id, category_id, bbox xywh in pixels, score."""
    results = []
    for row, found in detections.items():
        boxes = np.concatenate((found[:, :2], found[:, 2:4] - found[:, :2]), 1).round(3).tolist()  # (n, 4) xywh
        for box, score, cls in zip(boxes, found[:, 4].tolist(), found[:, 5].astype(int).tolist(), strict=True):
            image_id, category_id = int(index.image_ids[row]), int(index.category_ids[cls])
            results.append({"image_id": image_id, "category_id": category_id, "bbox": box, "score": round(score, 7)})
    return results


def coco_scores(index: Any, results: list[dict[str, Any]]) -> CocoScores:
    """The official COCO box metrics of `results`, crowds ignored as COCO does, and their per-class parts."""
    coco = COCOeval_faster(_truth_set(index), _result_set(index, results), "bbox", print_function=log.debug)
    coco.evaluate()
    coco.accumulate()
    order = np.argsort(np.argsort(index.category_ids))  # the tables go by ascending category id: (nc,) places
    precision = np.asarray(coco.eval["precision"])[:, :, order]  # (10 IoU, 101 recall, nc, 4 areas, 3 limits)
    recall = np.asarray(coco.eval["recall"])[:, order]  # (10, nc, 4, 3)
    areas = {f"val/mAP_{name}": _mean(precision[..., a, AT_100]) for a, name in enumerate(AREAS) if a}
    metrics = {
        "val/mAP50-95": _mean(precision[..., 0, AT_100]),
        "val/mAP50": _mean(precision[0, ..., 0, AT_100]),
        "val/mAP75": _mean(precision[5, ..., 0, AT_100]),
        **areas,
        "val/AR1": _mean(recall[..., 0, AT_1]),
        "val/AR100": _mean(recall[..., 0, AT_100]),
    }
    precision = np.where(precision[..., 0, AT_100] < 0, np.nan, precision[..., 0, AT_100])  # (10, 101, nc)
    return CocoScores(metrics, ap=precision.mean(1), precision50=precision[0])


def _mean(table: np.ndarray) -> float:
    """Mean of the entries that exist; COCO writes -1 where there is nothing to find."""
    exists = table > -1
    return float(table[exists].mean()) if exists.any() else float("nan")


def _truth_set(index: Any) -> COCO:
    """The index as a COCO object, built in memory."""
    annotations = []
    for row, image_id in enumerate(index.image_ids):
        for box, cls, crowd, area in zip(*truth_of(index, row), strict=True):
            x1, y1, x2, y2 = box.tolist()
            annotations.append(
                {
                    "id": len(annotations) + 1,  # from 1: 0 means "unmatched" inside the library
                    "image_id": int(image_id),
                    "category_id": int(index.category_ids[cls]),
                    "bbox": [x1, y1, round(x2 - x1, 3), round(y2 - y1, 3)],
                    "area": float(area),
                    "iscrowd": int(crowd),
                }
            )
    return _coco_set(index, annotations)


def _result_set(index: Any, results: list[dict[str, Any]]) -> COCO:
    """COCO results as a COCO object. Not `loadRes`: it writes polygons into the results and costs twice the time."""
    annotations = [
        {**r, "id": i, "area": r["bbox"][2] * r["bbox"][3], "iscrowd": 0} for i, r in enumerate(results, start=1)
    ]
    return _coco_set(index, annotations)


def _coco_set(index: Any, annotations: list[dict[str, Any]]) -> COCO:
    coco = COCO()
    coco.dataset = {
        "images": [
            {"id": int(i), "height": int(h), "width": int(w)}
            for i, (h, w) in zip(index.image_ids, index.shapes, strict=True)
        ],
        "categories": [{"id": int(c), "name": name} for c, name in zip(index.category_ids, index.names, strict=True)],
        "annotations": annotations,
    }
    coco.createIndex()
    return coco


def f1_curves(index: Any, detections: dict[int, np.ndarray]) -> F1Curves:
    """Precision, recall and F1 against the score threshold at IoU 0.5, and the threshold of the best mean F1.

    As ultralytics and YOLOv5 do: linear between detections; above the highest score of a class its precision is 1; a
    class without any detection has precision 0; the mean F1 is smoothed over a tenth of the axis to find its peak.
    """
    score, hit, cls = _verdicts(index, detections)
    confidence = np.linspace(0, 1, 1000)
    classes, boxes = np.unique(index.classes[~index.crowd], return_counts=True)  # (k,), (k,)
    precision, recall = np.zeros((2, len(classes), 1000))
    for row, (c, n) in enumerate(zip(classes, boxes, strict=True)):
        mine = cls == c
        if not mine.any():
            continue
        true = hit[mine].cumsum()  # (d,)
        falling = -score[mine]
        recall[row] = np.interp(-confidence, falling, true / n, left=0)
        precision[row] = np.interp(-confidence, falling, true / np.arange(1, len(true) + 1), left=1)
    f1 = 2 * precision * recall / (precision + recall).clip(1e-16)  # (k, 1000)
    best = int(_smooth(f1.mean(0), 101).argmax()) if len(classes) else 0
    return F1Curves(confidence, classes, precision, recall, f1, best)


def _verdicts(index: Any, detections: dict[int, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Score, verdict (1 or 0) and class of every detection that counts, by falling score; each (d,)."""
    kept = [np.zeros((0, 3))]
    for row, found in detections.items():
        truth, truth_cls, crowd, _ = truth_of(index, row)
        iou = overlaps(found, truth, crowd) * (found[:, 5:6] == truth_cls[None])  # (n, m)
        verdict = match(found, iou, crowd)
        kept.append(np.stack((found[:, 4], verdict, found[:, 5]), 1)[verdict >= 0])
    rows = np.concatenate(kept)
    rows = rows[np.argsort(-rows[:, 0], kind="stable")]
    return rows[:, 0], rows[:, 1], rows[:, 2]


def _smooth(y: np.ndarray, width: int) -> np.ndarray:
    """Moving average over an odd number of points; the ends repeat."""
    return np.convolve(np.pad(y, width // 2, mode="edge"), np.full(width, 1 / width), mode="valid")


def confusion_matrix(index: Any, detections: dict[int, np.ndarray]) -> np.ndarray:
    """Counts (nc + 1, nc + 1): row = predicted class, column = true class; last row missed, last column false alarms.

    Detections with a score of at least 0.25 and true boxes are paired one to one whatever their class, by falling IoU
    down to 0.45. Crowds are no truth, and an unpaired detection that lies in one is left out.
    """
    nc = len(index.names)
    counts = np.zeros((nc + 1, nc + 1), dtype=np.int64)
    for row in range(len(index.image_ids)):
        truth, truth_cls, crowd, _ = truth_of(index, row)
        found = detections.get(row, np.zeros((0, 6)))
        found = found[found[:, 4] >= CONFUSION_CONF]
        iou = overlaps(found, truth, crowd)  # (n, m)
        pairs = one_to_one(iou * ~crowd, CONFUSION_IOU)  # (p, 2)
        in_crowd = (iou[:, crowd] >= CONFUSION_IOU).any(1)  # (n,)
        alone = np.setdiff1d(np.flatnonzero(~in_crowd), pairs[:, 0])
        missed = np.setdiff1d(np.flatnonzero(~crowd), pairs[:, 1])
        predicted = found[:, 5].astype(int)
        np.add.at(counts, (predicted[pairs[:, 0]], truth_cls[pairs[:, 1]]), 1)
        np.add.at(counts, (predicted[alone], nc), 1)
        np.add.at(counts, (nc, truth_cls[missed]), 1)
    return counts
