"""The range test: rates that rise exponentially, the losses they give, and the rates that these suggest. PURE.

Smith (2017), Cyclical learning rates for training neural networks, section 3.3: in one short run the rate rises from
almost nothing to too much; where the loss begins to fall, falls fastest and begins to rise again tells what to train
with. A fine-tuned detector's loss is noisy from batch to batch, hence several seeds and a smoothed curve.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

WIDTH = 0.04  # standard deviation of the smoothing, as a part of the ramp
FAR = 1.0  # times its lowest value so far, above what it began with, that a loss may reach before the ramp stops
LEAST = 0.02  # part of the first loss by which it must fall for a rate to be suggested
NAMES = {"steepest": "steepest fall", "tenth": "minimum / 10", "valley": "valley", "middle": "middle"}


@dataclass(frozen=True)
class Ramp:
    """One range test, of one seed."""

    seed: int
    lr: np.ndarray  # (n,) of each step that was taken
    loss: np.ndarray  # (n,) mean over the pictures of the step, before it was taken
    diverged: bool  # whether it stopped before the last rate

    @property
    def smooth(self) -> np.ndarray:
        """(n,) the loss smoothed over neighbouring steps of both sides: the curve is not moved to higher rates."""
        return smoothed(self.loss)


@dataclass(frozen=True)
class Suggestion:
    """A rate read from the curves of all seeds."""

    name: str
    each: list[float]  # of every seed that suggests one

    @property
    def lr(self) -> float:
        """Their median."""
        return float(np.median(self.each))


def rates(low: float, high: float, n: int) -> np.ndarray:
    """n rates from low to high, each the same factor above the one before."""
    return low * (high / low) ** (np.arange(n) / (n - 1))


def smoothed(loss: np.ndarray) -> np.ndarray:
    """Weighted means (n,) of the losses around each step, normal weights over a fixed number of steps."""
    n = len(loss)
    at = np.arange(n)
    weights = np.exp(-(((at[:, None] - at) / max(WIDTH * n, 1e-9)) ** 2) / 2)
    return (weights @ loss) / weights.sum(1)


def has_diverged(loss: Sequence[float], last: int = 5) -> bool:
    """Whether the mean of the last losses is no number, or far above both the first and the lowest such mean."""
    if not np.isfinite(loss[-1]):
        return True
    means = np.convolve(loss, np.ones(last) / last, "valid") if len(loss) >= last else np.zeros(0)
    return bool(len(means) > 1 and means[-1] > means[0] + FAR * means.min())


def steepest(ramp: Ramp) -> float | None:
    """The rate at which the smoothed loss falls fastest over the logarithm of the rate, before its minimum."""
    y, end = ramp.smooth, int(ramp.smooth.argmin())
    if not falls(ramp) or end < 2:
        return None
    slope = np.gradient(y, np.log(ramp.lr))[: end + 1]
    return float(ramp.lr[slope.argmin()])


def tenth(ramp: Ramp) -> float | None:
    """A tenth of the rate of the lowest smoothed loss."""
    return float(ramp.lr[ramp.smooth.argmin()] / 10) if falls(ramp) else None


def valley(ramp: Ramp) -> float | None:
    """The rate two thirds along the longest series of ever lower smoothed losses."""
    if not falls(ramp):
        return None
    series = longest_fall(ramp.smooth)
    return float(ramp.lr[series[(2 * (len(series) - 1)) // 3]])


def middle(ramp: Ramp) -> float | None:
    """Half way, on the logarithm, from the steepest fall to the minimum."""
    found = steepest(ramp)
    return None if found is None else float(np.sqrt(found * ramp.lr[ramp.smooth.argmin()]))


def falls(ramp: Ramp) -> bool:
    """Whether the smoothed loss falls at all before it rises."""
    y = ramp.smooth
    return len(y) > 2 and bool(y[0] - y.min() > LEAST * abs(y[0]))


def longest_fall(y: np.ndarray) -> list[int]:
    """Places of the longest strictly falling series in y, not all of them neighbours: patience sorting."""
    tails: list[float] = []  # of the series of each length the end that is highest, negated: rising
    ends: list[int] = []
    before = np.full(len(y), -1)
    for i, value in enumerate(-y):
        k = bisect_left(tails, value)
        before[i] = ends[k - 1] if k else -1
        tails[k:], ends[k:] = [value, *tails[k + 1 :]], [i, *ends[k + 1 :]]
    places, i = [], ends[-1]
    while i >= 0:
        places.append(i)
        i = int(before[i])
    return places[::-1]


def suggest_rates(ramps: Sequence[Ramp]) -> dict[str, Suggestion]:
    """What the ramps suggest, by its key in NAMES; what no seed suggests is left out."""
    found = {}
    for key, rule in (("steepest", steepest), ("tenth", tenth), ("valley", valley), ("middle", middle)):
        each = [lr for ramp in ramps if (lr := rule(ramp)) is not None]
        if each:
            found[key] = Suggestion(NAMES[key], each)
    return found


def remarks(ramps: Sequence[Ramp], suggestions: dict[str, Suggestion]) -> list[str]:
    """What speaks against relying on the suggestions."""
    still = [ramp.seed for ramp in ramps if not falls(ramp)]
    lines = []
    if still:
        named = ", ".join(map(str, still))
        lines.append(
            f"warning: with seed {named} the loss fell by {100 * LEAST:g} % at no rate: too few steps (--steps), or a "
            "head that is trained already, leave nothing to read a rate from"
        )
    if not any(ramp.diverged for ramp in ramps):
        lines.append("the loss diverged at no rate: what is too much lies above --lr-to, or clip_norm holds it back")
    wide = [s.name for s in suggestions.values() if max(s.each) > 10 * min(s.each)]
    if wide:
        lines.append(f"warning: the seeds disagree by more than a factor of ten on {' and '.join(wide)}: more --seeds")
    return lines
