"""What the scores of two arms over the values of one key say: each arm at its best value, how many values do. PURE.

Scores are (seeds, values); a run that diverged counts as 0. Both tests ask the same: if the arms are alike, the two
rows of a seed may change places. Every choice that a measure makes is made again for each change of places, so p is
exact whatever was chosen: Fisher (1935), The Design of Experiments, section 21; Phipson and Smyth (2010), Stat. Appl.
Genet. Mol. Biol. 9:39, for a random share of the changes.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

EXACT = 12  # seeds up to which every one of the 2**n changes of places is looked at
DRAWN = 4096  # changes of places, the observed one among them, beyond that
Measure = Callable[
    [np.ndarray, np.ndarray], np.ndarray
]  # reference and arm (..., seeds, values) -> effects (..., seeds)


@dataclass(frozen=True)
class Swept:
    """One measure of an arm against the reference over a sweep."""

    each: np.ndarray  # (seeds,) effects
    mean: float
    low: float  # 95 % interval of the mean; nan where it is not known
    high: float
    p: float  # that the arms are alike, two-sided


def best_values(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Index of the best value (...,) by the mean over the even seeds, and by that over the odd ones."""
    return scores[..., 0::2, :].mean(-2).argmax(-1), scores[..., 1::2, :].mean(-2).argmax(-1)


def at_best(scores: np.ndarray) -> np.ndarray:
    """Score of each seed (..., seeds) at the value that is best on the other half of the seeds: no winner's curse."""
    even, odd = best_values(scores)
    out = np.empty(scores.shape[:-1])
    out[..., 1::2] = np.take_along_axis(scores[..., 1::2, :], even[..., None, None], -1)[..., 0]
    out[..., 0::2] = np.take_along_axis(scores[..., 0::2, :], odd[..., None, None], -1)[..., 0]
    return out


def gain_at_best(reference: np.ndarray, arm: np.ndarray) -> np.ndarray:
    """Arm minus reference (..., seeds), each at its own best value."""
    return at_best(arm) - at_best(reference)


def usable_width(scores: np.ndarray, values: np.ndarray, height: np.ndarray) -> np.ndarray:
    """How many decades of the key (..., seeds) score at least `height` (...,); scores (..., seeds, values).

    values: (values,) positive, ascending. Between two values the score is drawn straight over log10 of the key.
    """
    x, above = np.log10(values), scores - np.asarray(height)[..., None, None]
    a, b, step = above[..., :-1], above[..., 1:], np.diff(x)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where((a >= 0) & (b >= 0), 1.0, np.where((a < 0) & (b < 0), 0.0, np.maximum(a, b) / np.abs(b - a)))
    return (share * step).sum(-1)


def wider(values: np.ndarray, within: float) -> Measure:
    """The measure 'width of the arm's usable range minus the reference's', in decades; within: see `usable_height`."""

    def measure(reference: np.ndarray, arm: np.ndarray) -> np.ndarray:
        height = usable_height(reference, within)
        return usable_width(arm, values, height) - usable_width(reference, values, height)

    return measure


def usable_height(reference: np.ndarray, within: float) -> np.ndarray:
    """`within` below the best mean over the seeds of the reference (..., seeds, values)."""
    return reference.mean(-2).max(-1) - within


def swept(reference: np.ndarray, arm: np.ndarray, measure: Measure, shift: bool) -> Swept:
    """A measure with its test; scores (seeds, values), at least two seeds.

    shift: give the interval, of all amounts that, taken off the arm's scores, make the arms alike for a test at 5 %.
    """
    each = measure(reference, arm)
    p = changed_places_p(reference, arm, measure)
    low, high = _interval(reference, arm, measure, float(each.mean())) if shift else (np.nan, np.nan)
    return Swept(each, float(each.mean()), low, high, p)


def changed_places_p(reference: np.ndarray, arm: np.ndarray, measure: Measure) -> float:
    """Two-sided p: the share of the changes of places whose |mean effect| reaches the observed one."""
    n = len(reference)
    if n <= EXACT:
        swap = (np.arange(2**n)[:, None] >> np.arange(n)) & 1 == 1  # (2**n, n); the first changes nothing
    else:
        swap = np.random.default_rng(0).random((DRAWN, n)) < 0.5
        swap[0] = False
    first, second = np.where(swap[..., None], arm, reference), np.where(swap[..., None], reference, arm)
    means = measure(first, second).mean(-1)
    return float((np.abs(means) >= abs(means[0]) - 1e-12).mean())


def _interval(reference: np.ndarray, arm: np.ndarray, measure: Measure, mean: float) -> tuple[float, float]:
    """Where the test of `arm - amount` begins to reject at 5 %, below and above the mean; infinite under six seeds."""

    def end(sign: float) -> float:
        far = max(np.ptp(np.concatenate([reference, arm])), 1e-6)
        if changed_places_p(reference, arm - mean - sign * far, measure) > 0.05:
            return sign * np.inf
        near = 0.0
        for _ in range(30):
            middle = (near + far) / 2
            alike = changed_places_p(reference, arm - mean - sign * middle, measure) > 0.05
            near, far = (middle, far) if alike else (near, middle)
        return mean + sign * far

    return end(-1.0), end(1.0)
