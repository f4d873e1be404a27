"""Pooling over data sets: against published results of Hartung and Knapp's method, and against simulation."""

import math

import numpy as np
import pytest
from scipy import stats
from scipy.optimize import brentq

from utils.compare.statistics.paired import equivalence_p, t_interval, t_test_p
from utils.compare.statistics.pooled import FEWEST_CELLS, pool, pool_pairs

EXPERIMENTS = 10_000
PAIRS = 6
ERROR = math.sqrt(0.05 * 0.95 / EXPERIMENTS)  # binomial standard error of a simulated 5 %

# Thirteen trials of the BCG vaccine: tuberculosis yes and no, vaccinated and not; Colditz et al. (1994), JAMA 271:698.
BCG = np.array(
    [
        (4, 119, 11, 128), (6, 300, 29, 274), (3, 228, 11, 209), (62, 13536, 248, 12619), (33, 5036, 47, 5761),
        (180, 1361, 372, 1079), (8, 2537, 10, 619), (505, 87886, 499, 87892), (29, 7470, 45, 7232),
        (17, 1699, 65, 1600), (186, 50448, 141, 27197), (5, 2493, 3, 2338), (27, 16886, 29, 17825),
    ],
    float,
)  # fmt: skip


def reml(y: np.ndarray, v: np.ndarray) -> float:
    """tau**2 by restricted maximum likelihood, its score put to 0: Viechtbauer (2005), J. Educ. Behav. Stat. 30:261."""

    def score(tau2: float) -> float:
        w = 1 / (v + tau2)
        rest = y - (w * y).sum() / w.sum()
        return float((w**2 * rest**2).sum() - w.sum() + (w**2).sum() / w.sum())

    return brentq(score, 0, 100) if score(0) > 0 else 0.0


def paule_mandel(y: np.ndarray, v: np.ndarray) -> np.ndarray:
    """tau**2 (...,) at which the weighted squares come to k - 1: Paule and Mandel (1982), J. Res. NBS 87:377."""
    low, high = np.zeros(y.shape[:-1]), np.full(y.shape[:-1], 1e3)
    for _ in range(60):
        middle = (low + high) / 2
        above = squares(y, v + middle[..., None])[2] > y.shape[-1] - 1
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return low


def squares(y: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weighted mean, sum of weights 1 / v and weighted sum of squares around the mean, over the last axis."""
    w = 1 / v
    mean = (w * y).sum(-1) / w.sum(-1)
    return mean, w.sum(-1), (w * (y - mean[..., None]) ** 2).sum(-1)


def hartung_knapp(y: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard error as Hartung and Knapp write them, for variances v + tau**2 of the effects y."""
    mean, weights, q = squares(y, v)
    return mean, np.sqrt(q / (y.shape[-1] - 1) / weights)


def draw(cells: int, tau: float, spread: float, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(experiments, cells) of true effects, observed effects and their variances, around 0 and in points.

    The sd of a pair is 0.9 points, from cell to cell by a lognormal factor of exp(spread).
    """
    rng = np.random.default_rng([cells, int(10 * tau), int(10 * spread), seed])
    true = tau * rng.standard_normal((EXPERIMENTS, cells))
    sd = 0.9 * np.exp(spread * rng.standard_normal((EXPERIMENTS, cells)))
    d = true[..., None] + sd[..., None] * rng.standard_normal((EXPERIMENTS, cells, PAIRS))
    return true, d.mean(-1), d.var(-1, ddof=1) / PAIRS


def test_the_reference_is_hartung_and_knapp_as_published():
    """The package metafor of R prints these for log risk ratios, rma(yi, vi, test="knha")."""
    a, b, c, d = BCG.T
    y, v = np.log(a / (a + b)) - np.log(c / (c + d)), 1 / a - 1 / (a + b) + 1 / c - 1 / (c + d)
    tau2 = reml(y, v)
    mean, se = hartung_knapp(y, v + tau2)
    half = stats.t.isf(0.025, len(y) - 1) * se
    assert (tau2, mean, se, mean / se) == pytest.approx((0.3132, -0.7145, 0.1808, -3.9522), abs=1e-4)
    assert (mean - half, mean + half) == pytest.approx((-1.1084, -0.3206), abs=1e-4)
    assert 2 * stats.t.sf(-mean / se, 12) == pytest.approx(0.0019, abs=5e-5)


@pytest.mark.parametrize("k", [2, 4, 9])
def test_with_equal_variances_it_is_hartung_and_knapp(k):
    y = np.random.default_rng(k).normal(0.4, 0.9, k)
    for variance in (0.05, 5.0):  # whatever tau the two leave
        v = np.full(k, variance)
        mean, se = hartung_knapp(y, v + paule_mandel(y, v))
        found = pool(y, v, margin=1.0)
        half = stats.t.isf(0.025, k - 1) * se
        assert (found.mean, found.low, found.high) == pytest.approx((mean, mean - half, mean + half))
        assert found.tau == pytest.approx(math.sqrt(paule_mandel(y, v)), abs=1e-6) == math.sqrt(max(reml(y, v), 0))
        assert found.p == pytest.approx(2 * stats.t.sf(abs(mean) / se, k - 1))


@pytest.mark.parametrize("k", [3, 8])
def test_a_new_cell_is_one_further_observation(k):
    """The interval is that of all values which a two-sample t test, one sample of size one, would not reject."""
    y = np.random.default_rng(k).normal(0.4, 0.9, k)
    found = pool(y, np.full(k, 0.1), margin=1.0)
    for edge in (found.new_low, found.new_high):
        assert stats.ttest_ind(y, [edge]).pvalue == pytest.approx(0.05)


def test_cells_come_from_their_pairs():
    rng = np.random.default_rng(0)
    pairs = [rng.normal(0.5, 1, 6) for _ in range(5)]
    found = pool_pairs(pairs, margin=1.0)
    assert found == pool([d.mean() for d in pairs], [stats.sem(d) ** 2 for d in pairs], 1.0)
    assert found.better == np.mean([d.mean() > 0 for d in pairs])
    assert found.new_low < found.low < found.mean < found.high < found.new_high
    turned = pool_pairs([-d for d in pairs], margin=1.0)
    assert (turned.mean, turned.low, turned.tau, turned.p) == pytest.approx(
        (-found.mean, -found.high, found.tau, found.p)
    )
    assert [pool(y, np.ones_like(y), 1.0).claimable for y in np.split(np.arange(12.0), [3, 7])] == [False, True, True]
    assert FEWEST_CELLS == 4


def test_the_simulations_below_decide_as_the_tool_does():
    _, y, v = draw(6, 0.6, 0.7, seed=0)
    mean, sd = y.mean(-1), y.std(-1, ddof=1)
    for i in range(20):
        found = pool(y[i], v[i], 1.0)
        assert found.p == pytest.approx(t_test_p(mean[i], sd[i], 6))
        assert found.p_equivalence == pytest.approx(equivalence_p(mean[i], sd[i], 6, 1.0))
        assert (found.low, found.high) == pytest.approx(t_interval(mean[i], sd[i], 6))
        assert (found.new_low, found.new_high) == pytest.approx(new_cell(mean, sd, 6)[:, i])


def new_cell(mean: np.ndarray, sd: np.ndarray, k: int) -> np.ndarray:
    half = stats.t.isf(0.025, k - 1) * sd * math.sqrt(1 + 1 / k)
    return np.stack([mean - half, mean + half])


DESIGNS = [(k, tau, spread) for k in (4, 6, 12) for tau in (0.0, 0.3, 0.6) for spread in (0.0, 0.7)]


@pytest.mark.parametrize(("k", "tau", "spread"), DESIGNS)
def test_equal_arms_are_told_apart_at_most_5_percent_of_the_time(k, tau, spread):
    """And the interval of the mean covers 0 in all other cases, for both are the same test."""
    _, y, _ = draw(k, tau, spread, seed=1)
    rate = np.mean(t_test_p(y.mean(-1), y.std(-1, ddof=1), k) <= 0.05)
    print(f"{k} cells, tau {tau}, spread {spread}: {rate:.4f}")
    assert 0.02 < rate <= 0.05 + 2 * ERROR


@pytest.mark.parametrize(("k", "tau", "spread"), DESIGNS)
def test_an_effect_of_the_margin_is_denied_at_most_5_percent_of_the_time(k, tau, spread):
    _, y, _ = draw(k, tau, spread, seed=2)
    assert np.mean(equivalence_p(y.mean(-1) + 1, y.std(-1, ddof=1), k, 1.0) <= 0.05) <= 0.05 + 3 * ERROR


@pytest.mark.parametrize(("k", "tau", "spread"), DESIGNS)
def test_the_interval_of_a_new_cell_covers_it(k, tau, spread):
    """Its true effect at least at the nominal rate; what it shows exactly so, if cells have the same variance."""
    true, y, _ = draw(k + 1, tau, spread, seed=3)
    low, high = new_cell(y[:, :k].mean(-1), y[:, :k].std(-1, ddof=1), k)
    held, shown = ((low <= new) & (new <= high) for new in (true[:, k], y[:, k]))
    print(f"{k} cells, tau {tau}, spread {spread}: true {held.mean():.4f}, shown {shown.mean():.4f}")
    assert held.mean() >= 0.95 - 2 * ERROR
    assert shown.mean() >= 0.9 and (spread or abs(shown.mean() - 0.95) < 4 * ERROR)


def test_weights_and_tau_from_six_pairs_would_not_hold():
    """Why the usual choices are not made: both fall short of their nominal rates here."""
    true, y, v = draw(7, 0.3, 0.7, seed=4)
    tau2 = paule_mandel(y[:, :6], v[:, :6])
    mean, se = hartung_knapp(y[:, :6], v[:, :6] + tau2[:, None])
    bar = stats.t.isf(0.025, 5)
    assert np.mean(np.abs(mean) > bar * se) > 0.07
    assert np.mean(np.abs(true[:, 6] - mean) <= bar * np.sqrt(tau2 + se**2)) < 0.92
