"""Worker processes of torch's DataLoader: how they start, what they may need, how they end."""

import multiprocessing
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import torch

from data.loading.workers.batch import Batch
from data.loading.workers.ring import died
from utils.device.parallel import leave_signals_to_parent
from utils.errors import UserError

AHEAD = 4  # batches that each worker process makes ahead in training
SHM = Path("/dev/shm")  # where torch passes batches between processes on Linux


def check_shared_memory(needed: int) -> None:
    """UserError where /dev/shm has no room for the bytes of all batches on their way: torch would wait for ever."""
    free = shutil.disk_usage(SHM).free if SHM.is_dir() else needed
    if free < needed:
        raise UserError(
            f"--loader torch passes batches through {SHM}, where {free / 2**20:.0f} MB are free and up to "
            f"{needed / 2**20:.0f} MB are needed. Leave it out (--loader ring needs none), use fewer --workers or "
            "a smaller --batch, or give the container more (docker run --shm-size 8g)."
        )


def processes(workers: int, pin: bool) -> dict[str, object]:
    """Arguments of DataLoader for a number of worker processes; 0: in this process."""
    own = torch.Generator()  # else every epoch draws from torch's global one: samples do not use it, a model may
    if workers == 0:
        return {"num_workers": 0, "pin_memory": pin, "generator": own}
    cv2.setNumThreads(1)  # ends OpenCV's threads: a forked worker would wait for ever for those of its parent
    return {
        "num_workers": workers,
        "pin_memory": pin,
        "generator": own,
        "persistent_workers": True,
        "prefetch_factor": AHEAD,
        "worker_init_fn": _start_worker,
        "multiprocessing_context": multiprocessing.get_context(_start_method()),
    }


def _start_method() -> str:
    """fork shares the index and starts at once; a forked CUDA context is undefined, so then a fresh process.

    Whoever uses a GPU builds the loaders and calls their `start` before it opens the GPU: then all are forked.
    """
    return "fork" if sys.platform == "linux" and not torch.cuda.is_initialized() else "spawn"


def _start_worker(worker: int) -> None:
    cv2.setNumThreads(1)
    leave_signals_to_parent()


def batches_of(iterator: Iterator[Batch]) -> Iterator[Batch]:
    """The batches of torch's iterator; a UserError from a worker loses the traceback that torch wrote into its text."""
    try:
        yield from iterator
    except UserError as e:
        end_workers(iterator)
        raise UserError(str(e).rpartition("UserError: ")[2].strip()) from None
    except RuntimeError:
        codes = [w.exitcode for w in getattr(iterator, "_workers", ()) if w.exitcode]
        end_workers(iterator)
        if not codes:
            raise
        raise UserError(died(codes[0])) from None


def end_workers(iterator: Any) -> None:
    """End the worker processes of torch's iterator, if it has any.

    Left to the garbage collector, which an exception's traceback does, torch closes their queues before it tells them,
    and then waits 5 s for them.
    """
    if hasattr(iterator, "_shutdown_workers"):
        iterator._shutdown_workers()
