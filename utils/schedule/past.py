"""How far runs that differ in their length are one and the same: PURE.

A run can be extended from a batch up to which the longer one would have done the very same.
"""

from dataclasses import dataclass, replace

from utils.config.schema import Hyp
from utils.schedule.plan import group_names
from utils.schedule.rates import Schedule, build_schedule, steps

TOO_SHORT = "past its warm-up and its first epoch no optimizer step comes before its last batch"
AUTO = "ema_tau: auto chooses the average's span by the length of the run (ema_decay=0.95 ema_tau=10: always 20 steps)"
BRANCHES = "the two branches of the head are weighed by epoch, from 0.8 to 0.1 at the end of a run of any length"
MUCH_LONGER = 10  # times its epochs: what depends on the length of a run shows by then


@dataclass(frozen=True)
class Alike:
    """The batches, from the first on, that two runs have alike, and why the next one is not."""

    batches: int
    why: str


def alike(hyp: Hyp, other: Hyp, nb: int, two_branches: bool = False) -> Alike:
    """What two runs of `nb` batches an epoch have in common, which are the same but for their length and their end.

    two_branches: the head of the network has a one-to-one branch, whose weight in the loss grows towards the end. What
    the optimizer holds, when it steps, the average and the pictures are compared batch by batch.
    """
    length = f"in a run of {hyp.epochs} epochs, and {{}} in one of {other.epochs}"
    a, b = (build_schedule(each, nb, each.batch, group_names(each)) for each in (hyp, other))
    ends = [max(each.epochs - each.close_mosaic, 0) for each in (hyp, other)]  # epochs with mosaic
    limits = [Alike(min(a.total, b.total) - 1, TOO_SHORT)]
    if ends[0] != ends[1]:
        why = f"close_mosaic: the mosaic ends after epoch {ends[0]} {length.format(f'after epoch {ends[1]}')}"
        limits.append(Alike(min(ends) * nb, why))
    if two_branches:
        limits.append(Alike(nb, BRANCHES))
    if hyp.ema_tau == "auto" and hyp.ema_decay:
        limits.append(Alike(0, AUTO))
    nearest = min(limits, key=lambda limit: limit.batches)
    first = next((ni for ni in range(nearest.batches) if a(ni) != b(ni)), nearest.batches)
    if first == nearest.batches:
        return nearest
    return Alike(first, _difference(a, b, first, hyp, length))


def _difference(a: Schedule, b: Schedule, ni: int, hyp: Hyp, length: str) -> str:
    """What batch `ni` has of two schedules that differ there, in words."""
    if a.nw != b.nw and ni < max(a.nw, b.nw):
        by = f"warmup_max {hyp.warmup_max:g}" if hyp.recipe == "preheat" else f"recipe {hyp.recipe}"
        return f"the warm-up takes {a.nw} batches {length.format(b.nw)} ({by})"
    mine, its = a(ni), b(ni)
    pairs = [(f"lr/{name}", lr, its.lr[name]) for name, lr in mine.lr.items()]
    pairs += [("momentum", mine.momentum, its.momentum), ("accumulate", mine.accumulate, its.accumulate)]
    name, x, y = next(pair for pair in pairs if pair[1] != pair[2])
    digits = next(d for d in range(3, 18) if f"{x:.{d}g}" != f"{y:.{d}g}")
    return f"with decay: {hyp.decay} batch {ni} has {name} {x:.{digits}g} {length.format(f'{y:.{digits}g}')}"


def stable_part(schedule: Schedule, hyp: Hyp, two_branches: bool = False) -> Alike:
    """The batches after which the state is kept that a longer run goes on from, 0 where there are none; and why.

    They end with the last optimizer step that a run of any greater length has alike. A stretch that is over with the
    warm-up, or within the first epoch, is worth nothing.
    """
    longer = hyp.model_copy(update={"epochs": hyp.epochs * MUCH_LONGER})
    same, least = alike(hyp, longer, schedule.nb, two_branches), max(schedule.nw, schedule.nb)
    ends = (ni + 1 for ni, _ in steps(schedule) if ni < same.batches) if same.batches > least else ()
    last = max(ends, default=0)
    if last > least:
        return replace(same, batches=last)
    return Alike(0, same.why if same.batches <= least else TOO_SHORT)
