"""Pictures at training size: decoded when asked for, or once into a memory-mapped file or shared memory."""

import hashlib
import os
import shutil
from collections import OrderedDict
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import torch
from PIL import Image, ImageOps

from data.index import Index
from data.scan import parallel, stamp
from utils.env import cache_dir
from utils.errors import UserError
from utils.letterbox import long_side_shape

REDUCED = {2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4, 8: cv2.IMREAD_REDUCED_COLOR_8}


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


def load_picture(path: str, hw: tuple[int, int], imgsz: int, reduce: bool = False) -> np.ndarray:
    """BGR picture (h, w, 3) uint8, EXIF rotation applied, long side scaled to imgsz; hw: its full size."""
    img = _decode(path, hw, _reduction(path, hw, imgsz) if reduce else 1)
    h, w = long_side_shape(hw, imgsz)
    return img if img.shape[:2] == (h, w) else cv2.resize(img, (w, h), interpolation=cv2.INTER_LINEAR)


def _reduction(path: str, hw: tuple[int, int], imgsz: int) -> int:
    """1, or by how much the decoder of this file can shrink the picture."""
    if not path.lower().endswith((".jpg", ".jpeg")):
        return 1
    return max((k for k in REDUCED if max(hw) >= 2 * k * imgsz), default=1)


def _decode(path: str, hw: tuple[int, int], factor: int) -> np.ndarray:
    """BGR picture, at 1/factor where OpenCV can."""
    try:
        content = np.fromfile(path, np.uint8)
    except OSError as e:
        raise UserError(f"{path} cannot be read ({e.strerror}). It was there when the dataset was indexed.") from None
    img = cv2.imdecode(content, REDUCED.get(factor, cv2.IMREAD_COLOR)) if content.size else None
    expected = -(-hw[0] // factor), -(-hw[1] // factor)
    if img is None or img.shape[:2] != expected:
        img = _decode_slowly(path)  # formats and EXIF rotations that OpenCV does not know
        if img.shape[:2] != tuple(hw):
            size = f"{img.shape[1]}x{img.shape[0]} pixels, {hw[1]}x{hw[0]} when it was indexed"
            raise UserError(f"{path} has changed: {size}. Start again.")
    return img


def _decode_slowly(path: str) -> np.ndarray:
    """BGR picture by PIL."""
    try:
        with Image.open(path) as img:
            rgb = np.asarray(ImageOps.exif_transpose(img).convert("RGB"))
    except Exception as e:  # PIL raises SyntaxError, struct.error, EOFError and others on broken files
        raise UserError(f"{path} cannot be decoded ({e}). Replace or delete it.") from None
    return cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)


class Decoder:
    """Decodes when asked."""

    def __init__(self, paths: list[str], shapes: np.ndarray, imgsz: int, reduce: bool, remember: int):
        self.paths, self.shapes, self.imgsz = paths, shapes, imgsz
        self.reduce, self.remember = reduce, remember
        self.recent: OrderedDict[int, np.ndarray] = OrderedDict()  # saves decoding, changes no picture

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> np.ndarray:
        img = self.recent.pop(i, None)
        if img is None:
            img = self.load(i)
        self.recent[i] = img
        if len(self.recent) > self.remember:
            self.recent.popitem(last=False)
        return img

    def load(self, i: int) -> np.ndarray:
        """Picture i, decoded now."""
        return load_picture(self.paths[i], tuple(self.shapes[i].tolist()), self.imgsz, self.reduce)


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
