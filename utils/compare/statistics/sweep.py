"""What the scores of two arms over the values of one key say: each arm at its best value, how many values do. PURE.

Scores are (seeds, values); a run that diverged counts as 0. Both tests ask the same: if the arms are alike, the two
rows of a seed may change places. Every choice that a measure makes is made again for each change of places, so the
first p is exact whatever was chosen: Fisher (1935), The Design of Experiments, section 21; Phipson and Smyth (2010),
Stat. Appl. Genet. Mol. Biol. 9:39, for a random share of the changes. What is compared is the t ratio and not the mean,
so that the test also holds (nearly) and keeps its power where the arms are equal at their best but not elsewhere:
Janssen (1997), Stat. Probab. Lett. 36:9; Chung and Romano (2013), Ann. Stat. 41:484. A claim needs more than this p:
also that of the paired t test, and for the best value that of `against_every`. Alone, the t test tells arms of equal
best apart in 5 to 21 % of cases, for the seeds of a half share a choice, and the first two together in up to 9 % where
the best of one lies beside that of the other; all of them do so in at most 5 % (tests/utils/compare/statistics).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import stats

from utils.compare.statistics.folds import widened
from utils.compare.statistics.paired import t_interval, t_ratio, t_test_p

EXACT = 12  # seeds up to which every one of the 2**n changes of places is looked at
DRAWN = 4096  # changes of places, the observed one among them, beyond that
TINY = 1e-9  # a score above 0
Measure = Callable[
    [np.ndarray, np.ndarray], np.ndarray
]  # reference and arm (..., seeds, values) -> effects (..., seeds)


@dataclass(frozen=True)
class Swept:
    """One measure of an arm against the reference over a sweep."""

    each: np.ndarray  # (seeds,) effects
    mean: float
    low: float  # 95 % interval of the mean
    high: float
    p: float  # that the arms are alike, two-sided; the largest of the tests


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
    """`within` below the best mean over the seeds of the reference (..., seeds, values).

    At least half of that mean, and above 0: a run that diverged must widen nothing where the best is itself tiny.
    """
    best = reference.mean(-2).max(-1)
    return np.maximum(np.maximum(best - within, best / 2), TINY)


def swept(reference: np.ndarray, arm: np.ndarray, measure: Measure, shift: bool, share: float = 0.0) -> Swept:
    """A measure with its tests; scores (seeds, values), at least two seeds.

    shift: the effect is one of scores, `gain_at_best`. The test of every value is then made too, and the interval is
    that of all amounts that, taken off the arm's scores, make the arms alike for one of the tests at 5 %; else it is
    Student's. share: of folds, see `folded`; both t tests are then the corrected ones.
    """
    each = measure(reference, arm)
    n, mean, sd = len(each), float(each.mean()), widened(float(each.std(ddof=1)), len(each), share)
    p = max(changed_places_p(reference, arm, measure), float(t_test_p(mean, sd, n)))
    student = t_interval(mean, sd, n)
    if not shift:
        return Swept(each, mean, *map(float, student), p)
    ends = np.array([_interval(reference, arm, measure, mean), student, every_interval(reference, arm, share)])
    p = max(p, against_every(reference, arm, share))
    return Swept(each, mean, float(ends[:, 0].min()), float(ends[:, 1].max()), p)


def against_every(reference: np.ndarray, arm: np.ndarray, share: float = 0.0) -> float:
    """Two-sided p that no arm, at its best value by the mean over all seeds, beats every value of the other.

    If the bests are equal there is a value of the other that is as good, so the largest p of the paired t tests against
    all of them will do without a correction: the intersection-union test of Berger (1982), Technometrics 24:295.
    """
    over, under = _leads(arm, reference, share), _leads(reference, arm, share)
    ratio = max(float(t_ratio(*lead, len(arm)).min()) for lead in (over, under))
    return min(2 * float(stats.t.sf(ratio, len(arm) - 1)), 1.0)


def every_interval(reference: np.ndarray, arm: np.ndarray, share: float = 0.0) -> tuple[float, float]:
    """The amounts that `against_every` does not reject at 5 % when they are taken off the arm's scores."""
    low = t_interval(*_leads(arm, reference, share), len(arm))[0].min()
    return float(low), float(-t_interval(*_leads(reference, arm, share), len(arm))[0].min())


def _leads(first: np.ndarray, second: np.ndarray, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean and sd (values,) of what the first, at its best value, is above the second at each value; sd `widened`."""
    lead = first[:, [first.mean(0).argmax()]] - second
    return lead.mean(0), widened(lead.std(0, ddof=1), len(lead), share)


def changed_places_p(reference: np.ndarray, arm: np.ndarray, measure: Measure) -> float:
    """Two-sided p: the share of the changes of places whose |t ratio| of the effects reaches the observed one."""
    n = len(reference)
    if n <= EXACT:
        swap = (np.arange(2**n)[:, None] >> np.arange(n)) & 1 == 1  # (2**n, n); the first changes nothing
    else:
        swap = np.random.default_rng(0).random((DRAWN, n)) < 0.5
        swap[0] = False
    first, second = np.where(swap[..., None], arm, reference), np.where(swap[..., None], reference, arm)
    each = measure(first, second)  # (changes, seeds)
    mean, sd = each.mean(-1), each.std(-1, ddof=1)
    ratio = np.abs(t_ratio(mean, np.where(sd <= 1e-9 * np.abs(mean), 0.0, sd), n))  # equal effects: no sd by rounding
    return float((ratio >= ratio[0] * (1 - 1e-9)).mean())


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
