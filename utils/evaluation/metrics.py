"""Scores of a set of detections: COCO AP, precision and recall at the best F1, confusion matrix.

Truth is an index (columns: shapes, boxes, classes, area, crowd, offsets, names, image_ids, category_ids); detections
are one array (n, 6) per row of it: xyxy in pixels of the original picture, score, class.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from utils.evaluation.matching import match, one_to_one, overlaps
from utils.evaluation.truth import truth_of

CONFUSION_CONF = 0.25  # detections below this score do not enter the confusion matrix
CONFUSION_IOU = 0.45
THRESHOLDS = np.linspace(0.5, 0.95, 10)  # of the IoU


@dataclass(frozen=True)
class F1Curves:
    """Precision, recall and F1 at IoU 0.5 as functions of the score threshold, for the classes that have boxes."""

    confidence: np.ndarray  # (1000,)
    classes: np.ndarray  # (k,)
    precision: np.ndarray  # (k, 1000)
    recall: np.ndarray  # (k, 1000)
    f1: np.ndarray  # (k, 1000)
    best: int  # where the smoothed mean F1 peaks


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
    best = int(smooth(f1.mean(0), 101).argmax()) if len(classes) else 0
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


def yolov5_ap(index: Any, detections: dict[int, np.ndarray]) -> tuple[float, float]:
    """mAP50 and mAP50-95 as YOLOv5 (v7.0) defines them; nan without boxes. COCO's are other numbers.

    A detection goes for the true box that it overlaps most and no other one; of those that go for the same box the most
    confident is right. AP is the area under the falling precision, by trapezoids between 101 recalls; past the recall
    that is reached, precision falls in a line to 0 at recall 1.
    """
    score, right, cls = [np.zeros(0)], [np.zeros((0, len(THRESHOLDS)), bool)], [np.zeros(0)]
    for row, found in detections.items():
        truth, truth_cls, crowd, _ = truth_of(index, row)
        truth, truth_cls = truth[~crowd], truth_cls[~crowd]
        iou = overlaps(found, truth, np.zeros(len(truth), bool)) * (found[:, 5:6] == truth_cls[None])  # (n, m)
        score.append(found[:, 4])
        right.append(_first_of_each(iou))
        cls.append(found[:, 5])
    scores, rights, classes = (np.concatenate(parts) for parts in (score, right, cls))
    order = np.argsort(-scores, kind="stable")
    rights, classes = rights[order], classes[order]
    known, boxes = np.unique(index.classes[~index.crowd], return_counts=True)
    ap = np.array([_areas(rights[classes == c], n) for c, n in zip(known, boxes, strict=True)])  # (k, 10)
    return (float(ap[:, 0].mean()), float(ap.mean())) if len(ap) else (float("nan"), float("nan"))


def _first_of_each(iou: np.ndarray) -> np.ndarray:
    """Whether each detection (n, 10) is right at each threshold: of those whose best box is the same, the first one."""
    right = np.zeros((len(iou), len(THRESHOLDS)), bool)
    if iou.size:
        best, box = iou.max(1), iou.argmax(1)  # (n,), (n,)
        for k, threshold in enumerate(THRESHOLDS):
            near = np.flatnonzero(best >= threshold)
            right[near[np.unique(box[near], return_index=True)[1]], k] = True
    return right


def _areas(right: np.ndarray, boxes: int) -> np.ndarray:
    """AP (10,) of one class: right (d, 10) by falling score, and how many boxes there are to find."""
    true = right.cumsum(0)  # (d, 10)
    recall, precision = true / boxes, true / np.arange(1, len(true) + 1)[:, None]
    x, areas = np.linspace(0, 1, 101), np.zeros(len(THRESHOLDS))
    for k in range(len(THRESHOLDS) if len(right) else 0):
        falling = np.maximum.accumulate(np.concatenate(([1.0], precision[:, k], [0.0]))[::-1])[::-1]
        y = np.interp(x, np.concatenate(([0.0], recall[:, k], [1.0])), falling)
        areas[k] = ((y[1:] + y[:-1]) / 2).sum() / 100
    return areas


def smooth(y: np.ndarray, width: int) -> np.ndarray:
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
