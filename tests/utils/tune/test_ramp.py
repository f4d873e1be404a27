"""The range test without a network: rates, smoothing, what a curve suggests."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.tune.lr.ramp import (
    Ramp,
    has_diverged,
    longest_fall,
    middle,
    rates,
    remarks,
    smoothed,
    steepest,
    suggest_rates,
    tenth,
    valley,
)

LR = rates(1e-6, 1.0, 120)


def curve(fall: float, rise: float, height: float = 5.0) -> np.ndarray:
    """A loss over LR that falls around the rate `fall` and rises beyond `rise`."""
    x = np.log10(LR)
    return 2 + height / (1 + np.exp(4 * (x - np.log10(fall)))) + np.exp(3 * (x - np.log10(rise)))


def ramp(loss: np.ndarray, seed: int = 0) -> Ramp:
    return Ramp(seed, LR[: len(loss)], loss, False)


def test_rates_rise_by_the_same_factor():
    factors = LR[1:] / LR[:-1]
    np.testing.assert_allclose(factors, factors[0])
    assert (LR[0], LR[-1], len(LR)) == pytest.approx((1e-6, 1.0, 120))


def test_smoothing_leaves_a_straight_line_alone_and_moves_nothing():
    line = np.linspace(3, 1, 100)
    np.testing.assert_allclose(smoothed(line)[20:-20], line[20:-20])
    spike = np.zeros(101)
    spike[50] = 1.0
    assert smoothed(spike).argmax() == 50
    noise = np.random.default_rng(0).normal(0, 1, 4000)
    assert smoothed(noise).std() < 0.1 * noise.std()


@given(st.lists(st.integers(0, 6), min_size=1, max_size=9))
def test_the_longest_fall_is_the_longest_of_all_series(values):
    y = np.array(values, float)
    found = longest_fall(y)
    assert all(y[a] > y[b] and a < b for a, b in zip(found, found[1:], strict=False))
    every = (c for n in range(1, len(y) + 1) for c in combinations(range(len(y)), n))
    assert len(found) == max(len(c) for c in every if all(y[a] > y[b] for a, b in zip(c, c[1:], strict=False)))


def test_the_steepest_fall_is_where_the_curve_falls():
    for fall in (1e-4, 1e-3, 1e-2):
        found = ramp(curve(fall, 1e3 * fall))
        assert steepest(found) == pytest.approx(fall, rel=0.3)
        assert max(steepest(found), valley(found)) < 10 * tenth(found) <= 1e3 * fall
        assert middle(found) ** 2 == pytest.approx(steepest(found) * 10 * tenth(found))


def test_suggestions_move_with_the_rates_and_not_with_the_size_of_the_loss():
    one = ramp(curve(1e-3, 0.3))
    moved, larger = Ramp(0, 10 * one.lr, one.loss, False), Ramp(0, one.lr, 7 * one.loss, False)
    for rule in (steepest, tenth, valley, middle):
        assert rule(moved) == pytest.approx(10 * rule(one)) and rule(larger) == pytest.approx(rule(one))


def test_where_nothing_falls_nothing_is_suggested():
    rising = ramp(np.linspace(5, 9, 120))
    assert suggest_rates([rising]) == {} and "seed 0" in remarks([rising], {})[0]
    found = suggest_rates([rising, ramp(curve(1e-3, 0.3), seed=1)])
    assert [len(s.each) for s in found.values()] == [1, 1, 1, 1]


def test_seeds_that_disagree_are_named():
    some = [ramp(curve(fall, 0.9)) for fall in (1e-5, 1e-2)]
    assert any("factor of ten" in line for line in remarks(some, suggest_rates(some)))
    alike = [ramp(curve(fall, 0.9)) for fall in (1e-3, 2e-3)]
    assert not any("factor of ten" in line for line in remarks(alike, suggest_rates(alike)))


def test_divergence():
    noise = np.random.default_rng(1).normal(0, 0.3, 200)
    assert not any(has_diverged((5 + noise)[:n]) for n in range(1, 200))
    assert has_diverged([5.0, float("nan")])
    up = np.concatenate([curve(1e-3, 1.0), np.geomspace(10, 1000, 20)])
    first = next(n for n in range(1, len(up)) if has_diverged(up[:n]))
    assert 100 < first < len(up)
