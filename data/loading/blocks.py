"""Pictures decoded for the samples being made, once for all workers of a loader."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from data.loading.order import BLOCK, block_of
from data.pictures.shared import SharedArray

EMPTY, BUSY, FULL = range(3)


class Blocks:
    """The decoded pictures of two blocks of positions: mosaic partners come from the block of their sample.

    A block takes the place of the one before the last when no sample under way reads that one any more.
    """

    def __init__(self, n: int, imgsz: int, context: Any):
        self.n = n  # positions of an epoch
        first, last = block_of(n - 1, n)
        longest = max(last - first, BLOCK)
        self.pixels = SharedArray((2, longest, 3 * imgsz**2), np.uint8)  # untouched pages cost nothing
        self.state = SharedArray((2, longest), np.uint8)
        self.owner = SharedArray((2,), np.int64)  # number of the block, counted over all epochs
        self.readers = SharedArray((2,), np.int64)  # samples under way
        self.lock = context.Lock()
        self.owner.array[:] = -1

    def enter(self, epoch: int, position: int) -> bool:
        """A sample begins; False: it must wait. The caller holds the ring's lock."""
        number, k, _ = self._place(epoch, position)
        if self.owner.array[k] != number:
            if self.readers.array[k]:
                return False
            self.owner.array[k] = number
            self.state.array[k] = EMPTY
        self.readers.array[k] += 1
        return True

    def leave(self, epoch: int, position: int) -> None:
        """A sample is made. The caller holds the ring's lock."""
        self.readers.array[self._place(epoch, position)[1]] -= 1

    def get(self, epoch: int, position: int, hw: tuple[int, int], load: Callable[[], np.ndarray]) -> np.ndarray:
        """The picture (h, w, 3) at a position; the first that asks decodes it, the others wait."""
        _, k, place = self._place(epoch, position)
        view = self.pixels.array[k, place, : 3 * hw[0] * hw[1]].reshape(*hw, 3)
        while True:
            with self.lock:
                state = self.state.array[k, place]
                if state == EMPTY:
                    self.state.array[k, place] = BUSY
            if state == FULL:
                return view
            if state == EMPTY:
                view[:] = load()
                with self.lock:
                    self.state.array[k, place] = FULL
                return view
            time.sleep(2e-4)

    def _place(self, epoch: int, position: int) -> tuple[int, int, int]:
        """Number of the block, counted over all epochs, which half of the array it has, and the place there."""
        first, _ = block_of(position, self.n)
        number = epoch * max(self.n // BLOCK, 1) + first // BLOCK
        return number, number % 2, position - first
