"""Paths as bytes in one flat array: a list of a million str would be copied, page by page, into every worker."""

import os
from collections.abc import Iterator, Sequence

import numpy as np


class Paths(Sequence):
    """Absolute paths of the pictures of an index; paths[i] is a str."""

    def __init__(self, flat: np.ndarray, offsets: np.ndarray):
        self.flat = flat  # (bytes,) uint8, as os.fsencode writes them
        self.offsets = offsets  # (n + 1,) int64

    @classmethod
    def of(cls, paths: Sequence[str]) -> "Paths":
        """From any paths."""
        encoded = [os.fsencode(path) for path in paths]
        offsets = np.zeros(len(encoded) + 1, np.int64)
        np.cumsum([len(path) for path in encoded], out=offsets[1:])
        return cls(np.frombuffer(b"".join(encoded), np.uint8), offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, i: int) -> str:
        if not -len(self) <= i < len(self):
            raise IndexError(i)
        i %= len(self)
        return os.fsdecode(self.flat[self.offsets[i] : self.offsets[i + 1]].tobytes())

    def __iter__(self) -> Iterator[str]:
        return (self[i] for i in range(len(self)))

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Paths)
            and np.array_equal(self.offsets, other.offsets)
            and np.array_equal(self.flat, other.flat)
        )

    __hash__ = None

    def take(self, rows: np.ndarray) -> "Paths":
        """Those of some rows (k,), in their order."""
        starts, counts = self.offsets[rows], self.offsets[np.asarray(rows) + 1] - self.offsets[rows]
        offsets = np.concatenate([[0], counts.cumsum()]).astype(np.int64)
        return Paths(self.flat[spread(starts, counts)], offsets)


def spread(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Positions start, start + 1, ... of every run: starts (k,), counts (k,) -> (sum of counts,) int64."""
    before = np.concatenate([[0], counts.cumsum()[:-1]]) if len(counts) else counts
    return np.arange(counts.sum(), dtype=np.int64) + np.repeat(starts - before, counts)
