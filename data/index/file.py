"""The index of a split as one file in the cache folder: a line of json that describes it, then columns to be mapped."""

import hashlib
import json
import logging
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from data.definition.config import DatasetConfig
from utils.env import cache_dir
from utils.files import newest, write_new

VERSION = 7  # of the cached file: raise it when the columns or the rules change
ALIGN = 64  # bytes; every column starts at a multiple
TRIES = 3  # times that a file which has just gone is looked for anew
BLOCK = 2**18  # bytes read at once
MAGIC = b"preheat index\n"


@dataclass(frozen=True, eq=False)
class IndexFile:
    """An open file: what it says of itself, and its columns, read-only and not read before they are used."""

    path: Path
    key: str  # of its content; empty: it could not be written, and lives in memory
    start: int  # where in the file the columns are
    header: dict[str, Any]
    columns: dict[str, np.ndarray]

    def in_place(self) -> bool:
        """Whether the path still leads to this content."""
        try:
            with open(self.path, "rb") as f:
                return _read_head(f)[0] == self.key
        except (OSError, ValueError):
            return False

    def undamaged(self) -> bool:
        """Whether every column is as it was written."""
        return all(check() for check in self.checks())

    def checks(self) -> list[Callable[[], bool]]:
        """The same, as jobs for several processes."""
        return [partial(_undamaged, self.path, self.start, **c["bytes"]) for c in self.header["columns"].values()]


def index_file(config: DatasetConfig, split: str, single_cls: bool) -> Path:
    """Where the index of a split is stored, whatever state its files are in; the newest one has a number behind it."""
    which = hashlib.sha256(json.dumps([str(config.path), split, single_cls]).encode()).hexdigest()[:12]
    return cache_dir() / "indexes" / f"{config.path.stem}-{split}-{which}.index"


def write_index(path: Path, header: dict[str, Any], columns: dict[str, np.ndarray]) -> bool:
    """Write a new file, for the old one may be mapped: no run sees half a file. A full disk costs the cache only."""
    places, end = {}, 0
    for name, column in columns.items():
        column = np.ascontiguousarray(column)
        place = {"start": end, "size": column.nbytes, "crc": zlib.crc32(column)}
        places[name] = {"dtype": column.dtype.str, "shape": column.shape, "bytes": place}
        end += -(-column.nbytes // ALIGN) * ALIGN
    text = json.dumps(header | {"version": VERSION, "columns": places, "end": end}).encode()
    head = MAGIC + hashlib.sha256(text).hexdigest().encode() + f" {len(text):12d}\n".encode() + text
    head += b" " * (-len(head) % ALIGN)

    def write(f: BinaryIO) -> None:
        f.write(head)
        for name, column in columns.items():
            f.seek(len(head) + places[name]["bytes"]["start"])
            f.write(np.ascontiguousarray(column).data)
        f.truncate(len(head) + end)

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_new(path, write)
    except OSError as e:
        logging.getLogger(__name__).warning(
            f"the index could not be kept in {path.parent} ({e}); it is rebuilt next time"
        )
        return False
    return True


def open_index(path: Path) -> IndexFile | None:
    """The stored index, or None where there is none, or only part of one, or that of another version."""
    for _ in range(TRIES):
        path = newest(path)
        try:
            with open(path, "rb") as f:
                key, start, header = _read_head(f)
                content = np.memmap(f, np.uint8, "r").view(np.ndarray)
            break
        except FileNotFoundError:  # another run may have written a newer one, and removed this one
            continue
        except (OSError, ValueError):
            return None
    else:
        return None
    if header["version"] != VERSION or len(content) != start + header["end"]:
        return None
    columns = {}
    for name, column in header["columns"].items():
        first, size = start + column["bytes"]["start"], column["bytes"]["size"]
        columns[name] = content[first : first + size].view(column["dtype"]).reshape(column["shape"])
    return IndexFile(path, key, start, header, columns)


def _read_head(f: BinaryIO) -> tuple[str, int, dict[str, Any]]:
    """Key (the hash of the header, which has those of the columns), where the columns start, and the header."""
    line = f.read(len(MAGIC) + 64 + 14)
    key, size = line[len(MAGIC) : -14].decode(), int(line[-14:])
    text = f.read(size)
    if not line.startswith(MAGIC) or hashlib.sha256(text).hexdigest() != key:
        raise ValueError(f"{f.name} is no index")
    return key, -(-(len(line) + size) // ALIGN) * ALIGN, json.loads(text)


def _undamaged(path: Path, offset: int, start: int, size: int, crc: int) -> bool:
    """Read, not mapped: it would count as memory of the process. A file that a newer one has replaced is none."""
    found = 0
    try:
        with open(path, "rb") as f:
            f.seek(offset + start)
            while size > 0 and (block := f.read(min(size, BLOCK))):
                found, size = zlib.crc32(block, found), size - len(block)
    except FileNotFoundError:
        return False
    return size == 0 and found == crc
