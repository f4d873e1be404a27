"""Ranks as forks of the test process, joined by gloo: no interpreter starts, nothing is imported again."""

import gc
import os
import pickle
import tempfile
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # a rank's first step imports it, in more than a second: here once for all forks
import torch.distributed as dist

from utils.device.ranks import Ranks
from utils.device.together import stop_ranks


def on_ranks(world_size: int, job: Callable[[Ranks], Any], seconds: float = 120) -> list[Any]:
    """What `job` returns on each rank, in order; AssertionError with the traceback of every rank that failed."""
    with tempfile.TemporaryDirectory(prefix="preheat-test-ranks-") as folder:
        children = [
            _fork(Ranks(rank, world_size, torch.device("cpu")), job, Path(folder), seconds)
            for rank in range(world_size)
        ]
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        files = [Path(folder, str(rank)) for rank in range(world_size)]
        said = "\n".join(file.with_suffix(".txt").read_text() for file in files if file.with_suffix(".txt").exists())
        assert not any(codes), f"exit codes {codes}\n{said}"
        return [pickle.loads(file.read_bytes()) for file in files]


def _fork(ranks: Ranks, job: Callable[[Ranks], Any], folder: Path, seconds: float) -> int:
    """Process id of a rank that does the job and writes what it returns, or its traceback."""
    child = os.fork()
    if child:
        return child
    gc.freeze()
    code, result = 1, folder / str(ranks.rank)
    try:
        torch.set_num_threads(1)
        os.environ.update(RANK=str(ranks.rank), LOCAL_RANK=str(ranks.rank))
        os.environ.update(WORLD_SIZE=str(ranks.world_size), LOCAL_WORLD_SIZE=str(ranks.world_size))
        store = dist.FileStore(str(folder / "store"), ranks.world_size)
        gloo = {"store": store, "rank": ranks.rank, "world_size": ranks.world_size}
        dist.init_process_group("gloo", timeout=timedelta(seconds=seconds), **gloo)
        result.write_bytes(pickle.dumps(job(ranks)))
        stop_ranks()
        code = 0
    except BaseException:
        result.with_suffix(".txt").write_text(f"rank {ranks.rank}: {traceback.format_exc()}")
    finally:
        os._exit(code)
