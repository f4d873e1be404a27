"""Arrays in memory that processes share."""

import contextlib
import mmap
import os
import socket
from collections.abc import Callable
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import Any

import numpy as np

from utils.env import cache_dir
from utils.files import locked, write_whole


class SharedArray:
    """Zeros that forked and spawned processes share; not in /dev/shm, which containers keep small. Linux only."""

    def __init__(self, shape: tuple[int, ...], dtype: Any, name: str = "preheat"):
        self.shape, self.dtype = shape, np.dtype(dtype)
        self.fd = os.memfd_create(name)
        os.ftruncate(self.fd, self._bytes())
        self._map()

    @classmethod
    def of_another(cls, place: str, shape: tuple[int, ...], dtype: Any, name: str) -> "SharedArray | None":
        """The array of another process at /proc/PID/fd/NUMBER; None where there is none of that name and size."""
        array = cls.__new__(cls)
        array.shape, array.dtype = shape, np.dtype(dtype)
        array.fd = -1
        with contextlib.suppress(OSError):
            if os.readlink(place).startswith(f"/memfd:{name} "):
                array.fd = os.open(place, os.O_RDWR)
        if array.fd < 0 or os.fstat(array.fd).st_size != array._bytes():
            return None
        array._map()
        return array

    def _bytes(self) -> int:
        return max(int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize, 1)

    def _map(self) -> None:
        count = int(np.prod(self.shape, dtype=np.int64))
        self.array = np.frombuffer(mmap.mmap(self.fd, self._bytes()), self.dtype, count).reshape(self.shape)

    def __getstate__(self) -> dict[str, Any]:
        return {"shape": self.shape, "dtype": self.dtype, "fd": DupFd(self.fd)}  # while a process is being spawned

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state | {"fd": state["fd"].detach()})
        self._map()

    def __del__(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)  # the mapping has its own


def by_all_ranks(size: int, key: str, fill: Callable[[np.ndarray], None]) -> SharedArray:
    """Bytes (size,) that the ranks of this machine share: who comes first fills them, the others map the same memory.

    key: what they hold. Where they lie stands in a file of the cache folder while torchrun, the parent of all, lives.
    """
    name, here = f"preheat-{key}", f"ranks-{socket.gethostname()}"
    note = cache_dir() / "pictures" / f"{here}-{os.getppid()}-{key}.txt"
    note.parent.mkdir(parents=True, exist_ok=True)
    with locked(note.with_suffix(".lock"), "waiting: another rank decodes the pictures"):
        for left in note.parent.glob(f"{here}-*.txt"):  # by ranks whose torchrun has ended
            if not Path("/proc", left.name.removeprefix(f"{here}-").split("-")[0]).exists():
                left.unlink(missing_ok=True)
        found = note.is_file() and SharedArray.of_another(note.read_text(), (size,), np.uint8, name)
        if not found:
            found = SharedArray((size,), np.uint8, name)
            fill(found.array)
            write_whole(note, f"/proc/{os.getpid()}/fd/{found.fd}".encode())
    return found
