"""What is wrong, picture by picture and class by class, at one score threshold."""

import csv
import io
from dataclasses import dataclass
from typing import Any

import numpy as np

from utils.evaluation.diagnosis.kinds import KINDS, MISSED, TRUE, Diagnosis
from utils.evaluation.diagnosis.labels import Suspicion

FALSE = [word for number, word in KINDS.items() if number != MISSED]
COLUMNS = ("hits", "misses", *FALSE)


@dataclass(frozen=True, eq=False)
class Counts:
    """Counts of COLUMNS: hits, misses, then false alarms by kind."""

    threshold: float
    pictures: np.ndarray  # (n, 7)
    classes: np.ndarray  # (nc, 7); a false alarm counts for the class that was claimed

    @property
    def total(self) -> np.ndarray:
        """(7,)"""
        return self.pictures.sum(0)

    @property
    def wrong(self) -> np.ndarray:
        """Misses and false alarms of each picture, (n,)."""
        return self.pictures[:, 1:].sum(1)

    def worst(self, most: int) -> list[int]:
        """Rows of the index with something wrong, most first, then as in the index."""
        order = np.argsort(-self.wrong, kind="stable")
        return [int(row) for row in order[:most] if self.wrong[row]]


def count(index: Any, judged: Diagnosis, threshold: float) -> Counts:
    """Counts of the detections with at least this score. A miss is a box that none of them has found."""
    n, nc = len(index.image_ids), len(index.names)
    pictures, classes = np.zeros((n, len(COLUMNS)), np.int64), np.zeros((nc, len(COLUMNS)), np.int64)
    shown = judged.score >= threshold
    columns = {TRUE: 0} | {number: COLUMNS.index(word) for number, word in KINDS.items() if number != MISSED}
    for number, column in columns.items():
        mine = shown & (judged.kind == number)
        np.add.at(pictures[:, column], judged.row[mine], 1)
        np.add.at(classes[:, column], judged.cls[mine], 1)
    lost = ~np.asarray(index.crowd).astype(bool)
    lost[judged.box[shown & (judged.kind == TRUE)]] = False
    owner = np.repeat(np.arange(n), np.diff(index.offsets))
    np.add.at(pictures[:, 1], owner[lost], 1)
    np.add.at(classes[:, 1], np.asarray(index.classes)[lost], 1)
    return Counts(threshold, pictures, classes)


def lines(judged: Diagnosis, counts: Counts) -> list[str]:
    """The kinds for the console."""
    numbers = dict(zip(COLUMNS, counts.total.tolist(), strict=True))
    said = [
        f"at score {counts.threshold:.3f}: {numbers['hits']} found, {numbers['misses']} missed, "
        f"{sum(numbers[word] for word in FALSE)} false alarms ({', '.join(f'{numbers[w]} {w}' for w in FALSE)})",
        "mAP50 that mending all errors of a kind would bring, in points: "
        + ", ".join(f"{word} {100 * judged.gain[word]:+.1f}" for word in KINDS.values()),
    ]
    return said


def errors_csv(index: Any, counts: Counts) -> str:
    """A row for every picture."""
    rows = io.StringIO()
    table = csv.writer(rows, lineterminator="\n")
    table.writerow(("picture", *COLUMNS))
    table.writerows((path, *row) for path, row in zip(index.paths, counts.pictures.tolist(), strict=True))
    return rows.getvalue()


def suspicions_csv(index: Any, found: list[Suspicion]) -> str:
    """A row for every label to look at; boxes are x y w h in pixels from the upper left corner."""
    rows = io.StringIO()
    table = csv.writer(rows, lineterminator="\n")
    table.writerow(("picture", "what", "score", "found", "label", "x", "y", "w", "h"))
    for s in found:
        x1, y1, x2, y2 = s.box
        place = (f"{v:.1f}" for v in (x1, y1, x2 - x1, y2 - y1))
        table.writerow(
            (index.paths[s.row], s.what, "" if s.score is None else f"{s.score:.4f}", s.found, s.label, *place)
        )
    return rows.getvalue()
