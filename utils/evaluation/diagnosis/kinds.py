"""What is wrong with each false alarm, and the mAP50 that mending a kind would bring.

The definition is that of TIDE (Bolya, Foley, Hays, Hoffman: A General Toolbox for Identifying Object Detection Errors,
ECCV 2020, arXiv 2008.08115), with its thresholds: found from an IoU of 0.5 on, background up to 0.1.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from utils.evaluation.matching import overlaps, take
from utils.evaluation.truth import LIMIT, truth_of

FOUND, BACKGROUND_IOU = 0.5, 0.1  # TIDE's t_f and t_b
RECALLS = np.linspace(0, 1, 101)

TRUE, CLASS, PLACE, BOTH, DUPLICATE, BACKGROUND = range(6)  # of a detection
MISSED = 6  # of a true box
KINDS = {
    CLASS: "class",
    PLACE: "place",
    BOTH: "both",
    DUPLICATE: "duplicate",
    BACKGROUND: "background",
    MISSED: "missed",
}
MEANING = {
    "class": "on an object (IoU at least 0.5), but of another class",
    "place": "of the right class, but badly placed (IoU 0.1 to 0.5)",
    "both": "of another class and badly placed",
    "duplicate": "of an object that a better detection has found already",
    "background": "where nothing is (IoU at most 0.1)",
    "missed": "an object that no detection found, nor would find if its class or its place were mended",
}


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """Every detection that counts and every true box, judged. Crowds are no truth; what lies in one is left out."""

    row: np.ndarray  # (d,) row of the index
    place: np.ndarray  # (d,) its place among the detections of this row
    score: np.ndarray  # (d,)
    cls: np.ndarray  # (d,) int
    kind: np.ndarray  # (d,) TRUE ... BACKGROUND
    box: np.ndarray  # (d,) the true box, a row of index.boxes, that it took, or would after mending; -1
    missed: np.ndarray  # (m,) bool, of index.boxes: neither found nor to be found by mending a class or a place
    mAP50: float  # as fraction; nan without boxes
    gain: dict[str, float]  # by word of KINDS: what mending all of this kind adds to it


def diagnose(index: Any, detections: dict[int, np.ndarray], counted: int = LIMIT) -> Diagnosis:
    """Judge detections (n, 6) of each row of the index: xyxy pixels, score, class; `counted` of a picture and class.

    A kind is mended as TIDE does it. Class and place: the best detection of an object that none has found becomes a
    hit, further ones go. Both, duplicate and background: they go. Missed: there is less to find.
    """
    by_id = sorted(detections, key=lambda row: index.image_ids[row])  # equal scores stand as pycocotools has them
    parts = [_judge(index, row, detections[row], counted) for row in by_id]
    row, place, score, cls, kind, box = (np.concatenate(column) for column in zip(*parts, _nothing(), strict=True))
    truth = np.asarray(index.classes).astype(np.int64)
    single = ~np.asarray(index.crowd)
    taken = np.zeros(len(truth), bool)
    taken[box[kind == TRUE]] = True
    mended = _best_of_each(score, kind, box, taken)
    usable = taken.copy()
    usable[box[mended]] = True
    missed = single & ~usable

    to_find = np.bincount(truth[single], minlength=len(index.names))
    hit = kind == TRUE
    whole = mean_ap50(score, cls, hit, to_find)
    gain = {}
    for number, word in KINDS.items():
        mine = kind == number
        if number == MISSED:
            left = to_find - np.bincount(truth[missed], minlength=len(index.names))
            better = mean_ap50(score, cls, hit, to_find, left)
        else:
            kept = ~mine | (mended & mine)
            new = np.where(mended & mine, truth[box.clip(0)], cls) if len(truth) else cls
            better = mean_ap50(score[kept], new[kept], (hit | (mended & mine))[kept], to_find)
        gain[word] = max(better - whole, 0.0)
    return Diagnosis(row, place, score, cls, kind, box, missed, whole, gain)


def _nothing() -> list[np.ndarray]:
    """A picture without detections, in the types of `_judge`."""
    return [np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0), *(np.zeros(0, np.int64) for _ in range(3))]


def _judge(index: Any, row: int, found: np.ndarray, counted: int) -> list[np.ndarray]:
    """row, place, score, cls, kind, box of the detections of a picture that count."""
    order = np.argsort(-found[:, 4], kind="stable")
    cls = found[order, 5].astype(np.int64)
    rank = np.zeros(len(cls), np.int64)
    for c in np.unique(cls):
        rank[cls == c] = np.arange((cls == c).sum())
    order, cls = order[rank < counted], cls[rank < counted]
    mine = found[order]
    truth, truth_cls, crowd, _ = truth_of(index, row)
    iou = overlaps(mine, truth, crowd)  # (n, m)
    same = cls[:, None] == truth_cls[None].astype(np.int64)  # (n, m)
    own, other = iou * (same & ~crowd), iou * (~same & ~crowd)
    box = take(mine, own, FOUND)  # (n,)
    kind = np.full(len(mine), BOTH)
    best = own.max(1, initial=0), other.max(1, initial=0)
    # the order of these lines is the order in which TIDE asks, last first
    kind[np.maximum(*best) <= BACKGROUND_IOU] = BACKGROUND
    kind[best[0] >= FOUND] = DUPLICATE
    kind[best[1] >= FOUND] = CLASS
    kind[(best[0] >= BACKGROUND_IOU) & (best[0] <= FOUND)] = PLACE
    kind[box >= 0] = TRUE
    if len(truth):
        box = np.where(kind == CLASS, other.argmax(1), np.where(kind == PLACE, own.argmax(1), box))
    lost = (kind != TRUE) & ((iou * (same & crowd)).max(1, initial=0) >= FOUND)  # in a crowd: counts neither way
    start = int(index.offsets[row])
    columns = [np.full(len(mine), row), order, mine[:, 4], cls, kind, np.where(box >= 0, box + start, -1)]
    return [column[~lost] for column in columns]


def _best_of_each(score: np.ndarray, kind: np.ndarray, box: np.ndarray, taken: np.ndarray) -> np.ndarray:
    """(d,) bool: of the detections that mending class or place would put on a free box, the best one of each box.

    A box is given once for both kinds: TIDE, too, lets the better of two detections have it.
    """
    mended = np.zeros(len(score), bool)
    candidates = np.flatnonzero(((kind == CLASS) | (kind == PLACE)) & (box >= 0))
    candidates = candidates[~taken[box[candidates]]]
    candidates = candidates[np.argsort(-score[candidates], kind="stable")]
    _, first = np.unique(box[candidates], return_index=True)
    mended[candidates[first]] = True
    return mended


def mean_ap50(
    score: np.ndarray, cls: np.ndarray, hit: np.ndarray, to_find: np.ndarray, left: np.ndarray | None = None
) -> float:
    """Mean over the classes that have boxes of the 101-point AP of detections (d,), as COCO computes it; nan without.

    to_find (nc,) boxes of each class; `left` of them where some are no longer asked for, a class without any being 0.
    """
    left = to_find if left is None else left
    scores = []
    for c in np.flatnonzero(to_find):
        mine = np.flatnonzero(cls == c)
        mine = mine[np.argsort(-score[mine], kind="stable")]
        true = hit[mine].cumsum()
        if not len(mine) or left[c] <= 0 or not true[-1]:
            scores.append(0.0)
            continue
        precision = np.maximum.accumulate((true / np.arange(1, len(true) + 1))[::-1])[::-1]
        at = np.searchsorted(true / left[c], RECALLS, "left")
        scores.append(float(np.where(at < len(true), precision[np.minimum(at, len(true) - 1)], 0).mean()))
    return float(np.mean(scores)) if scores else float("nan")
