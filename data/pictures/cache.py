"""Pictures at training size: decoded when asked for, or once into a memory-mapped file or shared memory."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from data.index.index import Index
from data.pictures.cache_file import Stored, build, check, file_name, file_size, fitting, restamp
from data.pictures.decode import Decoder
from data.pictures.packed import Kept, Packed, for_each
from data.pictures.room import GB, make_room, require_room
from data.pictures.shared import by_all_ranks
from utils.device.ranks import local_ranks
from utils.env import cache_dir
from utils.errors import UserError
from utils.files import locked, newest

log = logging.getLogger(__name__)


class Pictures(Protocol):
    """Source of pictures by row of the index."""

    cached: int  # the first `cached` pictures are not decoded when asked for
    nbytes: int  # of what is kept

    def __getitem__(self, i: int) -> np.ndarray:
        """BGR (h, w, 3) uint8, long side imgsz; not to be written into."""

    def load(self, i: int) -> np.ndarray:
        """The same; a picture that has to be decoded is not remembered."""


def open_pictures(
    index: Index,
    imgsz: int,
    cache: str,
    reduce: bool,
    remember: int = 0,
    cache_gb: float | None = None,
    strict: bool = False,
    beside: Sequence[Pictures] = (),
    white: float | None = None,
) -> Pictures:
    """Pictures of an index as `cache` says, off | disk | ram; what is not kept is decoded, the last few remembered.

    reduce: a large JPEG may be decoded at 1/2, 1/4 or 1/8 while that stays twice imgsz: it costs little, and is a
    little smoother. Not for evaluation, whose pixels are to be those of every other program.
    cache_gb: bound of all that is cached, `beside` (what this run keeps already) included; the first pictures that fit
    are kept. strict: compare the content of every picture with what the file was made from, not only size and mtime.
    white: the value that becomes 255 in pictures with more than 8 bits a channel.
    Pictures that are drawn from a pool are those of its file on disk, which other draws share.
    """
    beside = [pictures.whole if isinstance(pictures, Drawn) else pictures for pictures in beside]
    if cache == "disk" and index.pool:
        whole = open_pictures(index.pool.whole, imgsz, cache, reduce, remember, cache_gb, strict, beside, white)
        return Drawn(whole, index.pool.rows)
    decoder = Decoder(index, imgsz, reduce, remember, white)
    if cache == "off":
        return decoder
    packed, limit, cached = Packed(index.shapes, imgsz), None, index.n
    if cache_gb is not None:
        limit = max(int(cache_gb * GB) - sum(pictures.nbytes for pictures in beside), 0)
        cached = fitting(packed, limit) if cache == "disk" else packed.fitting(limit)
    if cached < index.n:
        log.info(
            f"--cache {cache}: all {index.n} pictures need {packed.offsets[-1] / GB:.3g} GB, --cache-gb {cache_gb:g} "
            f"leaves {limit / GB:.3g}: the first {cached} are kept, {index.n - cached} are decoded each time"
        )
    if cached == 0:
        return decoder
    return (
        DiskCache(decoder, packed, cached, limit, strict, beside)
        if cache == "disk"
        else RamCache(decoder, packed, cached)
    )


class Drawn:
    """Some pictures of a larger source."""

    def __init__(self, whole: Pictures, rows: np.ndarray):
        self.whole, self.rows, self.nbytes = whole, rows.tolist(), whole.nbytes
        self.cached = int(np.append(rows >= whole.cached, True).argmax())

    def __getitem__(self, i: int) -> np.ndarray:
        return self.whole[self.rows[i]]

    def load(self, i: int) -> np.ndarray:
        return self.whole.load(self.rows[i])


class DiskCache(Kept):
    """One memory-mapped file in the cache folder, shared by workers, ranks and runs."""

    def __init__(
        self,
        decoder: Decoder,
        packed: Packed,
        cached: int,
        limit: int | None,
        strict: bool,
        beside: Sequence[Pictures],
    ):
        super().__init__(decoder, packed, cached)
        self.nbytes = file_size(packed, cached)
        folder = cache_dir() / "pictures"
        whole = folder / f"{file_name(decoder)}.bin"
        self.file = newest(whole)
        ours = [self.file, *(pictures.file for pictures in beside if isinstance(pictures, DiskCache))]
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with locked(whole.with_suffix(".lock"), f"waiting: another process prepares {whole}"):
                self.file = self._prepare(whole, limit, strict, ours)
                os.utime(self.file)  # the file that was not used for longest is the first to go
                stored = Stored(self.file)
        except OSError as e:
            raise UserError(
                f"decoded pictures cannot be kept in {folder} ({e.strerror}). Use --cache off, --cache ram, or another "
                "cache folder by $PREHEAT_CACHE."
            ) from None
        self.flat, self.build = stored.pixels, stored.build

    def __getstate__(self) -> dict[str, object]:
        return super().__getstate__() | {"flat": None}  # a fresh process maps the file: pickling would copy it

    def __setstate__(self, state: dict[str, object]) -> None:
        super().__setstate__(state)
        stored = Stored.find(self.file, self.decoder.imgsz)
        if stored is not None and stored.build == self.build:
            self.flat = stored.pixels
        else:  # another run has replaced or removed it since
            self.cached = 0

    def _prepare(self, path: Path, limit: int | None, strict: bool, ours: list[Path]) -> Path:
        """Bring the newest file of `path` up to date, or make one, and return it; the lock is held."""
        for left in path.parent.glob(f"{path.stem}*.tmp"):  # by a builder that was killed
            left.unlink(missing_ok=True)
        file = newest(path)
        ours = [file, *ours]
        stored = Stored.find(file, self.decoder.imgsz)
        found = check(stored, self.decoder, self.cached, strict)
        whole = found.right.all() and stored is not None and stored.cached == self.cached
        others = None if limit is None else limit - self.nbytes
        make_room(path.parent, 0 if whole else self.nbytes, others, ours)
        if not whole:
            require_room(self.nbytes, path.parent, "disk")
            log.info(f"--cache disk: decoding {(~found.right).sum()} pictures into {path} ({self.nbytes / GB:.2f} GB)")
            return build(path, self.decoder, self.packed, stored, found)
        if found.new_stamps:
            restamp(file, found.rows)
        return file


class RamCache(Kept):
    """Shared memory: workers see the same bytes however they are started, and so do the ranks of a machine."""

    def __init__(self, decoder: Decoder, packed: Packed, cached: int):
        super().__init__(decoder, packed, cached)
        if local_ranks() > 1 and hasattr(os, "memfd_create"):
            self.shared = by_all_ranks(self.nbytes, f"{file_name(decoder)}-{cached}", self._fill)
        else:
            self.shared = torch.empty(self.nbytes, dtype=torch.uint8).share_memory_()
            self._fill(self.shared.numpy())
        self.flat = self._array()

    def _fill(self, flat: np.ndarray) -> None:
        if Path("/dev/shm").is_dir():
            require_room(self.nbytes, Path("/dev/shm"), "ram")

        def one(i: int) -> None:
            self.packed.view(flat, i)[:] = self.decoder.load(i)

        for_each(one, range(self.cached), "decoding pictures")

    def _array(self) -> np.ndarray:
        return self.shared.numpy() if isinstance(self.shared, torch.Tensor) else self.shared.array

    def __getstate__(self) -> dict[str, object]:
        return super().__getstate__() | {"flat": None}  # its owner passes the memory on, numpy would copy it

    def __setstate__(self, state: dict[str, object]) -> None:
        super().__setstate__(state)
        self.flat = self._array()
