"""Warm-up x decay as pure functions of the batch number: nothing to step, nothing to checkpoint.

The value at batch `ni` depends on `ni` and on frozen dataclasses alone, so a resumed run, a plot drawn before the run
and the run itself agree by construction.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from utils.config import Hyp

# t in 0..1 -> 0..1: how much of the way from the start value to the target is covered
WARMUPS: dict[str, Callable[[float], float]] = {
    "none": lambda t: 1.0,
    "linear": lambda t: t,
}

# t in 0..1 -> 1..0: how much of (peak - final) is left
DECAYS: dict[str, Callable[[float], float]] = {
    "constant": lambda t: 1.0,
    "linear": lambda t: 1.0 - t,
    "cosine": lambda t: (1.0 + math.cos(math.pi * t)) / 2.0,
    "one_cycle": lambda t: (1.0 + math.cos(math.pi * t)) / 2.0,  # YOLOv5's word: a falling half cosine, no rise
}


@dataclass(frozen=True)
class Curve:
    """One quantity over a run of `total` batches: from `start` at ni = 0 towards `peak`, decaying to `final`."""

    start: float
    peak: float
    final: float
    nw: int  # warm-up length, batches
    total: int  # length of the run, batches
    warmup: str = "linear"
    decay: str = "cosine"


def value_at(ni: int, c: Curve) -> float:
    """Value of the curve at batch `ni`; warm-up aims at the decayed value, so there is no jump at ni = nw."""
    t = min(ni / max(c.total - 1, 1), 1.0)  # `final` is reached at the last batch
    target = c.final + (c.peak - c.final) * DECAYS[c.decay](t)
    if ni >= c.nw:
        return target
    return c.start + (target - c.start) * WARMUPS[c.warmup](ni / c.nw)


@dataclass(frozen=True)
class Rates:
    """What one batch is trained with: lr by group name, momentum (beta1 of Adam), batches per optimizer step."""

    lr: dict[str, float]
    momentum: float
    accumulate: int


@dataclass(frozen=True)
class Schedule:
    """All curves of a run. `schedule(ni)` gives the rates of batch `ni`."""

    lr: dict[str, Curve]
    momentum: Curve
    nominal: int  # batches per step after warm-up, A
    nw: int
    total: int

    def __call__(self, ni: int) -> Rates:
        """Rates of batch `ni` (0-based, counted since the run began)."""
        lr = {name: value_at(ni, curve) for name, curve in self.lr.items()}
        return Rates(lr, value_at(ni, self.momentum), accumulate_at(ni, self.nw, self.nominal))


def accumulate_at(ni: int, nw: int, nominal: int) -> int:
    """Batches per optimizer step at batch `ni`: from 1 to `nominal` over the warm-up; Python's round, half to even."""
    return nominal if ni >= nw else max(1, round(1 + (nominal - 1) * ni / nw))


def nominal_accumulate(batch: int, nbs: int) -> int:
    """Batches of `batch` pictures that make up the nominal batch size `nbs`; at least 1."""
    return max(round(nbs / batch), 1)


def warmup_batches(hyp: Hyp, nb: int, total: int) -> int:
    """nw: warmup_epochs in batches, at most the part `warmup_max` of the run; 0 means no warm-up at all."""
    if hyp.warmup == "none":
        return 0
    return min(round(hyp.warmup_epochs * nb), int(hyp.warmup_max * total))


def build_schedule(hyp: Hyp, nb: int, batch: int, groups: tuple[str, ...] = ("bias", "norm", "weight")) -> Schedule:
    """Schedule of a run of hyp.epochs epochs with `nb` batches of `batch` pictures each; one lr curve per group."""
    total = nb * hyp.epochs
    nw = warmup_batches(hyp, nb, total)
    start = {name: hyp.warmup_start * hyp.lr0 for name in groups}
    if "bias" in start and hyp.warmup_bias_lr is not None:
        start["bias"] = hyp.warmup_bias_lr
    lr = {name: Curve(start[name], hyp.lr0, hyp.lr0 * hyp.lrf, nw, total, hyp.warmup, hyp.decay) for name in groups}
    first = hyp.momentum if hyp.warmup_momentum is None else hyp.warmup_momentum
    momentum = Curve(first, hyp.momentum, hyp.momentum, nw, total, hyp.warmup, "constant")
    return Schedule(lr, momentum, nominal_accumulate(batch, hyp.nbs), nw, total)


def steps(schedule: Schedule) -> Iterator[tuple[int, int]]:
    """(ni, batches in the step) of every optimizer step of a run; the last window is flushed as it is."""
    last = -1
    for ni in range(schedule.total):
        if ni - last >= schedule(ni).accumulate or ni == schedule.total - 1:
            yield ni, ni - last
            last = ni


def scaled_weight_decay(hyp: Hyp, batch: int) -> float:
    """weight_decay * batch * A / nbs: gradients are summed over the window, so the decay of a step grows with it."""
    return hyp.weight_decay * batch * nominal_accumulate(batch, hyp.nbs) / hyp.nbs


def ema_span(updates: int, decay: float, tau: float) -> float:
    """Optimizer steps that the average of weights spans after `updates` steps: 1 / (1 - d)."""
    return 1.0 / (1.0 - ema_decay_at(updates, decay, tau))


def ema_decay_at(updates: int, decay: float, tau: float) -> float:
    """d = decay * (1 - exp(-updates / tau)): a young average follows the weights (as in YOLOv5's ModelEMA)."""
    return decay * (1.0 - math.exp(-updates / tau))


def auto_ema_tau(n_steps: int, decay: float) -> float:
    """The tau with which the average spans a tenth of the run at its end: at least 5 steps, at most a third of the run.

    Solves 1 / (1 - d(n_steps)) = span for tau.
    """
    longest = 1.0 / (1.0 - decay)
    span = min(max(n_steps / 10, 5.0), max(n_steps / 3, 1.0), longest)
    reached = (1.0 - 1.0 / span) / decay  # the part of `decay` wanted at the end, < 1
    if reached <= 0.0:
        return 1e9  # a run of at most three steps: no averaging
    return -n_steps / math.log(1.0 - min(reached, 1.0 - 1e-9))
