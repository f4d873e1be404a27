"""From the scores of a comparison to a sentence: helps, hurts, no difference, undecided. PURE."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from utils.compare.statistics.folds import folded
from utils.compare.statistics.looks import ALPHA, effect_level, equivalence_level, seeds_afresh, seeds_more
from utils.compare.statistics.paired import FEWEST, Paired, counted, equivalence_p, holm, paired, t_interval

IDENTICAL = "identical, every pair gave exactly the same score"


@dataclass(frozen=True)
class Verdict:
    """What may be said of one arm against the reference; differences are fractions of mAP."""

    kind: str  # helps | hurts | no difference | undecided
    sentence: str
    paired: Paired
    p_adjusted: float  # paired.p after Holm over the arms; an effect is claimed when it is at most `level`
    level: float
    p_equivalence: float  # after Holm over the arms; equivalence is claimed when it is at most `level_equivalence`
    level_equivalence: float
    seeds_more: int  # seeds to add for a decision at 80 % power, within max_seeds; 0 when decided or none are left
    diverged: tuple[int, int]  # runs of (the reference, the arm) without a finite score, counted as score 0


@dataclass(frozen=True)
class _Plan:
    """What holds for all arms of a comparison at this look; the fields are those of `verdicts` and `Verdict`."""

    looks: tuple[int, ...]
    max_seeds: int
    margin: float
    arms: int
    level: float
    level_equivalence: float


def verdicts(
    reference: ArrayLike,
    arms: Mapping[str, ArrayLike],
    looks: Sequence[int] = (),
    max_seeds: int | None = None,
    margin: float = 0.01,
) -> dict[str, Verdict]:
    """One verdict for each arm; scores are in the order of the seeds, position i of all being one pair (at least two).

    looks: pairs seen at earlier looks, none larger than today's. max_seeds: the last look, declared before the first;
    None when this is the only one. A score that is not finite is that of a run that diverged (`counted`).
    """
    n = len(reference)
    looks = (*sorted({k for k in looks if k != n}), n)
    assert n >= 2 and n == max(looks), "a comparison never loses pairs"
    last = n if max_seeds is None else max_seeds
    levels = effect_level(looks, last, len(arms)), equivalence_level(looks, last, len(arms))
    plan = _Plan(looks, last, margin, len(arms), *levels)
    theirs = counted(reference)
    results = {name: paired(counted(scores) - theirs) for name, scores in arms.items()}
    adjusted = holm([r.p for r in results.values()])
    alike = holm([equivalence_p(r.mean, r.sd, r.n, margin) for r in results.values()])
    judged = {}
    for i, (name, r) in enumerate(results.items()):
        p, p_alike = float(adjusted[i]), float(alike[i])
        kind, more, words = _decide(r, p, p_alike, plan)
        if not theirs.any() and not counted(arms[name]).any():
            kind, more, words = "undecided", 0, "undecided, every run of both scored 0: there is nothing to compare"
        diverged = tuple(int((~np.isfinite(np.asarray(s, float))).sum()) for s in (reference, arms[name]))
        sentence = f"{name}: {words}.{_of_diverged(diverged, n)}"
        judged[name] = Verdict(kind, sentence, r, p, levels[0], p_alike, levels[1], more, diverged)
    return judged


def fold_verdicts(
    reference: ArrayLike, arms: Mapping[str, ArrayLike], share: float, margin: float = 0.01
) -> dict[str, Verdict]:
    """One verdict for each arm over folds, all of which have ended; position i of all scores is one fold.

    share: pictures of a fold's val / those of its train, see `folded`. There is one look only.
    """
    theirs, n = counted(reference), len(reference)
    results = {name: folded(counted(scores) - theirs, share, margin) for name, scores in arms.items()}
    adjusted, alike = holm([r.p for r in results.values()]), holm([r.p_equivalence for r in results.values()])
    judged = {}
    for i, (name, r) in enumerate(results.items()):
        p, p_alike, enough = float(adjusted[i]), float(alike[i]), n >= FEWEST
        numbers = (
            f"{_points(r.mean)} mAP points (95 % interval {_points(r.low)} to {_points(r.high)}, {n} folds, corrected"
        )
        numbers += f" for the training pictures that folds share, p {p:.2g})"
        if enough and p <= ALPHA:
            kind = "helps" if r.mean > 0 else "hurts"
            words = f"{kind}, {numbers}"
        elif enough and p_alike <= ALPHA:
            kind = "no difference"
            words = (
                f"no difference larger than the margin of {100 * margin:.3g}, {numbers}, equivalence p {p_alike:.2g}"
            )
        else:
            kind = "undecided"
            words = f"undecided, {numbers}" + ("" if enough else f"; under {FEWEST} folds nothing is claimed")
        diverged = tuple(int((~np.isfinite(np.asarray(s, float))).sum()) for s in (reference, arms[name]))
        values = Paired(n, r.mean, r.sd, r.low, r.high, r.p, float("nan"), r.p, enough)
        sentence = f"{name}: {words}.{_of_diverged(diverged, n)}"
        judged[name] = Verdict(kind, sentence, values, p, ALPHA, p_alike, ALPHA, 0, diverged)
    return judged


def _decide(r: Paired, p: float, p_alike: float, plan: _Plan) -> tuple[str, int, str]:
    """(kind, seeds to add, words): an effect first, then equivalence, else undecided."""
    seen = f"{_points(r.mean)} mAP points (95 % interval {_points(r.low)} to {_points(r.high)}, {r.n} pairs"
    if r.claimable and p <= plan.level:
        kind = "helps" if r.mean > 0 else "hurts"
        return kind, 0, f"{kind}, {seen}, p {p:.2g}, at most {plan.level:.2g} was needed); {_size(r, plan)}"
    if r.claimable and p_alike <= plan.level_equivalence:
        needed = f"equivalence p {p_alike:.2g}, at most {plan.level_equivalence:.2g} was needed"
        return (
            "no difference",
            0,
            f"no difference larger than {_margin(plan)}, {seen}, {needed}){_why(r, p_alike, plan)}",
        )
    more = int(seeds_more(r.mean, r.sd, plan.looks, plan.max_seeds, plan.margin, plan.arms))
    same = f"; {IDENTICAL}" if r.mean == r.sd == 0 else ""
    if not r.claimable:
        same += f"; under {FEWEST} pairs no difference can be significant, so nothing is claimed"
    elif not plan.level:
        same += "; too few pairs for any effect to be significant at this look"
    return "undecided", more, f"undecided, {seen}){same}; {_advice(r, more, plan)}"


def _size(r: Paired, plan: _Plan) -> str:
    """The effect against the margin, by the interval at this look's own level (the 95 % one, or wider)."""
    low, high = t_interval(abs(r.mean), r.sd, r.n, 1 - plan.level / plan.arms)
    size = "larger" if low > plan.margin else "real but smaller" if high < plan.margin else "perhaps smaller"
    return f"{size} than {_margin(plan)}"


def _why(r: Paired, p_alike: float, plan: _Plan) -> str:
    """What the 95 % interval does not show: all pairs alike, or equivalence that rests on a narrower one.

    The test at level a succeeds when the 1 - 2a interval lies within the margin, a the level of this arm's Holm step.
    """
    if r.mean == r.sd == 0:
        return f"; {IDENTICAL}"
    if max(-r.low, r.high) < plan.margin:
        return ""
    step = plan.level_equivalence * float(equivalence_p(r.mean, r.sd, r.n, plan.margin)) / p_alike
    low, high = t_interval(r.mean, r.sd, r.n, 1 - 2 * step)
    return f"; the interval of this test, {100 - 200 * step:.3g} %, is {_points(low)} to {_points(high)}"


def _advice(r: Paired, more: int, plan: _Plan) -> str:
    """What to do about an undecided arm."""
    seeds = f"about {more} more seed{'s' * (more > 1)}"
    if more and not plan.level:
        return f"{seeds} for a look that can claim an effect"
    afresh = seeds_afresh(r.mean, r.sd, plan.margin, plan.arms)
    if more and (more < plan.max_seeds - r.n or (afresh is not None and afresh <= plan.max_seeds)):
        return seeds
    new = f"about {afresh} seeds" if afresh is not None else "more than 1000 seeds"
    if more:
        return f"the {more} that --max-seeds {plan.max_seeds} leaves may not be enough, {new} in all would be"
    return f"--max-seeds {plan.max_seeds} is reached, a new comparison would need {new}"


def _of_diverged(diverged: tuple[int, int], n: int) -> str:
    """A further sentence on runs that diverged, or none."""
    lost = [f"{k} of {n} runs of {who}" for k, who in zip(diverged, ("the reference", "this arm"), strict=True) if k]
    return f" Diverged and counted as score 0: {' and '.join(lost)}." if lost else ""


def _margin(plan: _Plan) -> str:
    return f"the margin of {100 * plan.margin:.3g}"


def _points(x: float) -> str:
    return f"{100 * x:+.2f}"
