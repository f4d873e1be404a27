"""The same picture more than once, by content: a leak between splits, or a picture that counts twice in one."""

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from utils.device.parallel import parallel

TAIL = 4096  # bytes at the end of a file that tell nearly all files of one size apart
CHUNK = 256  # files per task


@dataclass(frozen=True)
class Copies:
    """Groups of pictures with one content: rows of group g are offsets[g] to offsets[g + 1], by split, then row."""

    splits: list[str]
    split: np.ndarray  # (k,) number of the split of each picture
    row: np.ndarray  # (k,) row in the index of that split
    offsets: np.ndarray  # (g + 1,)

    @property
    def groups(self) -> int:
        """Number of pictures that exist more than once."""
        return len(self.offsets) - 1

    def counts(self) -> np.ndarray:
        """How often the picture of each group is in each split: (g, splits)."""
        owner = np.repeat(np.arange(self.groups), np.diff(self.offsets))
        flat = np.bincount(owner * len(self.splits) + self.split, minlength=self.groups * len(self.splits))
        return flat.reshape(self.groups, len(self.splits))

    def first(self, group: int, split: int, skip: int = 0) -> int:
        """Row of the first picture of a group in a split, or of the one `skip` further."""
        low, high = self.offsets[group : group + 2]
        return int(self.row[low:high][self.split[low:high] == split][skip])


def find_copies(paths: dict[str, Sequence[str]]) -> Copies:
    """Pictures of equal content, within and between splits; only files that might be equal are read."""
    splits = list(paths)
    split = np.repeat(np.arange(len(splits)), [len(p) for p in paths.values()])  # (n,)
    row = np.concatenate([np.zeros(0, np.int64), *[np.arange(len(p)) for p in paths.values()]])
    files = _in_chunks(_identities, [path for p in paths.values() for path in p])  # (n,) of (device, inode, size)
    device, inode, size = np.array(files, np.int64).reshape(-1, 3).T
    devices, device = np.unique(device, return_inverse=True)
    file = np.unique(inode, return_inverse=True)[1] * len(devices) + device  # (n,) a link is its target: read once
    _, one, file = np.unique(file, return_index=True, return_inverse=True)

    def path_of(number: int) -> str:
        return paths[splits[split[one[number]]]][int(row[one[number]])]

    keys = size[one]
    for digests in (_tails, _digests):
        keys = _tell_apart(keys, path_of, digests)
    _, first, group, count = np.unique(keys[file], return_index=True, return_inverse=True, return_counts=True)
    order = np.lexsort((row, split, first[group]))  # groups in the order of their first pictures
    order = order[count[group[order]] > 1]
    count = count[np.argsort(first)]
    return Copies(splits, split[order], row[order], np.concatenate([[0], count[count > 1].cumsum()]))


def content_digests(paths: Sequence[str]) -> list[bytes | None]:
    """BLAKE2b (16 bytes) of each file, on all cores; None for one that cannot be read."""
    return _in_chunks(_digests, list(paths))


def _tell_apart(keys: np.ndarray, path_of: Callable[[int], str], digests: Callable) -> np.ndarray:
    """Keys (n,) such that files of equal key so far stay equal only if their digests are."""
    _, inverse, counts = np.unique(keys, return_inverse=True, return_counts=True)
    open_cases = np.flatnonzero(counts[inverse] > 1)
    ids: dict[tuple[int, bytes], int] = {}
    out = -1 - np.arange(len(keys))  # all different
    found = _in_chunks(digests, [path_of(i) for i in open_cases])
    for i, digest in zip(open_cases, found, strict=True):
        if digest is not None:
            out[i] = ids.setdefault((int(keys[i]), digest), len(ids))
    return out


def _in_chunks(function: Callable[[list[str]], list], items: list[str]) -> list:
    """Results of a function of a list of files, on all cores."""
    chunks = [items[i : i + CHUNK] for i in range(0, len(items), CHUNK)]
    return [result for part in parallel(function, chunks) for result in part]


def _identities(files: list[str]) -> list[tuple[int, int, int]]:
    return [_identity(file) for file in files]


def _identity(file: str) -> tuple[int, int, int]:
    """Device, inode, size; size -1 for a file that is gone."""
    try:
        info = os.stat(file)
    except OSError:
        return -1, hash(file) >> 1, -1
    inode = info.st_ino or hash(file) >> 1  # some network drives number every file 0
    return info.st_dev & 0x7FFFFFFFFFFFFFFF, inode & 0x7FFFFFFFFFFFFFFF, info.st_size


def _tails(files: list[str]) -> list[bytes | None]:
    return [_digest(file, -TAIL) for file in files]


def _digests(files: list[str]) -> list[bytes | None]:
    return [_digest(file, 0) for file in files]


def _digest(file: str, start: int) -> bytes | None:
    """BLAKE2b of a file, from `start` (below 0: counted from its end); None when it cannot be read."""
    try:
        with open(file, "rb") as f:
            if start < 0:
                f.seek(-min(-start, os.fstat(f.fileno()).st_size), os.SEEK_END)
            return hashlib.file_digest(f, lambda: hashlib.blake2b(digest_size=16)).digest()
    except OSError:
        return None
