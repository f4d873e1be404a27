"""What the steps of a check say: a verdict, its evidence, what to do. PURE.

The steps are those of Justin Johnson, EECS 498 (Deep Learning for Computer Vision), lecture 11, "choosing
hyperparameters", and its guide to transfer learning.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

GOOD, LOOK, BAD = "good", "look", "bad"
FIT = 0.9  # mAP50 of a few pictures that were learnt by heart
FALLS = 0.05  # part of the first loss by which a rate has to lower it


@dataclass(frozen=True)
class Finding:
    """What one step of a check found."""

    step: int
    title: str
    verdict: str  # good | look | bad
    evidence: str
    advice: str = ""


@dataclass(frozen=True)
class Trial:
    """One run of the grid, or one of the longer ones."""

    lr0: float
    weight_decay: float
    score: float | None  # mAP50-95 after its last epoch; None: it diverged


def at_start(parts: Mapping[str, float], implied: Mapping[str, float], carried: Sequence[str]) -> Finding:
    """Step 1. parts: the losses of the first batch; implied: those of the same network whose classes only know their
    prior, and whose sides are spread evenly over all distances; carried: classes whose weights were known already.
    """
    evidence = ", ".join(
        f"{k} {v:.3f} (implied {implied[k]:.3f})" if k in implied else f"{k} {v:.3f}" for k, v in parts.items()
    )
    title = "the loss before the first step"
    if not all(map(math.isfinite, parts.values())):
        return Finding(
            1, title, BAD, evidence, "A loss without a value: look at the labels and at amp (try --amp off)."
        )
    high = [k for k, v in implied.items() if parts[k] > 2 * v]
    if high:
        advice = f"{' and '.join(high)} begins far above: look at the class list, the boxes and the weights."
        return Finding(1, title, BAD if parts[high[0]] > 10 * implied[high[0]] else LOOK, evidence, advice)
    why = f"; the classes {', '.join(carried)} are known already, so cls may begin lower" if carried else ""
    return Finding(1, title, GOOD, evidence + why)


def by_heart(scores: Sequence[tuple[int, float]], pictures: int, tiny: float, cut: bool = False) -> Finding:
    """Step 2. scores: (steps, mAP50 on the pictures that were learnt); tiny: share of boxes smaller than a cell.

    cut: time was over before all steps were made.
    """
    steps, best = max(scores, key=lambda pair: pair[1])
    title = f"{pictures} pictures by heart, without augmentation and weight decay"
    evidence = "mAP50 on them: " + ", ".join(f"{score:.2f} after {n} steps" for n, score in scores)
    if best >= FIT:
        return Finding(2, title, GOOD, evidence)
    if cut:
        return Finding(2, title, LOOK, f"{evidence}; then its time was over", "More --minutes tell more of it.")
    small = (
        f" {100 * tiny:.0f} % of their boxes are smaller than a cell of the finest level: raise --imgsz."
        if tiny > 0.1
        else ""
    )
    advice = (
        "The network should know so few pictures by heart. Look at their labels (python -m data.index), at the rate "
        f"(step 3), at freeze and head, at --imgsz.{small}"
    )
    return Finding(2, title, LOOK if best >= FIT / 2 else BAD, evidence, advice)


def falling(tried: Mapping[float, Sequence[float]], lr0: float, batches: int) -> Finding:
    """Step 3. tried: the losses of the steps at each rate; batches: of the longest of them."""
    ends = {lr: _end(losses) / _start(losses) - 1 for lr, losses in tried.items()}
    title = f"a rate that lowers the loss within {batches} batches"
    evidence = ", ".join(
        f"{lr:.2g}: {100 * end:+.0f} %" if math.isfinite(end) else f"{lr:.2g}: diverged" for lr, end in ends.items()
    )
    best = best_rate(tried)
    if not math.isfinite(ends[best]) or ends[best] > -FALLS:
        return Finding(3, title, BAD, evidence, "No rate lowers the loss: python tune.py lr looks at all of them.")
    own = ends.get(lr0, math.nan)
    if own <= -FALLS:
        return Finding(3, title, GOOD, f"{evidence}; lr0 is {lr0:g}")
    return Finding(3, title, LOOK, f"{evidence}; lr0 is {lr0:g}", f"lr0 {lr0:g} does not lower it: try {best:.2g}.")


def best_rate(tried: Mapping[float, Sequence[float]]) -> float:
    """The rate with the largest fall."""
    ends = {lr: _end(losses) / _start(losses) for lr, losses in tried.items()}
    return min(ends, key=lambda lr: ends[lr] if math.isfinite(ends[lr]) else math.inf)


def _start(losses: Sequence[float]) -> float:
    few = losses[: max(len(losses) // 10, 1)]
    return sum(few) / len(few)


def _end(losses: Sequence[float]) -> float:
    few = losses[-max(len(losses) // 10, 1) :]
    return sum(few) / len(few)


def of_grid(trials: Sequence[Trial], epochs: int, failed: int = 0) -> Finding:
    """Step 4: a coarse grid of rate and weight decay, a few epochs each, one seed: a direction, no result.

    failed: runs that crashed, and have no score.
    """
    title = f"a coarse grid of lr0 and weight_decay, {epochs} epoch{'s' * (epochs > 1)} each"
    done = [t for t in trials if t.score is not None]
    if not done:
        return Finding(
            4,
            title,
            BAD,
            f"all {len(trials)} runs diverged",
            "Lower lr0, or look at the warnings of the plan (--plan).",
        )
    best, rates = max(done, key=lambda t: t.score), sorted({t.lr0 for t in trials})
    lost = f"; {len(trials) - len(done)} of {len(trials)} diverged" if len(done) < len(trials) else ""
    lost += f"; {failed} failed, see their console.txt" if failed else ""
    evidence = (
        f"best: lr0 {best.lr0:.2g}, weight_decay {best.weight_decay:.2g}, mAP50-95 {best.score:.3f}; "
        f"worst {min(t.score for t in done):.3f}{lost}"
    )
    if len(rates) > 1 and best.lr0 in (rates[0], rates[-1]):
        side = "lower" if best.lr0 == rates[0] else "higher"
        return Finding(4, title, LOOK, evidence, f"The best rate is at the edge of the grid: look at {side} ones.")
    return Finding(4, title, GOOD, evidence, "One seed each: differences of a point or two are noise.")


def of_longer(trials: Sequence[Trial], before: Sequence[Trial], epochs: int) -> Finding:
    """Step 5: the best of the grid, longer and without decay."""
    title = f"the best {len(trials)} for {epochs} epochs, the rate held"
    scores = [(t, t.score if t.score is not None else 0.0) for t in trials]
    best, score = max(scores, key=lambda pair: pair[1])
    evidence = ", ".join(f"lr0 {t.lr0:.2g}, weight_decay {t.weight_decay:.2g}: {s:.3f}" for t, s in scores)
    first = max((t.score or 0.0 for t in before), default=0.0)
    if score > first:
        return Finding(5, title, GOOD, evidence)
    return Finding(
        5, title, LOOK, evidence, f"No better than {first:.3f} of the grid: a lower rate, or decay, is needed sooner."
    )
