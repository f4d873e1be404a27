"""The files that an index depends on, and what they were like: a change of any is noticed by looking at them again."""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from data.index.columns import Paths
from utils.device.parallel import MOST, do_all
from utils.files import sha256, stamp

CHUNK = 4096  # files that a process looks at in one go ...
FEW = 4  # ... and up to so many of these are no work for several


@dataclass(frozen=True, eq=False)
class State:
    """Paths, and size and mtime_ns (k, 2) int64 of each, -1 where there is no such file."""

    paths: Paths  # pictures
    labels: Paths  # of each picture, or none at all
    watched: Paths  # what says which files there are: folders, lists, a json; a renamed file changes its folder's mtime
    path_stamps: np.ndarray
    label_stamps: np.ndarray
    watched_stamps: np.ndarray

    def take(self, pictures: np.ndarray) -> "State":
        """The same files, pictures (n,) in another order."""
        columns = {"paths": self.paths, "path_stamps": self.path_stamps}
        if len(self.labels):
            columns |= {"labels": self.labels, "label_stamps": self.label_stamps}
        return replace(self, **{name: column[pictures] for name, column in columns.items()})

    def same_places(self, hashes: dict[str, str]) -> bool:
        """Whether what is watched is as it was; of those with a sha256 the content counts, and not the time."""
        (now,) = stamp_all(self.watched)
        changed = np.flatnonzero((now != self.watched_stamps).any(1))
        return all(path in hashes and hashes[path] == sha256(path) for path in self.watched.take(changed))

    def same_files(self, more: list[Callable[[], bool]]) -> bool:
        """Whether every picture and label has the size and time it had, and every one of the checks `more` is true."""
        columns = [(self.paths, self.path_stamps), (self.labels, self.label_stamps)]
        jobs = [partial(_same, *column, *part) for column in columns for part in _parts(len(column[0]))]
        return all(do_all([*jobs, *more], fork=len(jobs) > FEW))


def stamp_all(*columns: Paths) -> list[np.ndarray]:
    """Stamps (n, 2) of the paths of each column, by several processes when there are many."""
    parts = [(paths, part) for paths in columns for part in _parts(len(paths))]
    found = iter(do_all([partial(_stamps, paths, *part) for paths, part in parts], fork=len(parts) > FEW))
    return [np.concatenate([np.zeros((0, 2), np.int64), *(next(found) for _ in _parts(len(p)))]) for p in columns]


def _parts(n: int) -> list[tuple[int, int]]:
    """First and past-the-last of each part of n files; few enough for three columns at once."""
    size = max(CHUNK, -(-4 * n // MOST))
    return [(start, min(start + size, n)) for start in range(0, n, size)]


def _stamps(paths: Paths, start: int, stop: int) -> np.ndarray:
    """Stamps (stop - start, 2); names from an open folder on save the kernel the way down from the root."""
    ends = (os.fsencode(paths[start]), os.fsencode(paths[stop - 1]))
    above = os.path.join(os.path.dirname(os.path.commonprefix(ends)), b"")  # of all, as they are sorted
    names = (b"\0" + paths.raw(start, stop)[:-1]).split(b"\0" + above)[1:]
    try:
        folder = os.open(above, os.O_RDONLY) if len(names) == stop - start else None  # None: not sorted, as in a json
    except OSError:  # also Windows, which opens no folders
        folder = None
    if folder is None:
        return np.array([stamp(name) for name in paths.stretch(start, stop)], np.int64)
    values: list[int] = []
    put, stat = values.append, os.stat
    for name in names:  # `stamp`, written out: a million calls are a tenth of the time
        try:
            info = stat(name, dir_fd=folder)
        except OSError:
            values += (-1, -1)
        else:
            put(info.st_size)
            put(info.st_mtime_ns)
    os.close(folder)
    return np.array(values, np.int64).reshape(-1, 2)


def _same(paths: Paths, stamps: np.ndarray, start: int, stop: int) -> bool:
    return np.array_equal(_stamps(paths, start, stop), stamps[start:stop])
