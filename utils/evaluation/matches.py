"""Which detections of a whole evaluation are hits, at ten IoU thresholds at once, as COCO decides it."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from utils.boxes import xywhn_to_xyxy
from utils.evaluation.truth import LIMIT

THRESHOLDS = np.linspace(0.5, 0.95, 10)  # as COCO writes them, to the last bit
PAIRS = 2**21  # of a detection and a true box whose overlaps are computed at once


@dataclass(frozen=True, eq=False)
class Matches:
    """Detections that count, class by class and by falling score, and where the boxes to be found are."""

    pictures: int
    picture: np.ndarray  # (d,) int32 row of each detection's picture
    starts: np.ndarray  # (nc + 1,) where each class begins
    hit: np.ndarray  # (10, d) bool
    ignored: np.ndarray  # (10, d) bool: it lies in a crowd, and counts neither way
    boxes: np.ndarray  # (m,) int32 row of the picture of each true box, class by class; no crowds
    box_starts: np.ndarray  # (nc + 1,)


def find_matches(index: Any, detections: dict[int, np.ndarray], counted: int = LIMIT) -> Matches:
    """The detections (n, 6) of each row of the index: xyxy pixels, score, class; `counted` a picture and class at most.

    As pycocotools: by falling score each takes the free box of its class that it overlaps most, for each threshold.
    Coordinates and scores are rounded as in a results file, and equal scores stay in the order of the image ids.
    """
    found = np.concatenate([np.zeros((0, 6)), *detections.values()])  # (n, 6)
    row = np.repeat(np.array(list(detections), np.int64), [len(boxes) for boxes in detections.values()])
    place = np.argsort(np.argsort(index.image_ids, kind="stable"))  # of each picture among the ascending ids
    score, classes, n = found[:, 4].round(7), found[:, 5].astype(np.int64), len(index.image_ids)
    group = classes * n + place[row]
    order = np.lexsort((-score, group))  # stable
    _, first, sizes = np.unique(group[order], return_index=True, return_counts=True)
    order = order[np.arange(len(order)) - np.repeat(first, sizes) < counted]
    boxes = np.concatenate((found[order, :2], found[order, 2:4] - found[order, :2]), 1).round(3)  # (d, 4) xywh

    owner = np.repeat(np.arange(n), np.diff(index.offsets))  # picture of each true box
    box_classes, crowd = index.classes.astype(np.int64), np.asarray(index.crowd)
    by_group = np.argsort(box_classes * n + place[owner], kind="stable")
    truth, truth_group = _truth(index, owner)[by_group], (box_classes * n + place[owner])[by_group]
    hit, ignored = _match(boxes, group[order], truth, truth_group, crowd[by_group])

    final = np.lexsort((place[row[order]], -score[order], classes[order]))
    to_find = by_group[~crowd[by_group]]
    nc = len(index.names)
    return Matches(
        pictures=n,
        picture=row[order][final].astype(np.int32),
        starts=np.searchsorted(classes[order][final], np.arange(nc + 1)),
        hit=hit[:, final],
        ignored=ignored[:, final],
        boxes=owner[to_find].astype(np.int32),
        box_starts=np.searchsorted(box_classes[to_find], np.arange(nc + 1)),
    )


def _truth(index: Any, owner: np.ndarray) -> np.ndarray:
    """All true boxes (m, 4) as xywh in pixels, rounded as `truth_of` does."""
    h, w = np.asarray(index.shapes)[owner].T
    xyxy = xywhn_to_xyxy(index.boxes.astype(np.float64), w, h).round(3)
    return np.concatenate((xyxy[:, :2], (xyxy[:, 2:] - xyxy[:, :2]).round(3)), 1)


def _match(
    boxes: np.ndarray, group: np.ndarray, truth: np.ndarray, truth_group: np.ndarray, crowd: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """hit and ignored (10, d) of boxes (d, 4) xywh, which stand by group and falling score; truth (m, 4) by group."""
    pair_box, pair_truth, iou = _overlapping(boxes, group, truth, truth_group, crowd)
    in_crowd = np.zeros(len(boxes))
    np.maximum.at(in_crowd, pair_box[crowd[pair_truth]], iou[crowd[pair_truth]])
    single = ~crowd[pair_truth]
    pair_box, pair_truth, iou = pair_box[single], pair_truth[single], iou[single]

    thresholds = THRESHOLDS[:, None]
    hit, free = np.zeros((10, len(boxes)), bool), np.ones((10, len(truth)), bool)
    candidates, pairs_of = np.unique(pair_box, return_counts=True)
    _, first, sizes = np.unique(group[candidates], return_index=True, return_counts=True)
    turn = np.arange(len(candidates)) - np.repeat(first, sizes)  # the first candidates of all groups, the second, ...
    order = np.argsort(np.repeat(turn, pairs_of), kind="stable")
    pair_box, pair_truth, iou = pair_box[order], pair_truth[order], iou[order]
    ends = np.bincount(np.repeat(turn, pairs_of)).cumsum() if len(turn) else []
    start = 0
    for end in ends:
        box, true = pair_box[start:end], pair_truth[start:end]
        begins = np.flatnonzero(np.diff(box, prepend=-1))  # of each candidate of this turn
        usable = np.where(free[:, true] & (iou[start:end] >= thresholds), iou[start:end], -1)  # (10, p)
        best = np.maximum.reduceat(usable, begins, axis=1)  # (10, k)
        lengths = np.diff(np.append(begins, len(box)))
        last = np.where(usable == np.repeat(best, lengths, axis=1), np.arange(len(box)), -1)
        last = np.maximum.reduceat(last, begins, axis=1)  # of equal overlaps pycocotools takes the last
        level, which = np.nonzero(best > 0)
        hit[level, box[begins[which]]] = True
        free[level, true[last[level, which]]] = False
        start = end
    return hit, ~hit & (in_crowd >= thresholds)


def _overlapping(
    boxes: np.ndarray, group: np.ndarray, truth: np.ndarray, truth_group: np.ndarray, crowd: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of one group with an IoU of at least 0.5: box, true box, IoU, each (p,); for a crowd the part inside it."""
    begins, ends = np.searchsorted(truth_group, group, "left"), np.searchsorted(truth_group, group, "right")
    before = np.concatenate([[0], (ends - begins).cumsum()])
    parts = [(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))]
    start = 0
    while start < len(boxes):
        stop = max(int(np.searchsorted(before, before[start] + PAIRS, "right")) - 1, start + 1)
        counts = ends[start:stop] - begins[start:stop]
        a = np.repeat(np.arange(start, stop), counts)
        b = np.arange(before[start], before[stop]) - np.repeat(before[start:stop] - begins[start:stop], counts)
        low, high = (
            np.maximum(boxes[a, :2], truth[b, :2]),
            np.minimum(*((x[:, :2] + x[:, 2:]) for x in (boxes[a], truth[b]))),
        )
        inside = (high - low).clip(0).prod(1)
        area, area_truth = boxes[a, 2] * boxes[a, 3], truth[b, 2] * truth[b, 3]
        union = np.where(crowd[b], area, area + area_truth - inside)
        iou = inside / np.where(union > 0, union, 1)
        near = iou >= THRESHOLDS[0]
        parts.append((a[near], b[near], iou[near]))
        start = stop
    return tuple(np.concatenate(column) for column in zip(*parts, strict=True))
