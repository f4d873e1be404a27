"""Whether two detectors find the same on the same pictures. PURE."""

from dataclasses import dataclass

import numpy as np

from utils.evaluation.matching import one_to_one, overlaps

SAME = 0.5  # IoU from which two boxes of a class are the same one
NO_AREA = 0.01  # pixels by which two boxes differ that are the same whatever they overlap: some are cut to a line
Found = dict[int, np.ndarray]  # (n, 6) xyxy pixels, score, class of each picture


@dataclass(frozen=True)
class Agreement:
    """Boxes of both, those that are the same, and how far these differ at most."""

    first: int
    second: int
    matched: int
    box: float  # largest difference of a coordinate, pixels of the picture
    score: float
    lonely: float  # the best score of a box that only one of them has; 0 where there is none

    def line(self, first: str, second: str) -> str:
        """In words."""
        alone = f"; best score of a box that only one has {self.lonely:.4f}" if self.lonely else ""
        return (
            f"{first} {self.first} boxes, {second} {self.second}, the same {self.matched}; largest difference of a "
            f"coordinate {self.box:.4g} pixels, of a score {self.score:.3g}{alone}"
        )


def agreement(first: Found, second: Found) -> Agreement:
    """Of the detections on the same pictures: those of one class are paired one to one, by falling overlap."""
    matched, box, score, lonely = 0, 0.0, 0.0, 0.0
    for key, a in first.items():
        b = second[key]
        iou = overlaps(a, b[:, :4], np.zeros(len(b), bool))
        equal = np.abs(a[:, None, :4] - b[None, :, :4]).max(2) < NO_AREA  # (n, m); of no area there is no overlap
        iou = np.maximum(iou, equal) * (a[:, 5:6] == b[None, :, 5])
        pairs = one_to_one(iou, SAME)
        matched += len(pairs)
        if len(pairs):
            off = np.abs(a[pairs[:, 0]] - b[pairs[:, 1]])  # (p, 6)
            box, score = max(box, float(off[:, :4].max())), max(score, float(off[:, 4].max()))
        for rows, mine in ((a, pairs[:, 0]), (b, pairs[:, 1])):
            alone = np.setdiff1d(np.arange(len(rows)), mine)
            lonely = max(lonely, float(rows[alone, 4].max(initial=0)))
    counts = [sum(map(len, found.values())) for found in (first, second)]
    return Agreement(*counts, matched, box, score, lonely)
