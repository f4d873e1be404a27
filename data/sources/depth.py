"""How deep the values of a dataset's pictures are, and so which of them is white: one value for all of them.

Cameras of 10, 12 and 14 bits write files of 16: by the file's range their pictures would be nearly black. What is white
must not follow from one picture, for a dark one would be as bright as the others.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LEVELS = (1, 255, 1023, 4095, 16383, 65535)  # 1: floats


@dataclass(frozen=True)
class Depth:
    """The pictures of a split with more than 8 bits a channel."""

    top: float = 0.0  # the largest value of all; 0: there is no such picture
    counts: tuple[int, ...] = (0,) * (len(LEVELS) + 1)  # by the first of LEVELS that holds them, the last: by none

    @classmethod
    def of(cls, tops: np.ndarray) -> "Depth":
        """From the largest value of each picture (n,), 0 for those of 8 bits."""
        deep = np.asarray(tops)[np.asarray(tops) > 0]
        counts = np.bincount(np.searchsorted(LEVELS, deep), minlength=len(LEVELS) + 1)
        return cls(float(deep.max(initial=0)), tuple(counts.tolist()))

    def joined(self, other: "Depth") -> "Depth":
        """Of the pictures of both."""
        return Depth(max(self.top, other.top), tuple(a + b for a, b in zip(self.counts, other.counts, strict=True)))

    @property
    def white(self) -> float | None:
        """The least of LEVELS that holds all values, else the largest value; None where all pictures have 8 bits."""
        return next((float(level) for level in LEVELS if self.top <= level), self.top) if self.top else None


def white_lines(depths: Sequence[Depth], given: float | None = None) -> list[str]:
    """What must be known where pictures have more than 8 bits: their number, what is white, and outliers."""
    whole = Depth()
    for depth in depths:
        whole = whole.joined(depth)
    n = sum(whole.counts)
    if not n:
        return []
    white = whole.white if given is None else given
    why = "given" if given is not None else f"the least that holds the largest value, {whole.top:g}"
    lines = [f"{n} pictures have more than 8 bits a channel: white_level {white:g}{_bits(white)}, {why}"]
    below = [(sum(whole.counts[: k + 1]), level) for k, level in enumerate(LEVELS) if level < white]
    few = next((level for held, level in below if held >= 0.9 * n), None)
    if few is not None and given is None:
        over = n - sum(whole.counts[: LEVELS.index(few) + 1])
        lines.append(
            f"warning: only {over} of them exceed {few:g}{_bits(few)}; if those values are faults of the camera, the "
            f"others are too dark: --white-level {few:g}"
        )
    return lines


def _bits(white: float) -> str:
    """The bits that a level stands for, in brackets."""
    return f" ({int(white + 1).bit_length() - 1} bits)" if white in LEVELS[1:] else ""
