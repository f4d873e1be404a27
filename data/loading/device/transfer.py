"""Host memory that a GPU copies from: page-locked, and not written over before a copy has been made."""

import contextlib
import logging
import os
import weakref
from collections import deque

import numpy as np
import torch
from torch import Tensor

log = logging.getLogger(__name__)
_said: list[str] = []  # why the system refused, the first time


class Copies:
    """The copies to the GPU that are on their way, oldest first, each as an event behind it in its stream."""

    def __init__(self) -> None:
        self.events: deque[torch.cuda.Event] = deque()

    def begun(self) -> None:
        """Everything that the current stream has been given up to now belongs to one copy."""
        self.events.append(torch.cuda.Event())
        self.events[-1].record()

    def wait(self, but: int = 0) -> None:
        """Wait until at most `but` of them are left."""
        while len(self.events) > but:
            self.events.popleft().synchronize()


def lock_pages(array: np.ndarray, owner: object, copies: Copies) -> bool:
    """Page-lock the memory of an array until `owner` goes; False where the system refuses, as WSL and low limits do.

    Memory that stays registered when it is unmapped makes the next ring at its address an error.
    """
    error = torch.cuda.cudart().cudaHostRegister(array.ctypes.data, array.nbytes, 0)
    if _failed(error):
        return False
    weakref.finalize(owner, _unlock, array.ctypes.data, copies, os.getpid())
    return True


def _unlock(address: int, copies: Copies, owner: int) -> None:
    """What a ring does at its end; a worker that has inherited it leaves the memory alone."""
    if os.getpid() == owner:
        copies.wait()
        _failed(torch.cuda.cudart().cudaHostUnregister(address))


def _failed(error: object) -> bool:
    """Whether a call of the CUDA runtime was refused, which is said once; what it leaves behind is cleared away."""
    try:
        torch.cuda.check_error(error)
    except RuntimeError as e:
        say_refused(str(e).splitlines()[0])
        with contextlib.suppress(Exception):  # the next kernel asks for the last error, whose ever it is, and clears it
            torch.ones(1, device="cuda").add_(1)
        return True
    return False


def say_refused(why: str) -> None:
    """One line, whatever number of batches it concerns."""
    if not _said:
        _said.append(why)
        log.info(f"the system locks no memory into place ({why}): batches are copied once more on their way to the GPU")


def page_locked(shape: tuple[int, ...]) -> Tensor:
    """Room for uint8, page-locked where the system allows it."""
    try:
        return torch.empty(shape, dtype=torch.uint8, pin_memory=True)
    except RuntimeError as e:
        say_refused(str(e).splitlines()[0])
        return torch.empty(shape, dtype=torch.uint8)


def locked_copy(img: Tensor) -> Tensor:
    """A copy in page-locked memory, which torch keeps until the GPU has read it; where it is refused, img itself."""
    try:
        return img.pin_memory()
    except RuntimeError as e:
        say_refused(str(e).splitlines()[0])
        return img
