"""What the steps of tune.py are tried on, as they see it: tune.py opens it, for it needs data and networks."""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Protocol

from utils.config.schema import Command, Hyp
from utils.schedule.rates import Rates, Schedule

Losses = dict[str, float]  # a part of the loss -> its mean over pictures, gains included


class Start(Protocol):
    """A run before its first batch."""

    schedule: Schedule
    stride: Any  # (levels,) pixels

    def steps(self, rates: Iterable[Rates]) -> Iterator[float]:
        """An optimizer step for each of `rates`; its loss before it was taken, all parts together."""

    def first_losses(self) -> tuple[Losses, Losses]:
        """Those of the first batch, and what they are where the network knows its priors only."""

    def score(self) -> float:
        """mAP50 of the weights as they are, on the pictures that are trained on."""


class Bench(Protocol):
    """A run whose data are opened once, and which is begun as often as it is asked for."""

    command: Command
    hyp: Hyp  # resolved: `batch` and `amp` are what is used
    train: Any  # the index of the training pictures
    known: list[str]  # classes that the weights know already

    def having(self, train: Any = None, **changed: Any) -> "Bench":
        """The same with other settings, and perhaps other pictures."""

    def apart(self, pictures: int) -> float | None:
        """How far the backbone's channels lie from where they lay when its weights were trained, as
        models/inference/features.py has it.

        pictures: so many of val.
        """

    def begin(self) -> AbstractContextManager[Start]:
        """A start from the weights, the same for the same seed; the network is as it was in the end."""


def hold_rate(start: Start, hyp: Hyp, lr: float, steps: int) -> Iterator[float]:
    """Losses of so many steps at a rate that is held, of all groups in proportion."""
    lrs = {name: curve.peak * lr / hyp.lr0 for name, curve in start.schedule.lr.items()}
    return start.steps(Rates(lrs, hyp.momentum, start.schedule.nominal) for _ in range(steps))
