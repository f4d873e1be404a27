"""Decoded pictures one after the other in a flat array of bytes, and what is not there decoded when asked for."""

import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from data.pictures.decode import Decoder
from data.pictures.letterbox import long_side_shape
from utils.env import cores
from utils.run.console import progress_bar


class Packed:
    """Where each picture lies."""

    def __init__(self, shapes: np.ndarray, imgsz: int):
        """shapes: (n, 2) height, width of the pictures as they are in their files."""
        keys, row = np.unique(shapes[:, 0].astype(np.int64) << 32 | shapes[:, 1], return_inverse=True)
        scaled = [long_side_shape((key >> 32, key & 0xFFFFFFFF), imgsz) for key in keys.tolist()]
        self.shapes = np.array(scaled, np.int32).reshape(-1, 2)[row]  # (n, 2) at training size
        self.offsets = np.zeros(len(shapes) + 1, np.int64)  # bytes
        np.cumsum(self.shapes.astype(np.int64).prod(1) * 3, out=self.offsets[1:])

    def fitting(self, limit: int, more: int = 0) -> int:
        """How many of the first pictures need no more than `limit` bytes, with `more` for each beside its pixels."""
        needed = self.offsets + more * np.arange(len(self.offsets))
        return max(int(np.searchsorted(needed, limit, "right")) - 1, 0)

    def bytes_of(self, i: int) -> slice:
        """Bytes of picture i."""
        return slice(int(self.offsets[i]), int(self.offsets[i + 1]))

    def view(self, flat: np.ndarray, i: int) -> np.ndarray:
        """Picture i (h, w, 3) inside the flat array."""
        return flat[self.bytes_of(i)].reshape(*self.shapes[i], 3)


class Kept:
    """The first pictures lie in a flat array, the others are decoded."""

    flat: np.ndarray  # (bytes,) uint8

    def __init__(self, decoder: Decoder, packed: Packed, cached: int):
        self.decoder, self.packed, self.cached = decoder, packed, cached
        self.nbytes = int(packed.offsets[cached])

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"packed": None}  # follows from the index, which is pickled as the place of its file

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self.packed = Packed(self.decoder.shapes, self.decoder.imgsz)

    def __getitem__(self, i: int) -> np.ndarray:
        return self.packed.view(self.flat, i) if i < self.cached else self.decoder[i]

    def load(self, i: int) -> np.ndarray:
        return self.packed.view(self.flat, i) if i < self.cached else self.decoder.load(i)


def for_each(function: Callable[[int], object], rows: Sequence[int], title: str) -> None:
    """Call a function for each row, on all cores (OpenCV and hashing let other threads run), with a progress bar."""
    pool = ThreadPoolExecutor(cores())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PIL's, about odd files: the index has reported them
            for _ in progress_bar(pool.map(function, rows), len(rows), title, len(rows) > 500):
                pass
    finally:
        pool.shutdown(cancel_futures=True)
