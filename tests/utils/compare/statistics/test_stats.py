"""The tests of paired differences against scipy's own, against slow references, and against simulation."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from utils.compare.statistics.paired import (
    effect_power,
    equivalence_p,
    equivalence_power,
    holm,
    paired,
    pairing_gain,
    sign_flip_p,
    t_interval,
    t_test_p,
)

EXPERIMENTS = 10_000


def within_error(found: float, rate: float, of: int = EXPERIMENTS) -> bool:
    """Whether a simulated share agrees with its nominal rate within four binomial standard errors."""
    return abs(found - rate) < 4 * math.sqrt(rate * (1 - rate) / of)


def scores(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    reference = rng.normal(0.5, 0.01, n)
    return reference, reference + rng.normal(0.004, 0.006, n)


@pytest.mark.parametrize("n", [2, 5, 8, 21])
@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
def test_interval_and_t_test_match_scipy(n, confidence):
    reference, arm = scores(n, seed=n)
    ours, theirs = paired(arm - reference, confidence), stats.ttest_rel(arm, reference)
    interval = theirs.confidence_interval(confidence)
    assert (ours.low, ours.high) == pytest.approx((interval.low, interval.high), rel=1e-9)
    assert ours.p_t == pytest.approx(theirs.pvalue, rel=1e-9)
    assert ours.sd == pytest.approx(stats.tstd(arm - reference))
    assert ours.low < ours.mean < ours.high


@pytest.mark.parametrize("n", [2, 5, 6, 9, 12])
def test_sign_flip_matches_scipy_exactly(n):
    for seed in range(3):
        d = np.subtract(*scores(n, seed))
        every = stats.permutation_test((d,), np.mean, permutation_type="samples", n_resamples=np.inf)
        assert sign_flip_p(d) == pytest.approx(every.pvalue, rel=1e-12)


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=9))
def test_sign_flip_counts_ties_whatever_the_scale(d):
    flips = [sum(s * x for s, x in zip(signs, d, strict=True)) for signs in itertools.product((-1, 1), repeat=len(d))]
    p = sum(abs(f) >= abs(sum(d)) for f in flips) / len(flips)  # integers: ties are exact
    assert sign_flip_p(d) == p
    assert sign_flip_p(np.array(d) * 0.1) == p  # 0.1 + 0.2 is not 0.3: ties are off by rounding


def test_sign_flip_of_many_pairs():
    d = np.random.default_rng(3).normal(0.2, 1, 41)
    assert 0 < sign_flip_p(d) == pytest.approx(sign_flip_p(d[:40]), abs=0.1)  # sampled; counted
    assert sign_flip_p(np.ones(30)) == 2 / 2**30


@pytest.mark.parametrize("n", [2, 3, 4, 5, 6, 7])
def test_under_six_pairs_nothing_can_be_claimed(n):
    best = paired(np.linspace(0.1, 0.11, n))  # all of one sign: the smallest p there is
    assert best.p_flip == best.p == 2 / 2**n
    assert best.claimable == (best.p <= 0.05)


def test_equal_differences():
    nothing, something = paired(np.zeros(8)), paired(np.full(8, 0.01))
    assert (nothing.mean, nothing.sd, nothing.low, nothing.high, nothing.p) == (0, 0, 0, 0, 1)
    assert (something.low, something.high, something.p_t, something.p) == (0.01, 0.01, 0, 2 / 2**8)
    assert equivalence_p(0.0, 0.0, 8, 0.01) == 0
    assert equivalence_p(0.02, 0.0, 8, 0.01) == 1
    assert equivalence_p(0.01, 0.0, 8, 0.01) == 0.5  # on the margin: no evidence either way


def slow_holm(p: list[float]) -> list[float]:
    """Smallest level at which Holm's procedure, as he words it, rejects each hypothesis."""
    grid = sorted({min(x * k, 1.0) for x in p for k in range(1, len(p) + 1)} | {1.0})

    def rejected(level: float) -> set[int]:
        out = set()
        for left, i in zip(range(len(p), 0, -1), sorted(range(len(p)), key=p.__getitem__), strict=True):
            if p[i] * left > level and level < 1:
                break
            out.add(i)
        return out

    return [min(level for level in grid if i in rejected(level)) for i in range(len(p))]


@given(st.lists(st.floats(0.001, 1), min_size=1, max_size=6))
def test_holm_matches_the_procedure_written_out(p):
    assert holm(p) == pytest.approx(slow_holm(p))
    assert holm([p, p[::-1]])[1] == pytest.approx(holm(p)[::-1])  # row by row


def test_holm_known_example():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])  # R: p.adjust(p, "holm")


@pytest.mark.parametrize("margin", [0.003, 0.01])
@pytest.mark.parametrize("n", [3, 8])
def test_equivalence_is_two_one_sided_tests(n, margin):
    d = np.subtract(*scores(n, seed=n))
    above = stats.ttest_1samp(d, -margin, alternative="greater").pvalue
    below = stats.ttest_1samp(d, margin, alternative="less").pvalue
    assert equivalence_p(d.mean(), d.std(ddof=1), n, margin) == pytest.approx(max(above, below), rel=1e-9)


def test_equivalence_is_an_interval_within_the_margin():
    d = np.random.default_rng(0).normal(0.002, 0.01, (500, 8))
    mean, sd = d.mean(1), d.std(1, ddof=1)
    low, high = t_interval(mean, sd, 8, 0.9)
    inside = (low > -0.01) & (high < 0.01)
    assert 0 < inside.sum() < 500
    np.testing.assert_array_equal(equivalence_p(mean, sd, 8, 0.01) < 0.05, inside)


@pytest.mark.parametrize("n", [3, 8])
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_interval_covers_at_its_nominal_rate(n, confidence):
    d = np.random.default_rng(n).normal(0.004, 0.01, (EXPERIMENTS, n))
    low, high = t_interval(d.mean(1), d.std(1, ddof=1), n, confidence)
    assert within_error(np.mean((low <= 0.004) & (0.004 <= high)), confidence)


@pytest.mark.parametrize(("n", "effect", "level"), [(6, 1.5, 0.05), (8, 1.2, 0.03), (12, 0.6, 0.05), (9, 0.0, 0.05)])
def test_effect_power_matches_simulation(n, effect, level):
    d = np.random.default_rng(n).normal(effect, 1, (EXPERIMENTS, n))
    found = np.mean(t_test_p(d.mean(1), d.std(1, ddof=1), n) <= level)
    assert within_error(found, effect_power(effect, 1.0, n, level))


@pytest.mark.parametrize(
    ("n", "effect", "sd", "level"), [(8, 0.0, 0.8, 0.05), (12, 0.3, 0.8, 0.03), (7, -0.2, 0.7, 0.05)]
)
def test_equivalence_power_matches_simulation(n, effect, sd, level):
    d = np.random.default_rng(n).normal(effect, sd, (EXPERIMENTS, n))
    found = np.mean(equivalence_p(d.mean(1), d.std(1, ddof=1), n, 1.0) <= level)
    power = equivalence_power(effect, sd, n, level, 1.0)
    assert 0.6 < power < 0.95 and within_error(found, power)


def test_equivalence_power_is_a_lower_bound():
    d = np.random.default_rng(1).normal(0, 1.6, (EXPERIMENTS, 8))
    found = np.mean(equivalence_p(d.mean(1), d.std(1, ddof=1), 8, 1.0) <= 0.05)
    assert 0 <= equivalence_power(0.0, 1.6, 8, 0.05, 1.0) < found < 0.5


def test_what_pairing_bought():
    """Independent arms: nothing. A seed that does the same to both: unpaired over paired variance, as simulated."""
    rng = np.random.default_rng(0)
    seed, own = rng.normal(0.5, 0.02, 20_000), rng.normal(0, 0.01, (2, 20_000))
    assert pairing_gain(*own) == pytest.approx(1, abs=0.05)
    assert pairing_gain(*(seed + own)) == pytest.approx((0.02**2 + 0.01**2) / 0.01**2, rel=0.05)
    assert pairing_gain(seed, seed + 0.01) > 1e6 and pairing_gain([0.5, 0.6], [0.6, 0.5]) == 0.5
    assert pairing_gain([0.5, math.nan], [0.5, math.nan]) == math.inf and math.isnan(pairing_gain([1, 1], [1, 1]))


@pytest.mark.parametrize("n", [4, 6, 9, 30])
def test_power_of_a_large_effect_is_a_number(n):
    effects = np.linspace(0, 40, 161)
    power = effect_power(effects, 1.0, n, 0.05)
    assert power[-1] == pytest.approx(1) and (np.diff(power) > -1e-6).all()
    np.testing.assert_allclose(effect_power(-effects, 1.0, n, 0.05), power)
    same = equivalence_power(effects, 1.0, n, 0.05, 40.0)
    assert same[0] == pytest.approx(1) and same[-1] <= 0.05 + 1e-6 and (np.diff(same) < 1e-6).all()
