"""Labels that look wrong: where a detector is sure of something that the labels do not say, and what it never sees."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from utils.evaluation.diagnosis.kinds import BACKGROUND, CLASS, FOUND, Diagnosis
from utils.evaluation.matching import overlaps
from utils.evaluation.truth import truth_of

SURE = 0.5  # score from which a detection is held against a label
UNLABELLED, OTHER_CLASS, UNSEEN = "no label here", "labelled otherwise", "never found"


@dataclass(frozen=True)
class Suspicion:
    """A place to look at."""

    row: int  # of the index
    what: str  # UNLABELLED | OTHER_CLASS | UNSEEN
    score: float | None  # of the detection; none for a label that is never found
    found: str  # class that the detector says; empty
    label: str  # class that the label says; empty
    box: tuple[float, float, float, float]  # xyxy in pixels of the picture
    area: float  # pixels^2


def suspicions(index: Any, detections: dict[int, np.ndarray], judged: Diagnosis, unseen: np.ndarray) -> list[Suspicion]:
    """What to look at, the surest first, then the labels (m,) of the index that no detector sees, the largest first."""
    sure = judged.score >= SURE
    found = []
    for k in np.flatnonzero(sure & ((judged.kind == BACKGROUND) | (judged.kind == CLASS))):
        row = int(judged.row[k])
        box = detections[row][judged.place[k], :4]
        other = judged.kind[k] == CLASS
        label = index.names[int(index.classes[judged.box[k]])] if other else ""
        what = OTHER_CLASS if other else UNLABELLED
        found.append(_suspicion(row, what, float(judged.score[k]), index.names[judged.cls[k]], label, box))
    found.sort(key=lambda s: (-(s.score or 0), s.row, s.box))
    owner = np.repeat(np.arange(len(index.image_ids)), np.diff(index.offsets))
    lost = []
    for m in np.flatnonzero(unseen):
        row = int(owner[m])
        box = truth_of(index, row)[0][m - int(index.offsets[row])]
        lost.append(_suspicion(row, UNSEEN, None, "", index.names[int(index.classes[m])], box))
    lost.sort(key=lambda s: (-s.area, s.row, s.box))
    return found + lost


def never_found(index: Any, *detections: dict[int, np.ndarray]) -> np.ndarray:
    """Labels (m,) bool that no detection of any detector overlaps by an IoU of 0.5, whatever its class and score.

    Give the detections of detectors trained with several seeds where there are some: each misses things by chance.
    """
    seen = np.asarray(index.crowd).astype(bool).copy()
    for found in detections:
        for row, boxes in found.items():
            truth, _, crowd, _ = truth_of(index, row)
            if len(truth) and len(boxes):
                near = overlaps(boxes, truth, np.zeros_like(crowd)).max(0) >= FOUND
                seen[int(index.offsets[row]) : int(index.offsets[row + 1])] |= near
    return ~seen


def _suspicion(row: int, what: str, score: float | None, found: str, label: str, box: np.ndarray) -> Suspicion:
    x1, y1, x2, y2 = (float(v) for v in box)
    return Suspicion(row, what, score, found, label, (x1, y1, x2, y2), (x2 - x1) * (y2 - y1))
