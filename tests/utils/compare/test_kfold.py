"""The corrected test over folds: its formula, and its honesty where models share what they learnt from."""

import math

import numpy as np
import pytest
from scipy import stats

from utils.compare.statistics.folds import expected, folded

EXPERIMENTS = 4_000
PICTURES = 60
ERROR = math.sqrt(0.05 * 0.95 / EXPERIMENTS)


@pytest.mark.parametrize(("n", "share"), [(6, 0.2), (10, 1 / 9), (18, 0.2)])
def test_formula(n, share):
    """t = mean / sqrt((1 / n + n_val / n_train) * variance), written out, on n - 1 degrees of freedom."""
    d = np.random.default_rng(n).normal(0.01, 0.01, n)
    found = folded(d, share, margin=0.01)
    t = d.mean() / math.sqrt((1 / n + share) * d.var(ddof=1))
    assert found.p == pytest.approx(2 * stats.t.sf(abs(t), n - 1))
    half = stats.t.isf(0.025, n - 1) * d.mean() / t
    assert (found.low, found.high) == pytest.approx((d.mean() - half, d.mean() + half))
    assert (found.low <= 0 <= found.high) == (found.p > 0.05)
    within = stats.t.sf((0.01 + d.mean()) * t / d.mean(), n - 1), stats.t.sf((0.01 - d.mean()) * t / d.mean(), n - 1)
    assert found.p_equivalence == pytest.approx(max(within))


def test_what_one_setting_scores_on_new_pictures():
    """The interval of the mean of an arm's own scores is as wide as that of differences that stray as much."""
    scores = np.random.default_rng(2).normal(0.6, 0.03, 6)
    mean, low, high = expected(scores, 0.2)
    other = folded(scores - 0.5, 0.2, 0.01)
    assert (mean, low, high) == pytest.approx((scores.mean(), other.low + 0.5, other.high + 0.5))
    plain = stats.ttest_1samp(scores, 0).confidence_interval()
    assert low < plain.low and plain.high < high


def test_without_shared_pictures_it_is_the_paired_t_test():
    d = np.random.default_rng(1).normal(0.01, 0.01, 8)
    found, plain = folded(d, 0.0, 0.01), stats.ttest_1samp(d, 0)
    assert found.p == pytest.approx(plain.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(plain.confidence_interval()))


def test_several_comparisons_at_once_are_each_by_itself():
    d = np.random.default_rng(2).normal(0.01, 0.01, (3, 8))
    several, each = folded(d, 0.2, 0.01), [folded(row, 0.2, 0.01) for row in d]
    for name in ("mean", "sd", "low", "high", "p", "p_equivalence"):
        np.testing.assert_allclose(getattr(several, name), [getattr(one, name) for one in each])


def learnt(folds: int, repeats: int, features: int) -> np.ndarray:
    """Differences (experiments, folds * repeats) of the losses of two least-squares models, alike by construction.

    Each arm sees the same signal through noise of its own, learns from the pictures outside the fold and is scored
    within it; all models of an experiment share its 60 pictures.
    """
    rng = np.random.default_rng([folds, repeats, features])
    signal = rng.standard_normal((EXPERIMENTS, PICTURES, features))
    target = signal.sum(-1) / math.sqrt(features) + rng.standard_normal((EXPERIMENTS, PICTURES))
    seen = [signal + rng.standard_normal(signal.shape) for _ in range(2)]
    differences = []
    for _ in range(repeats):
        order = rng.permutation(PICTURES)
        for k in range(folds):
            val, train = order[k::folds], np.delete(order, np.s_[k::folds])
            losses = []
            for x in seen:
                a, b = x[:, train], target[:, train, None]
                w = np.linalg.solve(a.swapaxes(1, 2) @ a, a.swapaxes(1, 2) @ b)  # (experiments, features, 1)
                losses.append((((x[:, val] @ w)[..., 0] - target[:, val]) ** 2).mean(-1))
            differences.append(losses[1] - losses[0])
    return np.stack(differences, 1)


def rates(d: np.ndarray, share: float) -> tuple[float, float]:
    """Share of experiments with a claim at 5 %: by the corrected test and by the paired t test."""
    corrected = np.mean(folded(d, share, 1.0).p <= 0.05)
    return float(corrected), float(np.mean(stats.ttest_1samp(d, 0, axis=1).pvalue <= 0.05))


@pytest.mark.slow
@pytest.mark.parametrize(("folds", "repeats", "features"), [(3, 1, 5), (6, 1, 5), (6, 1, 25), (6, 3, 15), (10, 1, 25)])
def test_equal_arms_are_told_apart_at_most_5_percent_of_the_time(folds, repeats, features):
    corrected, plain = rates(learnt(folds, repeats, features), 1 / (folds - 1))
    print(f"{folds} folds x {repeats}, {features} features: {corrected:.4f}, paired t test {plain:.4f}")
    assert 0.005 < corrected <= 0.05 + 2 * ERROR
    if repeats > 1:
        assert plain > 0.2


@pytest.mark.parametrize(("folds", "repeats"), [(3, 1), (6, 1), (10, 1), (6, 3)])
def test_it_is_exact_at_the_correlation_it_supposes(folds, repeats):
    """Val / all pictures between any two folds; the margin is denied and the interval covers at their rates too."""
    rng = np.random.default_rng([folds, repeats])
    n, alike = folds * repeats, 1 / folds
    d = 1 + math.sqrt(alike) * rng.standard_normal((EXPERIMENTS, 1))
    d = d + math.sqrt(1 - alike) * rng.standard_normal((EXPERIMENTS, n))
    found = folded(d, 1 / (folds - 1), margin=1.0)
    assert abs(np.mean((found.low <= 1) & (found.high >= 1)) - 0.95) < 4 * ERROR
    assert np.mean(found.p_equivalence <= 0.05) <= 0.05 + 2 * ERROR
    assert rates(d - 1, 1 / (folds - 1))[1] > 0.08  # what pairs that were independent would be granted
