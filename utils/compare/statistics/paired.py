"""What the differences of paired runs say: intervals, tests and their power. PURE.

Scores and differences are fractions of mAP (0.01 is one mAP point). A pair is one seed in two arms; its difference is
the arm's score minus the reference's. Functions of (mean, sd) take arrays as well, one entry an experiment.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtr, stdtrit

FEWEST = 6  # pairs: the smallest two-sided sign-flip p of n pairs is 2 / 2**n, 0.031 at six and 0.0625 at five
EXACT = 40  # pairs up to which every one of the 2**n flips is counted


@dataclass(frozen=True)
class Paired:
    """An arm against the reference over n seeds."""

    n: int
    mean: float
    sd: float  # of the differences, n - 1 in the denominator
    low: float  # t interval of the mean, see `t_interval`
    high: float
    p_t: float  # two-sided paired t test
    p_flip: float  # two-sided sign-flip test
    p: float  # the larger of the two: a claim needs both
    claimable: bool  # False under six pairs, where no result could be significant


def paired(differences: ArrayLike, confidence: float = 0.95) -> Paired:
    """Summary of the paired differences (n,), n >= 2."""
    d = np.asarray(differences, float)
    n, mean, sd = len(d), float(d.mean()), float(d.std(ddof=1))
    if np.ptp(d) == 0:
        mean, sd = float(d[0]), 0.0  # the mean of equal numbers may round away from them
    p_t, p_flip = float(t_test_p(mean, sd, n)), sign_flip_p(d)
    low, high = t_interval(mean, sd, n, confidence)
    return Paired(n, mean, sd, float(low), float(high), p_t, p_flip, max(p_t, p_flip), n >= FEWEST)


def pairing_gain(reference: ArrayLike, arm: ArrayLike) -> float:
    """How many times as many seeds the same precision would take without pairs: unpaired variance over paired.

    (var(reference) + var(arm)) / var(arm - reference), scores (n,) in the order of the seeds, n >= 2. The reason is
    2 * cov in var(a - b) = var(a) + var(b) - 2 * cov: what a seed does to both arms drops out. Under 1 pairs have cost
    precision; infinite when all differences are equal, nan when all scores are.
    """
    theirs, ours = counted(reference), counted(arm)
    apart, together = theirs.var(ddof=1) + ours.var(ddof=1), (ours - theirs).var(ddof=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.divide(apart, together))


def counted(scores: ArrayLike) -> np.ndarray:
    """Scores as they count: a run that diverged has none that is finite, and counts as 0, what its weights detect."""
    scores = np.asarray(scores, float)
    return np.where(np.isfinite(scores), scores, 0.0)


def t_interval(mean: ArrayLike, sd: ArrayLike, n: int, confidence: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """mean -+ t(n - 1; (1 + confidence) / 2) * sd / sqrt(n): Student (1908)."""
    half = upper_t((1 - confidence) / 2, n - 1) * np.asarray(sd) / np.sqrt(n)
    return mean - half, mean + half


def t_test_p(mean: ArrayLike, sd: ArrayLike, n: int) -> np.ndarray:
    """Two-sided p of the paired t test that the mean is 0; equal differences give 0, or 1 when they are all 0."""
    return 2 * stdtr(n - 1, -np.abs(t_ratio(mean, sd, n)))


def upper_t(q: ArrayLike, df: int) -> np.ndarray:
    """What Student's t with df degrees of freedom exceeds with chance q; infinite for 0."""
    return np.where(np.asarray(q) == 0, np.inf, -stdtrit(df, q))


def t_ratio(mean: ArrayLike, sd: ArrayLike, n: int) -> np.ndarray:
    """mean * sqrt(n) / sd; 0 / 0 is 0: equal differences on the point tested do not speak against it."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.asarray(mean, float) * np.sqrt(n) / np.asarray(sd, float)
    return np.where(np.isnan(ratio), 0.0, ratio)


def sign_flip_p(differences: ArrayLike) -> float:
    """Two-sided p of the sign-flip test on the mean: Fisher (1935), The Design of Experiments, section 21.

    If the arms are alike each difference is as likely to have the other sign, so p is the share of the 2**n patterns
    of signs whose |sum| reaches the observed one, a tie counting as reached. All are counted without being written out:
    with L the signed sums of one half of the pairs and R those of the other, l + r >= s is a search in sorted R.
    """
    d = np.asarray(differences, float)
    if len(d) > EXACT:  # a random share of the flips; p counts the observed one among them, hence stays valid
        from scipy import stats  # takes half a second, which a mistyped option need not wait for

        return float(stats.permutation_test((d,), np.sum, permutation_type="samples", n_resamples=99_999, rng=0).pvalue)
    reach = abs(d.sum()) - 1e-12 * np.abs(d).sum()  # sums differ by rounding with the order of their terms
    if reach <= 0:
        return 1.0
    left, right = _signed_sums(d[: len(d) // 2]), np.sort(_signed_sums(d[len(d) // 2 :]))
    reached = len(right) - np.searchsorted(right, reach - left)  # (2**(n/2),) partners of each left sum
    return 2 * int(reached.sum()) / 2 ** len(d)  # as many sums lie at or under -reach


def holm(p: ArrayLike) -> np.ndarray:
    """Adjusted p (..., m) of m tests, step-down: Holm (1979), Scand. J. Statist. 6:65. Running max of (m - i) p_(i)."""
    p = np.asarray(p, float)
    order = np.argsort(p, axis=-1)
    steps = np.take_along_axis(p, order, -1) * np.arange(p.shape[-1], 0, -1)  # (..., m), smallest p first
    adjusted = np.empty_like(p)
    np.put_along_axis(adjusted, order, np.minimum(np.maximum.accumulate(steps, -1), 1.0), -1)
    return adjusted


def equivalence_p(mean: ArrayLike, sd: ArrayLike, n: int, margin: float) -> np.ndarray:
    """p of 'the difference lies within -+margin' by two one-sided paired t tests.

    Schuirmann (1987), J. Pharmacokin. 15:657: the larger of P(T >= (mean + margin) / se), P(T <= (mean - margin) / se).
    """
    mean = np.asarray(mean)
    above = stdtr(n - 1, -t_ratio(mean + margin, sd, n))
    below = stdtr(n - 1, t_ratio(mean - margin, sd, n))
    return np.maximum(above, below)


def effect_power(effect: ArrayLike, sd: ArrayLike, n: int, level: ArrayLike) -> np.ndarray:
    """Chance that the two-sided paired t test at `level` finds a true `effect`: P(|T| > t(n - 1; 1 - level / 2)).

    T is noncentral t, n - 1 degrees of freedom, noncentrality effect * sqrt(n) / sd: Julious (2010), Sample Sizes for
    Clinical Trials, chapter 3.
    """
    bar, shift = upper_t(np.asarray(level) / 2, n - 1), _noncentrality(effect, sd, n)
    return _beyond(bar, n - 1, shift) + _beyond(bar, n - 1, -shift)


def equivalence_power(effect: ArrayLike, sd: ArrayLike, n: int, level: ArrayLike, margin: float) -> np.ndarray:
    """Chance that the equivalence test at `level` succeeds when the true difference is `effect`.

    P(T1 > t(n - 1; 1 - level)) + P(T2 < -t) - 1, T1 and T2 noncentral t around effect +- margin, at least 0: the
    approximation of Phillips (1990), J. Pharmacokin. 18:137, without Owen's Q. It is a lower bound, close above 1/2.
    """
    bar, effect = upper_t(level, n - 1), np.asarray(effect)
    above = _beyond(bar, n - 1, _noncentrality(effect + margin, sd, n))
    below = _beyond(bar, n - 1, -_noncentrality(effect - margin, sd, n))
    return np.maximum(above + below - 1, 0.0)


def _signed_sums(d: np.ndarray) -> np.ndarray:
    """Sums of d (n,) under all 2**n choices of signs."""
    sums = np.zeros(1)
    for x in d:
        sums = np.concatenate([sums + x, sums - x])
    return sums


def _beyond(bar: ArrayLike, df: ArrayLike, shift: ArrayLike) -> np.ndarray:
    """P(T >= bar), T noncentral t; scipy has nan far on the other side, where it is 0."""
    from scipy import stats  # late: see `sign_flip_p`

    return np.nan_to_num(stats.nct.sf(bar, df, shift), nan=0.0)


def _noncentrality(effect: ArrayLike, sd: ArrayLike, n: int) -> np.ndarray:
    """As `t_ratio`, bounded: past 100 the power is 1 to the last digit."""
    return np.clip(t_ratio(effect, sd, n), -100.0, 100.0)
