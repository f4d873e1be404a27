"""The file of decoded pictures: beside their pixels, what each was decoded from. A new one is written whole.

Layout: a header, a table with a row a picture, the pixels. Who has a file mapped keeps it when there is a new one.
"""

import hashlib
import os
import secrets
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np

from data.pictures.decode import Decoder
from data.pictures.packed import Packed, for_each
from utils.device.parallel import parallel
from utils.files import stamp, write_new

HEADER = np.dtype([("magic", "S8"), ("cached", "<i8"), ("build", "<u8")])
ROW = np.dtype([("size", "<i8"), ("mtime", "<i8"), ("digest", "V16"), ("shape", "<i4", 2)])  # shape: h, w in the file
MAGIC = b"preheat1"  # raise it when the layout or the decoding changes
CHUNK = 256  # files that one thread looks at in one go


def file_name(decoder: Decoder) -> str:
    """Name for these pictures at this size: their paths are part of it, their content is not."""
    white = "" if decoder.white is None else f" {decoder.white:g}"
    key = hashlib.sha256(f"{MAGIC} {cv2.__version__} {decoder.imgsz} {decoder.reduce}{white}\n".encode())
    for path in decoder.paths:
        key.update(os.fsencode(path) + b"\0")
    return key.hexdigest()[:24]


def file_size(packed: Packed, cached: int) -> int:
    """Bytes of a file of the first `cached` pictures."""
    return _pixels_at(cached) + int(packed.offsets[cached])


def fitting(packed: Packed, limit: int) -> int:
    """How many of the first pictures go into a file of `limit` bytes."""
    return packed.fitting(limit - HEADER.itemsize, ROW.itemsize)


class Stored:
    """A file of decoded pictures, mapped: table (cached,) of ROW, pixels (bytes,), and the number of its build."""

    def __init__(self, file: Path):
        header = np.fromfile(file, HEADER, 1)
        if len(header) == 0 or header["magic"][0] != MAGIC:
            raise ValueError(f"{file} is no file of decoded pictures")
        self.cached, self.build = int(header["cached"][0]), int(header["build"][0])
        self.table = np.memmap(file, ROW, "r", HEADER.itemsize, (self.cached,))
        self.pixels = np.memmap(file, np.uint8, "r", _pixels_at(self.cached)).view(np.ndarray)  # memmaps slice slowly

    @classmethod
    def find(cls, file: Path, imgsz: int) -> "Stored | None":
        """The file, or None where there is none or it is damaged."""
        try:
            stored = cls(file)
        except (OSError, ValueError):
            return None
        return stored if Packed(stored.table["shape"], imgsz).offsets[-1] == len(stored.pixels) else None


@dataclass
class Check:
    """What a file is worth for the first pictures of a dataset: their rows (k,) of ROW, and which of them are right."""

    rows: np.ndarray
    right: np.ndarray  # (k,) bool
    new_stamps: bool


def check(stored: Stored | None, decoder: Decoder, cached: int, strict: bool) -> Check:
    """Compare a file with the first `cached` pictures.

    Those whose size or mtime differs (strict: all) are hashed; when its content is the same, a picture is right.
    """
    rows, changed = np.zeros(cached, ROW), np.ones(cached, bool)
    if stored is None:
        return Check(rows, ~changed, False)
    both = min(cached, stored.cached)
    rows[:both] = stored.table[:both]
    stamps = _stamps(decoder.paths, both)
    other = (rows["size"][:both] != stamps[:, 0]) | (rows["mtime"][:both] != stamps[:, 1])
    changed[:both] = (rows["shape"][:both] != decoder.shapes[:both]).any(1)

    def compare(i: int) -> None:
        changed[i] |= digest(decoder.paths[i]) != rows["digest"][i].tobytes()

    for_each(compare, (np.arange(both) if strict else np.flatnonzero(other)).tolist(), "comparing pictures")
    rows["size"][:both], rows["mtime"][:both] = stamps[:, 0], stamps[:, 1]  # as they were before the comparison
    return Check(rows, ~changed, bool(other.any()))


def restamp(file: Path, rows: np.ndarray) -> None:
    """Correct the stamps in place; half of them written would only be stamps that differ."""
    table = np.memmap(file, ROW, "r+", HEADER.itemsize, rows.shape)
    table[:] = rows
    table.flush()


def build(file: Path, decoder: Decoder, packed: Packed, stored: Stored | None, found: Check) -> Path:
    """Write the pictures into a new file, and return it; those that are right in the old one are copied.

    The caller holds the lock.
    """
    cached, rows = len(found.rows), found.rows
    places = Packed(stored.table["shape"], decoder.imgsz) if stored else packed
    one_at_a_time = threading.Lock()

    def one(f: BinaryIO, i: int) -> None:
        if found.right[i]:
            pixels = stored.pixels[places.bytes_of(i)]
        else:  # the stamp first, then the digest, then the pixels: what changes meanwhile is seen next time
            path = decoder.paths[i]
            rows["size"][i], rows["mtime"][i] = stamp(path)
            rows["digest"][i] = np.void(digest(path))
            rows["shape"][i] = decoder.shapes[i]
            pixels = np.ascontiguousarray(decoder.load(i))
        with one_at_a_time:
            f.seek(_pixels_at(cached) + int(packed.offsets[i]))
            f.write(pixels)  # a full disk is an OSError here; in a mapped file it would be a crash

    def write(f: BinaryIO) -> None:
        for_each(partial(one, f), range(cached), "decoding pictures")
        f.seek(0)
        f.write(np.array([(MAGIC, cached, secrets.randbits(64))], HEADER))
        f.write(rows)

    return write_new(file, write)


def digest(path: str) -> bytes:
    """16 bytes that stand for the content of a file; zeros where it cannot be read (decoding it says why)."""
    try:
        return hashlib.blake2b(Path(path).read_bytes(), digest_size=16).digest()
    except OSError:
        return bytes(16)


def _pixels_at(cached: int) -> int:
    return HEADER.itemsize + cached * ROW.itemsize


def _stamps(paths: Sequence[str], n: int) -> np.ndarray:
    """Size and mtime_ns of the first n files (n, 2)."""
    starts = list(range(0, n, CHUNK))
    chunks = parallel(lambda k: [stamp(paths[i]) for i in range(k, min(k + CHUNK, n))], starts)
    return np.array([row for chunk in chunks for row in chunk], np.int64).reshape(-1, 2)
