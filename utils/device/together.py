"""What several ranks do together; every rank has to call it."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from utils.device.ranks import Ranks, open_device
from utils.errors import LeftAlone


def join_ranks(ranks: Ranks) -> None:
    """Open the device and join the process group, once: as late as can be, for data workers are forked before."""
    open_device(ranks.device)
    if ranks.world_size > 1 and not dist.is_initialized():
        # what lies on the host goes by gloo, and waits for no GPU
        backend = "cpu:gloo,cuda:nccl" if ranks.device.type == "cuda" else "gloo"
        with _signals_end_it():
            dist.init_process_group(backend, timeout=timedelta(hours=3))  # ranks wait while rank 0 draws and writes


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


@contextmanager
def told_when_left() -> Iterator[None]:
    """Turn the error that a rank meets where another one has gone into LeftAlone; gloo's has no type of its own."""
    try:
        yield
    except RuntimeError as e:
        if isinstance(e, dist.DistError) or "gloo" in str(e):
            raise LeftAlone(
                "another rank has ended, so this one cannot go on; torchrun's report names it. With --max-restarts 3 "
                "and --rdzv-backend c10d torchrun goes on from the last state by itself."
            ) from None
        raise


def stop_ranks() -> None:
    """Leave the process group, where there is one, when all ranks have come here.

    Not after an error: who waits for a rank that has left waits for the time-out, or ends with a traceback.
    """
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(torch.zeros(()))
        dist.destroy_process_group()


def from_rank_zero(value: float | bool, ranks: Ranks) -> float:
    """The value that rank 0 holds, on every rank."""
    if ranks.world_size == 1:
        return value
    tensor = torch.tensor([value], dtype=torch.float64)
    dist.broadcast(tensor, 0)
    return tensor.item()


class Agreed:
    """Numbers that any rank may say between two batches, heard by all of them between the same two.

    Nobody waits: what is heard is what was said a batch before.
    """

    def __init__(self, world_size: int = 1, count: int = 2) -> None:
        """count: of the numbers."""
        self.alone, self.said = world_size == 1, torch.zeros(count, dtype=torch.int32)
        self.work: dist.Work | None = None

    def hear(self, *mine: int) -> list[int]:
        """The largest that the ranks said the last time that they came here, at first 0; of one rank what it says."""
        if self.alone:
            return list(mine)
        if self.work:
            self.work.wait()
        heard = self.said.tolist()
        self.said = torch.tensor(mine, dtype=torch.int32)
        self.work = dist.all_reduce(self.said, dist.ReduceOp.MAX, async_op=True)
        return heard


def largest_of(value: float, ranks: Ranks) -> float:
    """The largest of what the ranks hold, on every rank."""
    return -smallest_of(-value, ranks)


def first_said(text: str, ranks: Ranks) -> str:
    """What the first rank that has something to say says, on every rank; empty: none has."""
    if ranks.world_size == 1:
        return text
    texts: list[str] = [""] * ranks.world_size
    dist.all_gather_object(texts, text)
    return next(filter(None, texts), "")


def smallest_of(value: float, ranks: Ranks) -> float:
    """The smallest of what the ranks hold, on every rank."""
    if ranks.world_size == 1:
        return value
    tensor = torch.tensor([value], dtype=torch.float64)
    dist.all_reduce(tensor, dist.ReduceOp.MIN)
    return tensor.item()


def add_up(value: torch.Tensor) -> torch.Tensor:
    """The sum of what the ranks hold, on every rank, without gradient; on a GPU nothing waits for it."""
    value = value.detach().clone()
    dist.all_reduce(value)
    return value


def gathered(value: Any, world_size: int) -> list[Any] | None:
    """What the ranks hold, in their order, on rank 0; None on the others."""
    if world_size == 1:
        return [value]
    values = [None] * world_size if dist.get_rank() == 0 else None
    dist.gather_object(value, values, 0)
    return values


def told(value: Any, world_size: int) -> Any:
    """What rank 0 holds, whatever it is, on every rank."""
    values = [value]
    if world_size > 1:
        dist.broadcast_object_list(values, 0)
    return values[0]


@torch.no_grad()
def copy_first(model: nn.Module, world_size: int) -> None:
    """Make the weights and statistics of a network those of rank 0: BatchNorm's differ from rank to rank."""
    if world_size == 1:
        return
    state = list(model.state_dict().values())
    for dtype in dict.fromkeys(tensor.dtype for tensor in state):
        mine = [tensor for tensor in state if tensor.dtype == dtype]
        flat = torch.cat([tensor.flatten() for tensor in mine])
        dist.broadcast(flat, 0)
        for tensor, part in zip(mine, flat.split([tensor.numel() for tensor in mine]), strict=True):
            tensor.copy_(part.view_as(tensor))
