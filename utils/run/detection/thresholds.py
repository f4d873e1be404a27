"""From which score on a detection counts: of best F1 on val, for all classes together and for each one. PURE."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from utils.errors import UserError
from utils.evaluation.metrics import F1Curves, smooth

WIDTH = 101  # of the 1000 points of a curve that are averaged before its peak is looked for


@dataclass(frozen=True)
class Thresholds:
    """Scores of best F1 at IoU 0.5."""

    overall: float  # of the mean over the classes
    classes: dict[str, float]  # by name; a class without a box in val has that of all

    def plain(self) -> dict[str, Any]:
        """As a checkpoint keeps them."""
        return {"global": self.overall, "classes": dict(self.classes)}


def best_thresholds(curves: F1Curves, names: Sequence[str]) -> Thresholds:
    """Where the smoothed F1 of all classes, and that of each, peaks; a curve that is 0 everywhere says nothing."""
    overall = round(float(curves.confidence[curves.best]), 4)
    found = dict.fromkeys(names, overall)
    for c, f1 in zip(curves.classes, curves.f1, strict=True):
        if f1.any():
            found[names[int(c)]] = round(float(curves.confidence[smooth(f1, WIDTH).argmax()]), 4)
    return Thresholds(overall, found)


def read_thresholds(plain: Any) -> Thresholds | None:
    """What `plain` has written; None for anything else, as in a file of another program."""
    if not isinstance(plain, dict) or not isinstance(plain.get("classes"), dict):
        return None
    scores = [plain.get("global"), *plain["classes"].values()]
    if not all(isinstance(score, float | int) and 0 <= score <= 1 for score in scores):
        return None
    return Thresholds(float(scores[0]), {str(name): float(score) for name, score in plain["classes"].items()})


def least_scores(
    conf: float | str, names: Sequence[str], thresholds: Thresholds | None, wanted: Sequence[int] | None = None
) -> np.ndarray:
    """Score (nc,) that a detection of each class must exceed; infinite for classes that are not wanted.

    conf: a number, or auto: those that the weights carry.
    """
    if conf != "auto":
        least = np.full(len(names), float(conf))
    elif thresholds is None:
        raise UserError(
            "conf auto: these weights carry no thresholds; train.py writes them into best.pt. Give a number, as --conf "
            "0.25; val.py prints the score at which the mean F1 is best."
        )
    else:
        least = np.array([thresholds.classes.get(name, thresholds.overall) for name in names])
    if wanted is not None:
        least[np.setdiff1d(np.arange(len(names)), wanted)] = np.inf
    return least
