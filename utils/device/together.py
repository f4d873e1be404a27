"""What several ranks do together; every rank has to call it."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist

from utils.device.ranks import Ranks, open_device


def join_ranks(ranks: Ranks) -> None:
    """Open the device and join the process group, once: as late as can be, for data workers are forked before."""
    open_device(ranks.device)
    if ranks.world_size > 1 and not dist.is_initialized():
        with _signals_end_it():
            # ranks wait while rank 0 evaluates
            dist.init_process_group("nccl" if ranks.device.type == "cuda" else "gloo", timeout=timedelta(hours=3))


@contextmanager
def _signals_end_it() -> Iterator[None]:
    """Signals end the process where it waits for the others in C, in which Python's handlers do not run.

    Otherwise torchrun would wait 30 seconds for the ranks that do not know yet that another one has ended.
    """
    before = {number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def stop_ranks() -> None:
    """Leave the process group, where there is one."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def from_rank_zero(value: float | bool, ranks: Ranks) -> float:
    """The value that rank 0 holds, on every rank."""
    if ranks.world_size == 1:
        return value
    tensor = torch.tensor([value], dtype=torch.float64, device=ranks.device)
    dist.broadcast(tensor, 0)
    return tensor.item()


def smallest_of(value: float, ranks: Ranks) -> float:
    """The smallest of what the ranks hold, on every rank."""
    if ranks.world_size == 1:
        return value
    tensor = torch.tensor([value], dtype=torch.float64, device=ranks.device)
    dist.all_reduce(tensor, dist.ReduceOp.MIN)
    return tensor.item()


def add_up(value: torch.Tensor) -> torch.Tensor:
    """The sum of what the ranks hold, on every rank, without gradient; on a GPU nothing waits for it."""
    value = value.detach().clone()
    dist.all_reduce(value)
    return value
