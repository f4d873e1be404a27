"""How far a score depends on which pictures happen to be in val: its 95 % interval by a bootstrap over pictures."""

import math
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from utils.evaluation.matches import Matches, find_matches
from utils.files import write_whole

RESAMPLES = 1000
DRAWS = "bootstrap.npz"  # of a run folder
RECALLS = np.linspace(0, 1, 101)  # at which COCO reads the precision
SCORES = {"mAP50-95": slice(0, 10), "mAP50": slice(0, 1), "mAP75": slice(5, 6)}  # rows of THRESHOLDS
CELLS = 2**25  # pictures x draws whose counts are held at once
WIDE = 0.05  # an interval that spans more is one of a val that is small


@dataclass(frozen=True, eq=False)
class Resamples:
    """The scores of a set of detections: with every picture once, and with pictures drawn with replacement."""

    pictures: int
    value: dict[str, float]
    drawn: dict[str, np.ndarray]  # (draws,) of each of SCORES, the same pictures drawn for every set of detections

    def interval(self, score: str) -> tuple[float, float]:
        """The 95 % interval of a score of SCORES; nan where there is nothing to find."""
        return around(self.value[score], self.drawn[score], self.pictures)


def around(value: float, drawn: np.ndarray, pictures: int) -> tuple[float, float]:
    """The 95 % interval of a score that other sets of as many pictures would give, from draws (b,) of it.

    Draws lie higher than the score, for precision is read as its best at a recall or above and copies make that
    uneven: their middle 95 % are moved by this much, and widened as Student's t is (Hesterberg, What teachers should
    know about the bootstrap, 2015). Draws without any box are nan and left out.
    """
    from scipy.special import stdtrit  # takes a moment, and is needed at the end of a run

    drawn = drawn[~np.isnan(drawn)]
    if not len(drawn) or pictures < 2:
        return float("nan"), float("nan")
    low, high = np.quantile(drawn, (0.025, 0.975)) - drawn.mean()
    wider = stdtrit(pictures - 1, 0.975) / stdtrit(np.inf, 0.975) * (pictures / (pictures - 1)) ** 0.5
    return float(max(value + wider * low, 0)), float(min(value + wider * high, 1))


def bootstrap(truth: Any, result: Any) -> Resamples:
    """The resampled scores of an Evaluation against the index `truth`."""
    return resample(find_matches(truth, result.detections, result.counted))


def interval_lines(resamples: Resamples) -> list[str]:
    """The intervals in a sentence, and a warning where they are wide."""
    ends = {name: resamples.interval(name) for name in ("mAP50-95", "mAP50")}
    if any(math.isnan(low) for low, _ in ends.values()):
        return []
    shown = ", ".join(f"{name} {low:.4f} to {high:.4f}" for name, (low, high) in ends.items())
    lines = [f"95 % interval by a bootstrap over the {resamples.pictures} pictures: {shown}"]
    low, high = ends["mAP50-95"]
    if high - low > WIDE:
        lines.append(
            f"warning: the interval of mAP50-95 spans {100 * (high - low):.1f} points: with so few pictures to score "
            "on, differences of that size may be those of the pictures"
        )
    return lines


def keep_draws(folder: Path, which: str, resamples: Resamples) -> None:
    """Put the draws into bootstrap.npz of a run folder under the name `which`, float32, about 12 kB."""
    file = folder / DRAWS
    arrays = dict(np.load(file)) if file.is_file() else {}
    arrays |= {f"{which}/{name}": drawn.astype(np.float32) for name, drawn in resamples.drawn.items()}
    arrays |= {f"{which}/pictures": np.array(resamples.pictures)}
    write_whole(file, lambda f: np.savez(f, **arrays))


def read_draws(folder: Path, which: str, score: str) -> tuple[np.ndarray, int] | None:
    """Draws (draws,) of a score as `keep_draws` wrote them, and the number of pictures; None where they are not."""
    try:
        with np.load(folder / DRAWS) as arrays:
            return arrays[f"{which}/{score}"], int(arrays[f"{which}/pictures"])
    except (OSError, KeyError, ValueError, zipfile.BadZipFile):
        return None


def resample(matches: Matches, seed: int = 0, resamples: int = RESAMPLES) -> Resamples:
    """Scores of the matches as they are and of `resamples` draws of as many pictures.

    Whoever draws with the same seed from as many pictures draws the same ones: differences between two detectors are
    paired. A drawn picture counts as often as it was drawn, which is to the digit what COCO says of a set with copies.
    """
    ap = np.concatenate([mean_ap(matches, weights) for weights in draws(matches.pictures, seed, resamples)])
    return Resamples(
        pictures=matches.pictures,
        value={name: float(ap[0, rows].mean()) for name, rows in SCORES.items()},
        drawn={name: ap[1:, rows].mean(1) for name, rows in SCORES.items()},
    )


def draws(pictures: int, seed: int, resamples: int) -> Iterator[np.ndarray]:
    """How often each picture counts, (pictures, b) at a time: once, then as often as in each of `resamples` draws."""
    rng = np.random.default_rng(seed)
    most = max(CELLS // max(pictures, 1), 1)
    for start in range(-1, resamples, most):
        b = min(most, resamples - start)
        drawn = rng.integers(0, pictures, (b - (start < 0), pictures))  # row by row: as if all were drawn at once
        if start < 0:
            drawn = np.concatenate([np.arange(pictures)[None], drawn])
        counts = np.bincount((drawn * b + np.arange(b)[:, None]).ravel(), minlength=pictures * b)
        yield counts.reshape(pictures, b).astype(np.float32)


def mean_ap(matches: Matches, weights: np.ndarray) -> np.ndarray:
    """Mean over classes of the AP at each threshold, (b, 10), when pictures count as weights (pictures, b) say.

    A class without a box in a draw is left out of its mean, as COCO leaves it out; nan where that is every class.
    """
    total, classes = np.zeros((10, weights.shape[1])), np.zeros(weights.shape[1])
    for c in range(len(matches.starts) - 1):
        rows = slice(matches.starts[c], matches.starts[c + 1])
        boxes = matches.boxes[matches.box_starts[c] : matches.box_starts[c + 1]]
        if len(boxes):
            ap, exists = class_ap(matches.picture[rows], matches.hit[:, rows], matches.ignored[:, rows], boxes, weights)
            total += ap
            classes += exists
    with np.errstate(invalid="ignore"):
        return (total / np.where(classes, classes, np.nan)).T


def class_ap(
    picture: np.ndarray, hit: np.ndarray, ignored: np.ndarray, boxes: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """AP of one class at each threshold, (10, b), and in which draws it has a box (b,); without one its AP is 0.

    picture (d,), hit, ignored (10, d) by falling score; boxes (m,) picture of each true box; weights (pictures, b).
    From the last detection to the first: at each hit the precision so far is the best at this recall or a higher one,
    and is read at every recall that this hit is the first to reach. What is no hit costs one addition, and neighbouring
    thresholds at which a detection is a hit are counted together.
    """
    b = weights.shape[1]
    last = np.flatnonzero(hit.any(0)).max(initial=-1) + 1
    hit, ignored, picture = hit[:, :last], ignored[:, :last], picture[:last]
    to_find, seen = total(boxes, weights), total(picture, weights)  # (b,) seen, true, hidden: up to the one looked at
    true, hidden = (np.stack([total(picture[row], weights) for row in rows]) for rows in (hit, ignored))  # (10, b)
    most = int(to_find.max()) + 1
    reached = np.searchsorted(RECALLS, np.arange(most) / np.maximum(to_find, 1)[:, None], "right")  # (b, most)
    reached = reached.astype(np.uint8).ravel()  # how many of RECALLS 0, 1, ... hits reach
    place = np.arange(b) * most + true.astype(np.int64)
    level = reached.take(place)
    best, ap, whole = np.zeros_like(true), np.zeros_like(true), weights.astype(np.int64)
    some_hidden = ignored.any()
    events = np.flatnonzero((hit | ignored).any(0))
    steps = events, [*events[1:], last][: len(events)], runs_of(hit[:, events]), ignored[:, events].any(0)
    for i, following, runs, hides in zip(*(column[::-1] for column in steps), strict=True):
        if following > i + 1:
            seen -= weights.take(picture[i + 1 : following], 0).sum(0)
        w, shown = weights[picture[i]], np.maximum(seen, 1)
        for t in runs:
            precision = true[t] / (np.maximum(seen - hidden[t], 1) if some_hidden else shown)
            np.maximum(best[t], precision, out=best[t])
            true[t] -= w
            place[t] -= whole[picture[i]]
            now = reached.take(place[t])
            ap[t] += np.multiply(best[t], level[t] - now, out=precision)
            level[t] = now
        seen -= w
        if hides:
            hidden -= w * ignored[:, i, None]
    return (ap + best) / len(RECALLS) * (to_find > 0), to_find > 0  # recall 0 is reached without a hit


def total(pictures: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """How often the pictures (k,) count in each draw, together: (b,); weights (pictures, b)."""
    if 8 * len(pictures) < len(weights):
        return weights.take(pictures, 0).sum(0)
    return np.bincount(pictures, minlength=len(weights)).astype(weights.dtype) @ weights


def runs_of(hit: np.ndarray) -> list[list[slice]]:
    """For each column of hit (10, k) the series of thresholds without a gap at which it is true."""
    edges = np.diff(hit.astype(np.int8), axis=0, prepend=0, append=0)
    starts, ends = (np.argwhere(edges.T == step) for step in (1, -1))  # (runs, 2): column, threshold
    runs: list[list[slice]] = [[] for _ in range(hit.shape[1])]
    for (column, start), end in zip(starts.tolist(), ends[:, 1].tolist(), strict=True):
        runs[column].append(slice(start, end))
    return runs
