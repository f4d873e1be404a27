"""Every kind of warm-up and decay, a row each: what it computes, what it means, and an example for the picture of all.

A new kind is one row here: the schema's words, --help and the gallery are made from these tables. PURE.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Kind:
    """One row: the function, and keys that show it well in the picture of all kinds."""

    # of a warm-up: (t in 0..1, warmup_start) -> 0..1, how much of the way to the target is covered;
    # of a decay: (curve, elapsed, history) -> value
    at: Callable[..., float]
    example: Mapping[str, Any] = field(default_factory=dict)
    title: str = ""  # in the picture; else its name and its example
    endless: bool = False  # a decay that arrives nowhere

    def label(self, name: str) -> str:
        """What the picture calls this kind."""
        shown = ", ".join(f"{key} {value}" for key, value in self.example.items() if key != "decay_from")
        star = " *" if "decay_from" in self.example else ""
        return (self.title or (f"{name}, {shown}" if shown else name)) + star


WARMUPS: dict[str, Kind] = {
    "none": Kind(lambda t, start: 1.0, {"warmup_epochs": 0}, title="none"),
    "linear": Kind(lambda t, start: t),
    # the textbook's: a small rate, then a jump (not HF's: ramp, then constant)
    "constant": Kind(lambda t, start: 0.0, {"warmup_start": 0.1}, title="constant"),
    "cosine": Kind(lambda t, start: (1.0 - math.cos(math.pi * t)) / 2.0),
    "exponential": Kind(
        lambda t, start: (start**-t - 1.0) / (1.0 / start - 1.0) if start < 1.0 else t,
        {"warmup_start": 0.01},
        title="exponential",
    ),
}


@dataclass(frozen=True)
class Shape:
    """Numbers that belong to one kind of warm-up or decay each; lengths are in the unit of the curve."""

    warmup_start: float = 0.0  # exponential warm-up: start as a part of the target
    milestones: tuple[float, ...] = ()  # step: where each reduction begins, counted from the start of the run
    gamma: float = 0.1  # step, plateau
    power: float = 1.0  # polynomial, power
    reached: float = 1.0  # power: rate of the last batch of the warm-up, as a part of the peak
    timescale: float = 1.0  # inverse_sqrt: the rate has fallen to 1 / sqrt(2) after this long
    first_cycle: float = 1.0  # cosine_restarts
    growth: float = 1.0  # cosine_restarts: every cycle is this many times the one before
    pct_start: float = 0.3  # one_cycle_torch
    wsd_decay: float = 0.2  # wsd: last part that falls
    patience: int = 10  # plateau
    cooldown: int = 0  # plateau


@dataclass(frozen=True)
class Curve:
    """From `start` at ni = 0 towards `peak`, decaying to `final` (or, for kinds without an end, not below it)."""

    start: float
    peak: float
    final: float
    nw: float  # length of the warm-up
    total: int  # length of the run
    warmup: str = "linear"
    decay: str = "cosine"
    begin: float = 0  # where the clock of the decay starts
    end: float | None = None  # where the decay arrives; None: at the last batch
    tick: int = 1  # the decay moves every `tick` batches: 1, or nb where its clock is the epoch
    lag: int = 0  # ticks by which the decay is late once the tick in which warm-up ended is over (YOLOv5: 1)
    warmup_tick: int = 1  # the warm-up moves every `warmup_tick` batches: 1, or nb where its clock is the epoch
    stays: bool = True  # at `final` past its end; False: formulas run on, and a cosine rises again
    shape: Shape = Shape()


def progress(c: Curve, x: float) -> float:
    """x as a part of the decay's length: 0 at its begin, 1 at its end."""
    end = c.total - 1 if c.end is None else c.end
    t = x / max(end - c.begin, 1e-9) if x else 0.0
    return min(t, 1.0) if c.stays else t


def _between(left: Callable[[float, Shape], float]) -> Callable[[Curve, float, Sequence[float]], float]:
    """A decay that ends at `final`: `left`(t, shape) is how much of (peak - final) is left."""
    return lambda c, x, history: c.final + (c.peak - c.final) * left(progress(c, x), c.shape)


def _exponential(c: Curve, x: float, history: Sequence[float]) -> float:
    """Every batch the same factor, chosen to arrive at `final`."""
    return c.peak * (c.final / c.peak) ** progress(c, x)


def _step(c: Curve, x: float, history: Sequence[float]) -> float:
    """Times gamma at every milestone; milestones count from the start of the run, whatever `begin` is."""
    passed = sum(x + c.begin >= milestone for milestone in c.shape.milestones)
    return max(c.final, c.peak * c.shape.gamma**passed)


def _inverse_sqrt(c: Curve, x: float, history: Sequence[float]) -> float:
    return max(c.final, c.peak * math.sqrt(c.shape.timescale / (c.shape.timescale + x)))


def _cosine_restarts(c: Curve, x: float, history: Sequence[float]) -> float:
    """SGDR: a falling half cosine, again and again."""
    length = c.shape.first_cycle
    while x >= length:
        x, length = x - length, length * c.shape.growth
    return c.final + (c.peak - c.final) * (1.0 + math.cos(math.pi * x / length)) / 2.0


def _one_cycle_torch(c: Curve, x: float, history: Sequence[float]) -> float:
    """torch's OneCycleLR: a rise from `start` to `peak` of its own, then down to `final`."""
    top = c.shape.pct_start * c.total - 1
    return cycle_at(x, ((0.0, c.start), (top, c.peak), (c.total - 1, c.final)))


def _plateau(c: Curve, x: float, history: Sequence[float]) -> float:
    s = c.shape
    return plateau_at(history, c.peak, s.gamma, s.patience, s.cooldown, floor=c.final)


def cycle_at(x: float, points: Sequence[tuple[float, float]], shape: str = "cosine") -> float:
    """Through `points` (place, value) in half cosines or straight lines, as torch's OneCycleLR with 2 or 3 phases."""
    left, right = next(((a, b) for a, b in zip(points, points[1:], strict=False) if x <= b[0]), points[-2:])
    t = (x - left[0]) / (right[0] - left[0]) if right[0] != left[0] else 1.0
    if shape == "cosine":
        return right[1] + (left[1] - right[1]) * (1.0 + math.cos(math.pi * t)) / 2.0
    return left[1] + (right[1] - left[1]) * t


def plateau_at(
    history: Sequence[float], lr: float, gamma: float, patience: int, cooldown: int = 0, floor: float = 0.0,
    mode: str = "max", threshold: float = 1e-4, threshold_mode: str = "rel", eps: float = 1e-8,
) -> float:  # fmt: skip
    """Rate after the epochs of `history`, as torch's ReduceLROnPlateau: NaN is bad, patience + 1 bad ones reduce."""
    sign = 1.0 if mode == "max" else -1.0
    best, bad, resting = -math.inf, 0, 0  # `best` in the sense that more is better
    for value in (sign * v for v in history):
        margin = sign * best * threshold if threshold_mode == "rel" else threshold
        better = value > (best + margin if math.isfinite(best) else best)
        best, bad = (value, 0) if better else (best, bad + 1)
        if resting:
            resting, bad = resting - 1, 0
        if bad > patience:
            lower = max(lr * gamma, floor)
            lr = lower if lr - lower > eps else lr
            resting, bad = cooldown, 0
    return lr


def gradual_power_at(t: int, nw: int, peak: float, power: float = 1.0001) -> float:
    """A tutorial's gradual warm-up, then lr <- lr ** power every step: it never reaches `peak`, and grows if lr > 1."""
    return peak * t / nw if t < nw else (peak * (nw - 1) / nw) ** (power ** (t - nw + 1))


def _power(c: Curve, x: float, history: Sequence[float]) -> float:
    """A tutorial's lr <- lr ** power every batch; its clock starts at the last batch of the warm-up."""
    if x <= 0:
        return c.peak
    return max(c.final, (c.peak * c.shape.reached) ** math.exp(min(x * math.log(c.shape.power), 700.0)))


# where sources disagree about a word, docs/schedules.md says which one is meant
DECAYS: dict[str, Kind] = {
    "constant": Kind(lambda c, x, history: c.peak),
    "linear": Kind(_between(lambda t, s: 1.0 - t)),
    "cosine": Kind(_between(lambda t, s: (1.0 + math.cos(math.pi * t)) / 2.0)),
    "step": Kind(_step, {"gamma": 0.3}, endless=True),
    "exponential": Kind(_exponential),
    "polynomial": Kind(_between(lambda t, s: max(1.0 - t, 0.0) ** s.power), {"power": 2.0}),
    "inverse_sqrt": Kind(_inverse_sqrt, {"decay_from": "warmup"}, endless=True),
    "one_cycle": Kind(  # YOLOv5's word: no rise, no cycle
        _between(lambda t, s: (1.0 + math.cos(math.pi * t)) / 2.0), title="one_cycle (YOLOv5's word)"
    ),
    "one_cycle_torch": Kind(
        _one_cycle_torch, {"warmup": "none", "warmup_epochs": 0}, title="one_cycle_torch (no warmup)"
    ),
    "cosine_restarts": Kind(_cosine_restarts, {"T_0": 13, "T_mult": 2, "decay_from": "warmup"}),
    "plateau": Kind(_plateau, {"gamma": 0.4, "plateau_patience": 15}, endless=True, title="plateau (falls when stuck)"),
    "wsd": Kind(
        _between(lambda t, s: min((1.0 - t) / s.wsd_decay, 1.0)), {"wsd_decay": 0.3}, title="wsd (stable, then decay)"
    ),
    "power": Kind(_power, {"power": 1.0002, "lr0": 0.01}, endless=True, title="power: lr <- lr ** power"),
}
ENDLESS = {name for name, kind in DECAYS.items() if kind.endless}  # have no end of their own: `final` is a floor
