"""The value of a curve at a batch: warm-up x decay, as a pure function of the batch number.

A `Curve` counts in any unit: batches in our runs, epochs or iterations where a test replays another trainer.
"""

from collections.abc import Sequence

from utils.config.kinds import DECAYS, ENDLESS, WARMUPS, Curve, Shape, cycle_at, gradual_power_at, plateau_at

__all__ = [
    "DECAYS",
    "ENDLESS",
    "WARMUPS",
    "Curve",
    "Shape",
    "cycle_at",
    "elapsed",
    "gradual_power_at",
    "plateau_at",
    "value_at",
]


def value_at(ni: int, c: Curve, history: Sequence[float] = ()) -> float:
    """Value at batch `ni`; warm-up aims at the decayed value, so there is no jump at ni = nw.

    `history`: the metric of every finished epoch; only the decay `plateau` looks at it.
    """
    target = DECAYS[c.decay].at(c, elapsed(ni, c), history[: ni // c.tick] if history else history)
    at = ni // c.warmup_tick * c.warmup_tick
    if at >= c.nw:
        return target
    return c.start + (target - c.start) * WARMUPS[c.warmup].at(at / c.nw, c.shape.warmup_start)


def elapsed(ni: int, c: Curve) -> float:
    """What the clock of the decay shows at batch `ni`."""
    tick = ni // c.tick
    if c.lag and ni > c.nw and tick > c.nw // c.tick:
        tick -= c.lag
    return max(tick * c.tick - c.begin, 0)
