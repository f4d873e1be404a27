"""What the steps of a check say: a verdict, its evidence, what to do. PURE.

The steps are those of Justin Johnson, EECS 498 (Deep Learning for Computer Vision), lecture 11, "choosing
hyperparameters", and its guide to transfer learning.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

GOOD, LOOK, BAD = "good", "look", "bad"
FIT = 0.9  # mAP50 of a few pictures that were learnt by heart
FEW = 1000  # training pictures; fewer are a small data set
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


def by_heart(scores: Sequence[tuple[int, float]], pictures: int, tiny: float) -> Finding:
    """Step 2. scores: (steps, mAP50 on the pictures that were learnt); tiny: share of boxes smaller than a cell."""
    steps, best = max(scores, key=lambda pair: pair[1])
    title = f"{pictures} pictures by heart, without augmentation and weight decay"
    evidence = "mAP50 on them: " + ", ".join(f"{score:.2f} after {n} steps" for n, score in scores)
    if best >= FIT:
        return Finding(2, title, GOOD, evidence)
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


def falling(tried: Mapping[float, Sequence[float]], lr0: float) -> Finding:
    """Step 3. tried: the losses of the batches at each rate; one that ended early diverged."""
    ends = {lr: _end(losses) / _start(losses) - 1 for lr, losses in tried.items()}
    title = "a rate that lowers the loss within 100 batches"
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


def of_grid(trials: Sequence[Trial], epochs: int) -> Finding:
    """Step 4: a coarse grid of rate and weight decay, a few epochs each, one seed: a direction, no result."""
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


def of_curves(rows: Sequence[Mapping[str, float]]) -> Finding:
    """Step 6: the learning curves of the best run, a row of metrics.csv an epoch."""
    title = "the learning curves of the best run"
    scored = [row for row in rows if "val/mAP50-95" in row and row.get("epoch", 0) > 0]
    y = [row["val/mAP50-95"] for row in scored]
    if len(y) < 4:
        return Finding(6, title, LOOK, f"{len(y)} evaluated epochs", "Too few to read: give more --minutes.")
    seen, advice = (
        [f"mAP50-95 {y[0]:.3f} to {y[-1]:.3f}, best {max(y):.3f} in epoch {int(scored[y.index(max(y))]['epoch'])}"],
        [],
    )
    quarter = max(len(y) // 4, 1)
    if y[len(y) // 3] < 0.1 * max(y):
        seen.append("a flat start")
        advice.append("Flat at first: a shorter warm-up, a higher rate, or weights that know more.")
    late, earlier = sum(y[-quarter:]) / quarter, sum(y[-2 * quarter : -quarter]) / quarter
    if late > 1.02 * earlier:
        seen.append("still rising at the end")
        advice.append("Still rising: more epochs before anything else.")
    elif y[-1] < 0.95 * max(y):
        seen.append("lower at the end than before")
        advice.append("Falling at the end: a decay of the rate, or fewer epochs.")
    train, val = ([_loss(row, part) for row in scored] for part in ("train", "val"))
    if all(map(math.isfinite, [*train, *val])) and train[-1] > 0:
        seen.append(f"loss of train {train[-1]:.2f}, of val {val[-1]:.2f}")
        if val[-1] > 1.05 * min(val) and train[-1] < train[val.index(min(val))]:
            advice.append(
                "The loss of val rises while that of train falls: more augmentation or pictures, a smaller network or "
                "more weight decay."
            )
        elif val[-1] <= 1.05 * train[-1]:
            advice.append("No gap between train and val: a larger network or a longer run may learn more.")
    rising_only = all("rising" in s or "mAP" in s or "loss" in s for s in seen)
    return Finding(6, title, GOOD if rising_only else LOOK, "; ".join(seen), " ".join(advice))


def _loss(row: Mapping[str, float], part: str) -> float:
    return sum(row.get(f"{part}/{name}", math.nan) for name in ("box", "cls", "dfl"))


def transfer(
    pictures: int, known: Sequence[str], names: Sequence[str], epochs: int
) -> tuple[str, dict[str, list[str]]]:
    """Which of the four cases of transfer learning this is, and arms of compare.py that try what the guide says.

    known: classes of the data that the weights know by name; they stand for how near the data are to what was learnt.
    """
    near, few = 2 * len(known) >= len(names), pictures < FEW
    about = f"{pictures} training pictures, {len(known)} of {len(names)} classes known to the weights"
    arms = {"as-set": []}
    if few and near:
        arms |= {"frozen": ["freeze=backbone"], "slow-backbone": ["lr_backbone=0.1"]}
        return f"few pictures, near to what was learnt ({about}): train the head, or hardly move the backbone", arms
    if few:
        arms |= {"slow-backbone": ["lr_backbone=0.1"], "some-frozen": ["freeze=4"]}
        return (
            f"few pictures, far from what was learnt ({about}): the hardest case; keep the first layers, move the rest",
            arms,
        )
    if near:
        arms |= {"slow-backbone": ["lr_backbone=0.3"]}
        return f"many pictures, near to what was learnt ({about}): train everything, the backbone perhaps slower", arms
    return f"many pictures, far from what was learnt ({about}): train everything, longer", arms | {
        "longer": [f"epochs={2 * epochs}"]
    }


def next_commands(words: str, best: Trial | None, arms: Mapping[str, Sequence[str]], epochs: int) -> list[str]:
    """Step 7: commands that try what was found, against the settings as they are; words: of the run."""
    lines = []
    if best:
        own = f"lr0={best.lr0:.2g} weight_decay={best.weight_decay:.2g}"
        lines.append(f"python compare.py {words} --seeds 6 --arm as-set --arm found {own}")
        lines.append(f"python train.py {words} {own} --epochs {epochs}")
    told = " ".join(" ".join(["--arm", name, *own]) for name, own in arms.items())
    return [*lines, f"python compare.py {words} --seeds 6 {told}"]
