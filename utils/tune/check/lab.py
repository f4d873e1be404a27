"""What the steps of a check work with, and the time that is left to them."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.env import cores
from utils.tune.bench import Bench


class OutOfTime(Exception):
    """The minutes of a check are over."""


@dataclass(frozen=True)
class Lab:
    """What the steps of a check work with."""

    bench: Bench
    batches: int  # of an epoch
    pictures: int  # that are learnt by heart
    numbers: dict[str, Any]  # what they leave for later ones
    folder: Path
    slots: list[str]
    until: float  # monotonic: when the minutes are over

    @property
    def left(self) -> float:
        """Seconds; OutOfTime when there are none."""
        if (seconds := self.until - time.monotonic()) <= 0:
            raise OutOfTime
        return seconds

    @property
    def threads(self) -> int:
        """CPU threads of a run."""
        return max(cores() // len(self.slots), 1)

    @property
    def epoch(self) -> float:
        """Seconds of an epoch of a run beside others, evaluated."""
        return 1.5 * self.batches * self.numbers["batch_seconds"] * (2 if len(self.slots) > 1 else 1)
