"""Arrays in memory that processes share."""

import mmap
import os
from multiprocessing.reduction import DupFd
from typing import Any

import numpy as np


class SharedArray:
    """Zeros that forked and spawned processes share; not in /dev/shm, which containers keep small. Linux only."""

    def __init__(self, shape: tuple[int, ...], dtype: Any):
        self.shape, self.dtype = shape, np.dtype(dtype)
        self.fd = os.memfd_create("preheat")
        os.ftruncate(self.fd, self._bytes())
        self._map()

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
        os.close(self.fd)  # the mapping has its own
