"""Whoever follows the tool's own advice is misled at most 5 % of the time: levels, advice, simulations."""

import math

import numpy as np
import pytest
from scipy import stats

from utils.compare.statistics.looks import ALPHA, SPENT, effect_level, equivalence_level, seeds_afresh, seeds_more
from utils.compare.statistics.paired import (
    FEWEST,
    effect_power,
    equivalence_p,
    equivalence_power,
    holm,
    sign_flip_p,
    t_test_p,
)
from utils.compare.statistics.verdict import verdicts

EXPERIMENTS = 10_000
AT_MOST = 0.05 + 2 * math.sqrt(0.05 * 0.95 / EXPERIMENTS)  # 5 % and two binomial standard errors
MARGIN = 0.01


def draw(shape: str, arms: int, max_seeds: int, sd: float, mean: float = 0.0) -> np.ndarray:
    """Differences (experiments, arms, seeds) of the given sd and mean; several arms share the runs of the reference."""
    rng = np.random.default_rng([arms, max_seeds, int(1e4 * sd)])
    runs = EXPERIMENTS, arms + 1, max_seeds
    noise = rng.standard_normal(runs) if shape == "normal" else rng.standard_t(3, runs) / math.sqrt(3)
    if arms == 1:
        return mean + sd * noise[:, :1]
    return mean + sd * (noise[:, 1:] - noise[:, :1]) / math.sqrt(2)


def experiment(d: np.ndarray, start: int, max_seeds: int, every: bool = False) -> tuple[np.ndarray, np.ndarray, list]:
    """Claims of an effect and of equivalence (experiments, arms) at any look, and the looks of each experiment.

    From `start` seeds on, adds what the undecided arms ask for, or one seed at a time with `every`. Decides as
    `verdicts` does, for all experiments with the same looks at once: the first test below compares them.
    """
    count, arms, _ = d.shape
    effect, alike, seen = np.zeros((count, arms), bool), np.zeros((count, arms), bool), [()] * count
    todo = [((start,), np.arange(count))]
    while todo:
        looks, who = todo.pop()
        n = looks[-1]
        x = d[who, :, :n]
        mean, sd = x.mean(-1), x.std(-1, ddof=1)
        level, level_alike = effect_level(looks, max_seeds, arms), equivalence_level(looks, max_seeds, arms)
        p = t_test_p(mean, sd, n)
        for i in np.flatnonzero((holm(p) <= level).any(1)):  # the sign-flip p can only raise p
            p[i] = [max(p[i, a], sign_flip_p(x[i, a])) for a in range(arms)]
        claims = (holm(p) <= level) & (n >= FEWEST)
        same = ~claims & (holm(equivalence_p(mean, sd, n, MARGIN)) <= level_alike) & (n >= FEWEST)
        effect[who] |= claims
        alike[who] |= same
        for i in who:
            seen[i] = looks
        if n == max_seeds:
            continue
        asked = np.where(claims | same, 0, 1 if every else seeds_more(mean, sd, looks, max_seeds, MARGIN, arms)).max(1)
        todo += [((*looks, n + int(k)), who[asked == k]) for k in np.unique(asked) if k]
    return effect, alike, seen


@pytest.mark.slow
def test_the_simulation_decides_as_the_tool_does():
    d = draw("normal", 2, 12, 0.008, 0.006)[:25]
    effect, alike, seen = experiment(d, 6, 12)
    kinds = set()
    for i in range(len(d)):
        n, looks, claims = 6, [], np.zeros((2, 2), bool)
        while True:
            reference = np.full(n, 0.5)
            told = verdicts(reference, {"a": 0.5 + d[i, 0, :n], "b": 0.5 + d[i, 1, :n]}, looks, 12, MARGIN).values()
            looks.append(n)
            claims |= [[v.kind in ("helps", "hurts"), v.kind == "no difference"] for v in told]
            kinds |= {v.kind for v in told}
            more = max(v.seeds_more for v in told)
            if not more:
                break
            n += more
        assert tuple(looks) == seen[i]
        np.testing.assert_array_equal(claims, np.stack([effect[i], alike[i]], 1))
    assert kinds >= {"helps", "no difference", "undecided"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "arms", "start", "max_seeds"),
    [("normal", 1, *design) for design in [(6, 6), (3, 10), (6, 12), (8, 16), (6, 20)]]
    + [("normal", 2, 6, 12), ("normal", 3, 8, 16), ("t3", 1, 8, 16), ("t3", 2, 6, 12)],
)
def test_equal_arms_are_told_apart_at_most_5_percent_of_the_time(shape, arms, start, max_seeds):
    effect, _, seen = experiment(draw(shape, arms, max_seeds, sd=0.03), start, max_seeds)
    rate = effect.any(1).mean()
    print(f"{shape} {arms} arm(s) {start} -> {max_seeds}: {rate:.4f}, {np.mean([len(s) for s in seen]):.2f} looks")
    assert 0.01 < rate <= AT_MOST  # and not because nothing is ever claimed
    assert start == max_seeds or max(len(s) for s in seen) > 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "arms", "start", "max_seeds", "sd"),
    [("normal", 1, 6, 12, 0.01), ("normal", 1, 6, 20, 0.02), ("normal", 2, 6, 12, 0.01), ("t3", 1, 8, 16, 0.01)],
)
def test_a_difference_of_the_margin_is_denied_at_most_5_percent_of_the_time(shape, arms, start, max_seeds, sd):
    _, alike, seen = experiment(draw(shape, arms, max_seeds, sd, mean=MARGIN), start, max_seeds)
    rate = alike.any(1).mean()
    print(f"{shape} {arms} arm(s) {start} -> {max_seeds}, sd {sd}: {rate:.4f}")
    assert 0.01 < rate <= AT_MOST and max(len(s) for s in seen) > 1


@pytest.mark.slow
def test_looking_at_every_seed_stays_honest_and_a_fixed_level_would_not():
    d = draw("normal", 1, 20, sd=0.03)
    assert 0.03 < experiment(d, 6, 20, every=True)[0].mean() <= AT_MOST
    peeks = [stats.ttest_1samp(d[:, 0, :n], 0, axis=1).pvalue <= 0.05 for n in range(6, 21)]
    assert np.any(peeks, 0).mean() > 0.14


@pytest.mark.slow
def test_power_of_the_whole_procedure():
    """An effect that one look at max_seeds would find 80 to 90 % of the time is still found, with fewer seeds."""
    d = draw("normal", 1, 16, sd=0.012, mean=0.0095)
    effect, _, seen = experiment(d, 8, 16)
    once = effect_power(0.0095, 0.012, 16, ALPHA)
    print(f"one look at 16: {once:.3f}; advice from 8: {effect.mean():.3f}, {np.mean([s[-1] for s in seen]):.1f} seeds")
    assert 0.8 < once < 0.9 and once - 0.12 < effect.mean() < once
    assert np.mean([s[-1] for s in seen]) < 14.5


@pytest.mark.parametrize("arms", [1, 3])
@pytest.mark.parametrize(("looks", "max_seeds"), [((8, 16), 16), ((6, 9, 14), 20), ((7, 8, 9, 20), 20)])
def test_levels_spend_what_they_may(looks, max_seeds, arms):
    """P(no claim) by scipy's multivariate normal at the levels of all looks: the rest is what was spent."""
    n = np.array(looks)
    law = stats.multivariate_normal(cov=np.sqrt(np.minimum.outer(n, n) / np.maximum.outer(n, n)))

    def spent(levels):
        return 1 - law.cdf(np.minimum(stats.norm.isf(levels), 9), rng=np.random.default_rng(0))

    sofar = [looks[: k + 1] for k in range(len(looks))]
    share = SPENT * looks[-1] / max_seeds / arms
    assert spent([equivalence_level(s, max_seeds, arms) / arms for s in sofar]) == pytest.approx(share, rel=0.005)
    effect = [effect_level(s, max_seeds, arms) / (2 * arms) for s in sofar]
    assert 0.9 * share / 2 - 1 / 2 ** looks[-1] < spent(effect) <= 1.005 * share / 2
    assert effect == pytest.approx([math.floor(e * 2**k + 1e-6) / 2**k for e, k in zip(effect, looks, strict=True)])


def test_levels_of_one_look():
    assert [effect_level((n,), n) for n in (4, 5, 6, 8)] == [0, 0, 2 / 64, 12 / 256]  # multiples of 2 / 2**n up to 0.05
    assert [equivalence_level((n,), n) for n in (5, 6, 30)] == pytest.approx([0, 0.05, 0.05])
    assert effect_level((30,), 30) == pytest.approx(0.05, rel=1e-5)


def test_looks_too_early_to_claim_cost_nothing():
    assert effect_level((2, 3, 5, 12), 12) == effect_level((5, 12), 12) == pytest.approx(SPENT, rel=0.02)
    assert effect_level((10, 12), 12) < 0.8 * SPENT
    assert effect_level((12, 14), 12) < 0.01  # past the declared end next to nothing is left


@pytest.mark.parametrize(("mean", "sd"), [(0.01, 0.011), (0.0, 0.012), (0.004, 0.007), (-0.012, 0.015), (0.005, 0.03)])
def test_advice_is_the_first_look_with_80_percent_power(mean, sd):
    looks, last = (8,), 24
    power = {}
    for n in range(12, last):
        to = (*looks, n)
        power[n] = max(
            effect_power(mean, sd, n, effect_level(to, last)),
            equivalence_power(mean, sd, n, equivalence_level(to, last), MARGIN),
        )
    first = next((n for n, found in power.items() if found >= 0.8), last)
    assert seeds_more(mean, sd, looks, last, MARGIN) == first - 8
    alone = seeds_afresh(mean, sd, MARGIN)
    assert alone <= first or first == last
    assert max(effect_power(mean, sd, alone, ALPHA), equivalence_power(mean, sd, alone, ALPHA, MARGIN)) >= 0.8
    assert max(effect_power(mean, sd, alone - 1, ALPHA), equivalence_power(mean, sd, alone - 1, ALPHA, MARGIN)) < 0.8


def test_advice_never_exceeds_max_seeds_and_always_moves():
    mean, sd = np.meshgrid(np.linspace(-0.03, 0.03, 7), [0.0, 1e-6, 0.01, 0.2])
    for now in (2, 5, 6, 11, 12, 13):
        more = seeds_more(mean, sd, (now,), 12, MARGIN)
        assert more.shape == mean.shape
        assert (more == 0).all() if now >= 12 else (more >= 1).all() and (now + more <= 12).all()
    assert len(np.unique(seeds_more(mean, sd, (5,), 12, MARGIN))) == 1  # too early to claim: says nothing of the pairs
    assert len(np.unique(seeds_more(mean, sd, (8,), 24, MARGIN))) > 1
    assert seeds_afresh(0.005, 1.0, MARGIN) is None
