"""Over data sets, over folds, over values of a key: references, and simulated comparisons in which nothing differs."""

import math

import numpy as np
import pytest
from scipy import stats

from utils.compare.statistics.folds import folded
from utils.compare.statistics.paired import paired
from utils.compare.statistics.pooled import pool, pool_pairs
from utils.compare.statistics.sweep import (
    at_best,
    best_values,
    changed_places_p,
    gain_at_best,
    swept,
    usable_width,
    wider,
)

PAIR_SD, RUNS = 0.9, 1500  # points; simulated comparisons


def most(level: float, n: int) -> float:
    """A share of n that a true `level` passes once in forty times: two standard errors above it."""
    return level + 2 * math.sqrt(level * (1 - level) / n)


def hartung_knapp(y: np.ndarray, v: np.ndarray, tau2: float) -> tuple[float, float, float]:
    """Mean and 95 % interval as Hartung and Knapp (2001) write them, with weights 1 / (v + tau2)."""
    w = 1 / (v + tau2)
    mean = (w * y).sum() / w.sum()
    q = (w * (y - mean) ** 2).sum() / ((len(y) - 1) * w.sum())
    half = stats.t.ppf(0.975, len(y) - 1) * math.sqrt(q)
    return mean, mean - half, mean + half


@pytest.mark.parametrize("tau2", [0.0, 0.3, 5.0])
def test_with_equal_variances_the_interval_is_hartungs_and_knapps(tau2):
    y = np.random.default_rng(0).normal(0.5, 1, 7)
    found = pool(y, np.full(7, 0.2), 1.0)
    np.testing.assert_allclose((found.mean, found.low, found.high), hartung_knapp(y, np.full(7, 0.2), tau2))


def test_between_cells_the_spread_is_what_noise_does_not_explain():
    assert pool([1.0, 3.0, 5.0], [1.0, 1.0, 1.0], 1.0).tau == pytest.approx(math.sqrt(4 - 1))
    assert pool([1.0, 1.1, 0.9], [1.0, 1.0, 1.0], 1.0).tau == 0


def test_a_published_example_of_a_prediction_interval():
    """A further value of n normal ones: mean 3.5 sd 1.8708 of 1..6 gives 3.5 -+ 2.5706 * 1.8708 * sqrt(7 / 6)."""
    found = pool(np.arange(1.0, 7.0), np.zeros(6), 1.0)
    half = 2.570582 * 1.870829 * math.sqrt(7 / 6)
    assert (found.new_low, found.new_high) == pytest.approx((3.5 - half, 3.5 + half), abs=1e-5)


def simulated_cells(cells: int, pairs: int, tau: float, effect: float, runs: int = RUNS) -> tuple[np.ndarray, ...]:
    """True effects (runs, cells) and paired differences (runs, cells, pairs) in points; unequal noise in the cells."""
    rng = np.random.default_rng([cells, pairs, round(10 * tau)])
    true = effect + tau * rng.standard_normal((runs, cells))
    noise = PAIR_SD * rng.uniform(0.5, 1.5, (runs, cells, 1)) * rng.standard_normal((runs, cells, pairs))
    return true, true[..., None] + noise


@pytest.mark.parametrize("cells", [4, 6, 9])
@pytest.mark.parametrize("tau", [0.0, 0.6])
def test_without_an_effect_at_most_five_percent_claim_one_and_intervals_cover(cells, tau):
    _, differences = simulated_cells(cells, 6, tau, 0.0)
    found = [pool_pairs(d, 1.0) for d in differences]
    claims = np.mean([f.p <= 0.05 for f in found])
    covered = np.mean([f.low <= 0 <= f.high for f in found])
    assert claims <= most(0.05, RUNS) and covered >= 1 - most(0.05, RUNS)
    rng = np.random.default_rng(1)
    new = tau * rng.standard_normal(RUNS)  # the true effect on a new data set, and what six pairs there would show
    shown = new + PAIR_SD * rng.uniform(0.5, 1.5, RUNS) * rng.standard_normal(RUNS) / math.sqrt(6)
    for values, least in ((new, 0.95), (shown, 0.94)):  # unequal noise costs the second up to a percent
        inside = np.mean([f.new_low <= x <= f.new_high for f, x in zip(found, values, strict=True)])
        assert inside >= 1 - most(1 - least, RUNS)


@pytest.mark.parametrize("effect", [1.0, -1.0])
def test_an_effect_on_the_margin_is_rarely_called_none(effect):
    _, differences = simulated_cells(6, 6, 0.3, effect)
    assert np.mean([pool_pairs(d, 1.0).p_equivalence <= 0.05 for d in differences]) <= most(0.05, RUNS)


def test_equal_weights_hold_five_percent_where_weights_by_six_pairs_do_not():
    """Why `pool` does not weight: the same comparisons, weighted by the variance inside each cell (tau 0)."""
    _, differences = simulated_cells(9, 6, 0.0, 0.0)
    y, v = differences.mean(-1), differences.var(-1, ddof=1) / 6
    weighted = [hartung_knapp(a, b, 0.0) for a, b in zip(y, v, strict=True)]
    assert np.mean([low > 0 or high < 0 for _, low, high in weighted]) > most(0.05, RUNS)


def test_folds_count_for_less_than_seeds():
    d = np.array([0.4, 1.2, 0.1, 0.9, 0.3, 0.8])
    found, plain = folded(d, 0.0, 1.0), paired(d)
    assert (found.low, found.high, found.p) == pytest.approx((plain.low, plain.high, plain.p_t))
    share = folded(d, 1 / 5, 1.0)
    t = d.mean() / math.sqrt((1 / 6 + 1 / 5) * d.var(ddof=1))  # Nadeau and Bengio (2003), as written there
    assert share.p == pytest.approx(2 * stats.t.sf(t, 5)) and share.low < plain.low


def fold_differences(rng: np.random.Generator, folds: int, repeats: int, n: int = 60) -> np.ndarray:
    """Two linear models that are equally good in the long run, by least squares on the pictures of all other folds.

    Each sees two of four features that count the same; the models of different folds share training pictures.
    """
    x = rng.standard_normal((n, 4))
    y, differences = x.sum(1) / 2 + rng.standard_normal(n), []
    for _ in range(repeats):
        number = rng.permutation(n) % folds
        for k in range(folds):
            held, errors = number == k, []
            for part in (x[:, :2], x[:, 2:]):
                weights = np.linalg.lstsq(part[~held], y[~held], rcond=None)[0]
                errors.append(((y[held] - part[held] @ weights) ** 2).mean())
            differences.append(errors[0] - errors[1])
    return np.array(differences)


@pytest.mark.parametrize(("folds", "repeats"), [(6, 1), (5, 3)])
def test_over_folds_at_most_five_percent_claim_an_effect(folds, repeats):
    """With real models that share training data; without the correction three repeats claim in a quarter of them."""
    rng, runs = np.random.default_rng(3), 800
    drawn = [fold_differences(rng, folds, repeats) for _ in range(runs)]
    assert np.mean([folded(d, 1 / (folds - 1), 1.0).p <= 0.05 for d in drawn]) <= most(0.05, runs)
    if repeats > 1:
        assert np.mean([paired(d).p_t <= 0.05 for d in drawn]) > 0.15


def test_the_best_value_is_chosen_on_the_other_half_of_the_seeds():
    scores = np.array(
        [[0.1, 0.9], [0.8, 0.2], [0.1, 0.9], [0.8, 0.2]]
    )  # even seeds like the second, odd ones the first
    assert tuple(map(int, best_values(scores))) == (1, 0)
    np.testing.assert_array_equal(at_best(scores), [0.1, 0.2, 0.1, 0.2])


def test_the_usable_range_is_measured_in_decades_along_straight_lines():
    values = np.array([0.001, 0.01, 0.1])
    assert usable_width(np.array([[0.5, 0.5, 0.5]]), values, np.array(0.4)) == pytest.approx(2)
    assert usable_width(np.array([[0.0, 1.0, 0.0]]), values, np.array(0.75)) == pytest.approx(0.5)
    assert usable_width(np.array([[0.0, 0.0, 1.0]]), values, np.array(0.5)) == pytest.approx(0.5)
    assert usable_width(np.array([[0.0, 0.0, 0.0]]), values, np.array(0.5)) == 0
    fine = np.linspace(-3, -1, 200_001)
    scores = np.random.default_rng(0).random(3)
    drawn = np.interp(fine, [-3, -2, -1], scores)
    assert usable_width(scores[None], values, np.array(0.4)) == pytest.approx(2 * (drawn >= 0.4).mean(), abs=1e-4)


def test_a_run_that_diverged_widens_nothing():
    reference = np.full((6, 3), 0.5)
    lost = reference.copy()
    lost[:, 2] = 0.0
    found = swept(reference, lost, wider(np.array([0.01, 0.1, 1.0]), 0.01), shift=False)
    assert found.mean == pytest.approx(-1, abs=0.03) and found.p == pytest.approx(2 / 64)


def simulated_sweep(rng: np.random.Generator, seeds: int, heavy: bool) -> np.ndarray:
    """Scores (seeds, 4 values) in mAP of one arm: a hump, shared luck of a seed left out; high values may diverge."""
    curve = 0.5 - 0.03 * np.abs(np.arange(4) - 1.3)
    noise = rng.standard_t(2.5, (seeds, 4)) if heavy else rng.standard_normal((seeds, 4))
    scores = curve + 0.01 * noise
    return np.where(rng.random((seeds, 4)) < np.array([0, 0, 0.1, 0.5]), 0.0, scores)


@pytest.mark.slow
@pytest.mark.parametrize("heavy", [False, True])
@pytest.mark.parametrize("seeds", [6, 9])
def test_over_a_sweep_at_most_five_percent_claim_an_effect(seeds, heavy):
    rng, runs = np.random.default_rng([seeds, heavy]), 500
    values = np.array([0.001, 0.003, 0.01, 0.03])
    claims = {"best": 0, "range": 0}
    for _ in range(runs):
        reference, arm = simulated_sweep(rng, seeds, heavy), simulated_sweep(rng, seeds, heavy)
        claims["best"] += changed_places_p(reference, arm, gain_at_best) <= 0.05
        claims["range"] += changed_places_p(reference, arm, wider(values, 0.01)) <= 0.05
    assert max(claims.values()) / runs <= most(0.05, runs), claims


def test_the_interval_of_a_gain_holds_the_amounts_that_are_not_rejected():
    rng = np.random.default_rng(0)
    reference = 0.5 + 0.01 * rng.standard_normal((6, 3)) + np.array([0, 0.05, 0])
    arm = reference + 0.02 + 0.003 * rng.standard_normal((6, 3))
    found = swept(reference, arm, gain_at_best, shift=True)
    assert found.low < 0.02 < found.high and found.p == pytest.approx(2 / 64)
    for amount, inside in ((found.low - 1e-4, False), (found.high + 1e-4, False), (found.mean, True)):
        assert (changed_places_p(reference, arm - amount, gain_at_best) > 0.05) == inside
    few = swept(reference[:4], arm[:4], gain_at_best, shift=True)  # 2 of 16 changes: no amount can be rejected
    assert (few.low, few.high) == (-np.inf, np.inf)
