"""What the tool says of a comparison: the order of decisions, the sentence, diverged runs, equal scores."""

import dataclasses
import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from utils.compare.statistics.paired import FEWEST, equivalence_p, t_interval
from utils.compare.statistics.verdict import verdicts

MARGIN = 0.01
SPREAD = np.array([1, -1, 2, -2, 0.5, -0.5, 1.5, -1.5, 0.7, -0.7])  # mean 0


def told(mean: float, sd: float, n: int = 8, **more):
    """Verdict on differences of the given mean and about the given sd."""
    reference = np.linspace(0.5, 0.52, n)
    return verdicts(reference, {"warm": reference + mean + sd * (SPREAD[:n] - SPREAD[:n].mean())}, **more)["warm"]


@pytest.mark.parametrize(
    ("mean", "sd", "kind", "words"),
    [
        (0.03, 0.005, "helps", "larger than the margin of 1"),
        (-0.03, 0.005, "hurts", "larger than the margin of 1"),
        (0.004, 0.001, "helps", "real but smaller than the margin of 1"),
        (-0.004, 0.001, "hurts", "real but smaller than the margin of 1"),
        (0.01, 0.005, "helps", "perhaps smaller than the margin of 1"),
        (0.001, 0.005, "no difference", "no difference larger than the margin of 1"),
        (0.004, 0.02, "undecided", "--max-seeds 8 is reached"),
    ],
)
def test_kinds(mean, sd, kind, words):
    v = told(mean, sd)
    assert v.kind == kind and words in v.sentence
    assert f"{100 * mean:+.2f} mAP points (95 % interval {100 * v.paired.low:+.2f} to {100 * v.paired.high:+.2f}" in (
        v.sentence
    )
    assert (v.kind == "helps") == (v.paired.low > 0) and (v.kind == "hurts") == (v.paired.high < 0)
    json.dumps(dataclasses.asdict(v), allow_nan=False)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.lists(st.integers(-30, 30), min_size=2, max_size=12), min_size=1, max_size=3),
    st.integers(2, 12),
    st.integers(0, 8),
    st.lists(st.integers(2, 12), max_size=3),
)
def test_what_a_claim_always_implies(rows, n, spare, looks):
    arms = {f"arm{i}": 0.5 + np.resize(row, n) / 1000 for i, row in enumerate(rows)}
    for v in verdicts(np.full(n, 0.5), arms, [k for k in looks if k <= n], n + spare, MARGIN).values():
        r = v.paired
        assert v.p_adjusted >= r.p == max(r.p_t, r.p_flip) and v.level <= 0.05 and v.level_equivalence <= 0.05
        assert 0 <= v.seeds_more <= spare and (v.kind == "undecided" or v.seeds_more == 0)
        if v.kind in ("helps", "hurts"):
            assert (r.low > 0) if v.kind == "helps" else (r.high < 0)
            assert v.p_adjusted <= v.level
        if v.kind == "no difference":
            holms = equivalence_p(r.mean, r.sd, n, MARGIN) / v.p_equivalence if v.p_equivalence else 1.0
            step = v.level_equivalence * holms
            low, high = t_interval(r.mean, r.sd, n, 1 - 2 * step) if r.sd else (r.mean, r.mean)
            assert -MARGIN <= low and high <= MARGIN
        if n < FEWEST:
            assert v.kind == "undecided" and not r.claimable


@pytest.mark.parametrize("n", [2, 5])
def test_under_six_pairs_nothing_is_claimed_and_it_says_so(n):
    for mean, sd in ((0.1, 0.0001), (0.0001, 0.0001)):  # a huge effect, and none
        v = told(mean, sd, n, max_seeds=8)
        assert v.kind == "undecided" and v.seeds_more == 6 - n
        assert "under 6 pairs no difference can be significant" in v.sentence
        assert f"about {v.seeds_more} more seed" in v.sentence


def test_under_six_pairs_and_no_seeds_left():
    assert "a new comparison would need about 6 seeds" in told(0.1, 0.001, 5).sentence
    assert told(0.1, 0.001, 4, max_seeds=5).seeds_more == 1


def test_advice_is_said_as_counted():
    v = told(0.003, 0.008, 8, max_seeds=24)
    assert v.kind == "undecided" and 0 < v.seeds_more <= 16 and f"about {v.seeds_more} more seeds" in v.sentence
    hard = told(0.005, 0.02, 8, max_seeds=12)
    assert hard.seeds_more == 4
    needed = int(re.search(r"the 4 that --max-seeds 12 leaves may not be enough, about (\d+) seeds", hard.sentence)[1])
    assert needed > 12
    assert told(0.005, 0.02, 8, max_seeds=4 * needed).seeds_more >= needed - 8  # earlier looks cost some


def test_looking_earlier_makes_the_same_pairs_worth_less():
    d = dict(mean=0.006, sd=0.0055, n=10)
    once, again = told(**d), told(**d, looks=[6, 7, 8, 9], max_seeds=20)
    assert once.paired == again.paired and once.level > 2 * again.level
    assert (once.kind, again.kind) == ("helps", "undecided")
    assert told(**d, looks=[10, 10]) == once  # the same look again costs nothing
    with pytest.raises(AssertionError, match="never loses pairs"):
        told(**d, looks=[12])


def test_several_arms_share_the_five_percent():
    reference = np.full(8, 0.5)
    arm = reference + 0.006 + 0.0075 * SPREAD[:8]
    alone = verdicts(reference, {"a": arm})["a"]
    three = verdicts(reference, {"a": arm, "b": reference + 0.01 * SPREAD[:8], "c": reference - 0.01 * SPREAD[:8]})["a"]
    assert three.p_adjusted == min(3 * alone.p_adjusted, 1)


def test_identical_scores_are_called_identical():
    reference = np.array([0.51, 0.5, 0.53, 0.52, 0.5, 0.55])
    v = verdicts(reference, {"again": reference.copy()})["again"]
    assert v.kind == "no difference" and "identical, every pair gave exactly the same score" in v.sentence
    assert v.paired.p == 1 and v.paired.mean == v.paired.sd == 0
    few = verdicts(reference[:3], {"again": reference[:3]}, max_seeds=6)["again"]
    assert few.kind == "undecided" and "identical" in few.sentence and few.seeds_more == 3


def test_equal_differences_that_are_not_zero():
    reference = np.array([0.5, 0.25, 0.75, 0.5, 0.25, 0.75])
    v = verdicts(reference, {"shifted": reference + 0.125})["shifted"]
    assert v.kind == "helps" and v.paired.p == 2 / 64 and v.paired.low == v.paired.high == 0.125


def test_nothing_learned_is_nothing_to_compare():
    v = verdicts(np.zeros(8), {"a": np.zeros(8), "b": [np.nan] * 8}, max_seeds=12)
    assert v["a"].kind == v["b"].kind == "undecided"
    assert "every run of both scored 0" in v["a"].sentence and v["a"].seeds_more == 0
    assert "8 of 8 runs of this arm" in v["b"].sentence


@pytest.mark.parametrize("lost", [np.nan, np.inf, -np.inf])
def test_a_diverged_run_counts_as_score_0_and_is_said(lost):
    reference = np.linspace(0.5, 0.52, 8)
    arm = reference + 0.002
    broken, zero = arm.copy(), arm.copy()
    broken[3], zero[3] = lost, 0.0
    v, same = verdicts(reference, {"a": broken})["a"], verdicts(reference, {"a": zero})["a"]
    assert v.paired == same.paired and v.paired.n == 8
    assert v.diverged == (0, 1) and same.diverged == (0, 0)
    assert v.sentence == f"{same.sentence} Diverged and counted as score 0: 1 of 8 runs of this arm."
    assert verdicts(reference, {"a": arm})["a"].kind != v.kind == "undecided"
    turned = verdicts(broken, {"a": reference})["a"]
    assert turned.diverged == (1, 0) and "1 of 8 runs of the reference" in turned.sentence


def test_an_arm_that_always_diverges_hurts():
    reference = np.linspace(0.5, 0.52, 8)
    assert verdicts(reference, {"a": np.full(8, np.nan)})["a"].kind == "hurts"
