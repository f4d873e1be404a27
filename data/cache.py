"""Pictures at training size: decoded when asked for, or once into a memory-mapped file or shared memory."""

import hashlib
import os
import shutil
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from data.decode import Decoder
from data.index import Index
from data.scan import parallel, stamp
from utils.env import cache_dir
from utils.errors import UserError
from utils.letterbox import long_side_shape


class Pictures(Protocol):
    """Source of pictures by row of the index."""

    def __getitem__(self, i: int) -> np.ndarray:
        """BGR (h, w, 3) uint8, long side imgsz; not to be written into."""


def open_pictures(index: Index, imgsz: int, cache: str, reduce: bool, remember: int = 0) -> Pictures:
    """Pictures of an index as `cache` says, off | disk | ram; off remembers the last few decoded.

    reduce: a large JPEG may be decoded at 1/2, 1/4 or 1/8 while that stays twice imgsz: it costs little, and is a
    little smoother. Not for evaluation, whose pixels are to be those of every other program.
    """
    if cache == "off":
        return Decoder(index.paths, index.shapes, imgsz, reduce, remember)
    decoder = Decoder(index.paths, index.shapes, imgsz, reduce, 0)
    return DiskCache(decoder, index.paths) if cache == "disk" else RamCache(decoder)


class Packed:
    """Where each picture lies in one flat array of bytes."""

    def __init__(self, decoder: Decoder):
        self.shapes = np.array([long_side_shape(hw, decoder.imgsz) for hw in decoder.shapes.tolist()])  # (n, 2)
        self.offsets = np.concatenate([[0], (self.shapes.astype(np.int64).prod(1) * 3).cumsum()])  # (n + 1,) bytes

    @property
    def size(self) -> int:
        """Bytes of all pictures."""
        return int(self.offsets[-1])

    def view(self, flat: np.ndarray, i: int) -> np.ndarray:
        """Picture i (h, w, 3) inside the flat array."""
        return flat[self.offsets[i] : self.offsets[i + 1]].reshape(*self.shapes[i], 3)

    def fill(self, flat: np.ndarray, decoder: Decoder) -> None:
        """Decode every picture into its place."""

        def one(i: int) -> None:
            self.view(flat, i)[:] = decoder.load(i)

        parallel(one, list(range(len(decoder))))


class DiskCache:
    """One memory-mapped file in the cache folder, shared by workers, ranks and runs; named by what is in it."""

    def __init__(self, decoder: Decoder, paths: list[str]):
        self.packed = Packed(decoder)
        state = hashlib.sha256(f"{decoder.imgsz} {decoder.reduce}\n".encode())
        for path, (size, mtime) in zip(paths, parallel(stamp, paths), strict=True):
            state.update(f"{path}\0{size}\0{mtime}\n".encode(errors="surrogateescape"))
        self.file = cache_dir() / "pictures" / f"{state.hexdigest()[:24]}.bin"
        if not self.file.exists():
            self._build(decoder)
        self.flat = np.memmap(self.file, np.uint8, "r", shape=(self.packed.size,))

    def __getitem__(self, i: int) -> np.ndarray:
        return self.packed.view(self.flat, i)

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"flat": None}  # a fresh process maps the file itself: pickling would copy the pictures

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self.flat = np.memmap(self.file, np.uint8, "r", shape=(self.packed.size,))

    def _build(self, decoder: Decoder) -> None:
        """Beside the target, then moved over it: two runs may build at once, and a killed one leaves nothing half."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        _check_room(self.packed.size, self.file.parent, "disk")
        temporary = self.file.with_suffix(f".{os.getpid()}.tmp")
        try:
            flat = np.memmap(temporary, np.uint8, "w+", shape=(self.packed.size,))
            self.packed.fill(flat, decoder)
            flat.flush()
            os.replace(temporary, self.file)
        finally:
            temporary.unlink(missing_ok=True)


class RamCache:
    """Shared memory: workers see the same bytes however they are started."""

    def __init__(self, decoder: Decoder):
        self.packed = Packed(decoder)
        if Path("/dev/shm").is_dir():
            _check_room(self.packed.size, Path("/dev/shm"), "ram")
        self.shared = torch.empty(self.packed.size, dtype=torch.uint8).share_memory_()
        self.packed.fill(self.shared.numpy(), decoder)

    def __getitem__(self, i: int) -> np.ndarray:
        return self.packed.view(self.shared.numpy(), i)


def _check_room(size: int, folder: Path, cache: str) -> None:
    """Refuse a cache that would fill the device up."""
    free = shutil.disk_usage(folder).free
    if size > 0.9 * free:
        other = "off" if cache == "disk" else "disk or --cache off"
        raise UserError(
            f"--cache {cache} needs {size / 2**30:.1f} GB in {folder}, where {free / 2**30:.1f} GB are free. "
            f"Use --cache {other}, a smaller imgsz, or (for disk) another cache folder by $PREHEAT_CACHE."
        )
