"""Texts as bytes in one flat array: a list of a million str would be copied, page by page, into every worker."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from typing import Any, Self, TypeVar

import numpy as np

T = TypeVar("T")
STRETCH = 4096  # texts that are split at once


class Texts(Sequence):
    """Texts without NUL, each followed by one; what an item is, a subclass says."""

    def __init__(self, flat: np.ndarray, offsets: np.ndarray):
        self.flat = flat  # (bytes,) uint8
        self.offsets = offsets  # (n + 1,) int64

    @classmethod
    def pack(cls, texts: list[bytes]) -> Self:
        """From the bytes of each."""
        offsets = np.zeros(len(texts) + 1, np.int64)
        np.cumsum([len(text) + 1 for text in texts], out=offsets[1:])
        return cls(np.frombuffer(b"\0".join([*texts, b""]), np.uint8), offsets)

    @classmethod
    def join(cls, parts: Iterable["Texts"]) -> Self:
        """One after the other."""
        parts = list(parts)
        counts = np.concatenate([np.zeros(1, np.int64), *[np.diff(part.offsets) for part in parts]])
        flat = [part.flat[slice(*part._ends())] for part in parts]
        return cls(np.concatenate([np.zeros(0, np.uint8), *flat]), counts.cumsum())

    def decode(self, text: bytes) -> Any:
        """An item from its bytes."""
        return text

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, i: int | slice | np.ndarray) -> Any:
        if isinstance(i, slice):
            i = np.arange(*i.indices(len(self)))
        if isinstance(i, np.ndarray):
            return self.take(i)
        if not -len(self) <= i < len(self):
            raise IndexError(i)
        i %= len(self)
        return self.decode(self.flat[self.offsets[i] : self.offsets[i + 1] - 1].tobytes())

    def __iter__(self) -> Iterator[Any]:
        for start in range(0, len(self), STRETCH):
            yield from map(self.decode, self.stretch(start, min(start + STRETCH, len(self))))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, type(self)) or len(self) != len(other):
            return False
        (a, b), (c, d) = self._ends(), other._ends()
        return np.array_equal(self.flat[a:b], other.flat[c:d])  # every text ends with the only NUL that it has

    def _ends(self) -> tuple[int, int]:
        return int(self.offsets[0]), int(self.offsets[-1])

    __hash__ = None

    def stretch(self, start: int, stop: int) -> list[bytes]:
        """The bytes of items start to stop."""
        return self.raw(start, stop).split(b"\0")[:-1]

    def raw(self, start: int, stop: int) -> bytes:
        """The same, each followed by NUL."""
        return self.flat[int(self.offsets[start]) : int(self.offsets[stop])].tobytes()

    def take(self, rows: np.ndarray) -> Self:
        """Those of some rows (k,), in their order."""
        starts, counts = self.offsets[rows], self.offsets[np.asarray(rows) + 1] - self.offsets[rows]
        offsets = np.concatenate([[0], counts.cumsum()]).astype(np.int64)
        return type(self)(self.flat[spread(starts, counts)], offsets)


class Paths(Texts):
    """Absolute paths; paths[i] is a str."""

    @classmethod
    def of(cls, paths: Iterable[str]) -> "Paths":
        """From any paths."""
        return cls.pack([os.fsencode(path) for path in paths])

    def decode(self, text: bytes) -> str:
        """As the rest of the program names files."""
        return os.fsdecode(text)


def spread(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Positions start, start + 1, ... of every run: starts (k,), counts (k,) -> (sum of counts,) int64."""
    before = np.concatenate([[0], counts.cumsum()[:-1]]) if len(counts) else counts
    return np.arange(counts.sum(), dtype=np.int64) + np.repeat(starts - before, counts)


def to_columns(item: Any) -> dict[str, np.ndarray]:
    """The arrays of a dataclass; texts give two."""
    columns = {}
    for field in fields(item):
        value = getattr(item, field.name)
        if isinstance(value, Texts):
            columns |= {f"{field.name}_flat": value.flat, f"{field.name}_ends": value.offsets}
        else:
            columns[field.name] = value
    return columns


def from_columns(kind: type[T], columns: dict[str, np.ndarray]) -> T:
    """The dataclass again; nothing is copied."""
    values = {}
    for field in fields(kind):
        if issubclass(field.type, Texts):
            values[field.name] = field.type(columns[f"{field.name}_flat"], columns[f"{field.name}_ends"])
        else:
            values[field.name] = columns[field.name]
    return kind(**values)
