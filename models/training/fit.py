"""The size of a batch: the largest that fits on a GPU, found by trying; the smallest that BatchNorm can take."""

import copy
import logging
import math
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from models.detector import loss_of
from models.training.freeze import keep_frozen_bn_eval
from models.training.graph import CAPTURE, Capture, Graphed
from models.weights.variant import is_anchor_based
from utils.config.schema import Hyp, with_gains
from utils.device.images import preprocess
from utils.device.ranks import DTYPES, Ranks, pick_amp
from utils.device.together import join_ranks, smallest_of
from utils.errors import UserError

log = logging.getLogger(__name__)
SHARE = 0.9  # of what is free: pieces that nobody can use, and batches with more boxes than expected, need the rest


@dataclass(frozen=True)
class Demand:
    """What the data ask of a training step, beside the number of pictures."""

    boxes: int  # of the fullest picture
    counts: np.ndarray  # (nc,) boxes of each class
    recolour: Callable[[Tensor], Tensor] | None = None  # colours of pictures (b, 3, h, w) uint8 that the device changes


def settle(hyp: Hyp, ranks: Ranks, model: nn.Module, demand: Demand) -> Hyp:
    """Settle what depends on network and device: gains, amp, and batch -1, for which the device is opened early."""
    hyp = with_gains(hyp, is_anchor_based(model.yaml)).model_copy(update={"amp": pick_amp(hyp.amp, ranks.device)})
    if hyp.batch != -1:
        return hyp
    if ranks.device.type != "cuda":
        raise UserError("batch -1 (the largest that fits) needs a GPU; on a CPU name a number, 16 for instance.")
    join_ranks(ranks)
    model.to(ranks.device, memory_format=torch.channels_last)
    batch = int(smallest_of(largest_batch(model, hyp, demand), ranks)) * ranks.world_size
    log.info(f"batch {batch} is the largest that fits")
    return hyp.model_copy(update={"batch": batch})


def largest_batch(model: nn.Module, hyp: Hyp, demand: Demand, standing: bool = True, most: int = 1024) -> int:
    """Pictures of this rank, at most `most`, with which a whole training step takes up SHARE of what is free.

    standing: whether optimizer, average and gradients of ranks are still to come.
    """
    device, size = next(model.parameters()).device, largest_size(hyp, int(model.stride.max()))
    reserved = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    free = (torch.cuda.mem_get_info(device)[0] + reserved) * SHARE - standing * standing_bytes(model, hyp)
    trial = copy.deepcopy(model).train()
    loss_fn = loss_of(trial, hyp, demand.counts)

    def fits(batch: int) -> bool:
        used = 0
        try:
            for work in trial_work(trial, loss_fn, batch, size, hyp, demand):
                used += peak_bytes(work, device, hyp.graph)
        except torch.OutOfMemoryError:
            return False
        finally:
            trial.zero_grad(set_to_none=True)
            torch.cuda.empty_cache()  # what one size leaves in pieces is not to be missing from another
        log.info(f"batch {batch}: {used / 2**30:.2f} of {free / 2**30:.2f} GiB")
        return used <= free

    found = largest_fitting(fits, 2 if single_values(model, size) else 1, most)
    if not found:
        where = torch.cuda.get_device_name(device)
        raise UserError(f"not even one picture of {size} px fits on {where} beside what is there; lower imgsz.")
    return found


def peak_bytes(work: Callable[[], object], device: torch.device, pools: bool) -> int:
    """The most bytes of the GPU that some work holds at once; pools: as the allocator has them, not as they are used.

    A graph keeps all the memory that it was recorded with, used or not, and nobody else gets it.
    """
    count, most = (
        (torch.cuda.memory_reserved, torch.cuda.max_memory_reserved)
        if pools
        else (torch.cuda.memory_allocated, torch.cuda.max_memory_allocated)
    )
    before = count(device)
    torch.cuda.reset_peak_memory_stats(device)
    work()
    return most(device) - before


def trial_work(
    model: nn.Module, loss_fn: Callable, batch: int, size: int, hyp: Hyp, demand: Demand, capture: Capture = CAPTURE
) -> list[Callable[[], object]]:
    """What a run does with a batch, each part with memory of its own: they take place at the same time.

    With `graph` the recorded step keeps its memory beside that of steps that are not recorded: of an epoch's last
    batch, or of another size. Colours are changed in the stream that brings the next batch.
    """
    step = partial(trial_step, loss_fn=loss_fn, batch=batch, boxes=demand.boxes, dtype=DTYPES[hyp.amp])
    parts: list[Callable[[], object]] = []

    def recorded_and_not() -> None:
        graphed = Graphed(model, (batch, 3, hyp.imgsz, hyp.imgsz), DTYPES[hyp.amp], capture)
        step(graphed, device=device, size=hyp.imgsz)
        step(model, device=device, size=size)
        del graphed

    device = next(model.parameters()).device
    parts.append(recorded_and_not if hyp.graph else partial(step, model, device=device, size=size))
    if demand.recolour:
        pixels = torch.zeros(1, 3, size, size, dtype=torch.uint8, device=device)
        parts.append(lambda: demand.recolour(pixels.repeat(batch, 1, 1, 1)))
    return parts


def largest_fitting(fits: Callable[[int], bool], first: int, most: int) -> int:
    """The largest number from `first` to `most` that fits, within an eighth of it; 0: not even the first one."""
    low, high = 0, first if first <= most else 0
    while high and fits(high):
        low = high
        if high == most:
            return most
        high = min(2 * high, most)
    while low and high - low > max(low // 8, 1):
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def standing_bytes(model: nn.Module, hyp: Hyp) -> int:
    """Bytes that a run holds from its first step to its last beside the network: average, optimizer, buckets of DDP."""
    own = [p.numel() * p.element_size() for p in model.parameters() if p.requires_grad]
    of_optimizer = 2 if hyp.optimizer != "sgd" else 1 if hyp.momentum or hyp.warmup_momentum else 0
    buckets = dist.is_available() and dist.is_initialized()
    average = sum(v.numel() * v.element_size() for v in model.state_dict().values())
    return average + (of_optimizer + buckets) * sum(own)


def trial_step(
    forward: Callable[[Tensor], object],
    loss_fn: Callable,
    batch: int,
    size: int,
    boxes: int,
    dtype: torch.dtype | None,
    device: torch.device,
) -> Tensor:
    """Forward, criterion and backward as in training, of `batch` pictures with `boxes` boxes each; returns the loss."""
    pixels = torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8, device=device)
    images, _ahead = (preprocess(pixels, device, True) for _ in range(2))  # the next batch is on its way by then
    side = torch.linspace(0.02, 0.5, boxes)  # of every size: large boxes have more candidates
    rows = torch.stack((torch.full_like(side, 0.5), torch.full_like(side, 0.5), side, side), 1)
    place = torch.arange(batch, dtype=torch.float32).repeat_interleave(boxes)
    targets = {"cls": torch.zeros(batch * boxes), "bboxes": rows.repeat(batch, 1), "batch_idx": place}
    with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
        preds = forward(images)
    loss, _ = loss_fn(preds, targets)
    loss.backward()
    return loss.detach()


@contextmanager
def told_when_full(hyp: Hyp, ranks: int, largest: Callable[[int], int]) -> Iterator[None]:
    """Turn an OutOfMemoryError into a UserError that names a batch with which there would have been none.

    largest: pictures of a rank that fit, of at most so many; asked when what the failed step held has been let go.
    """
    try:
        yield
        return
    except torch.OutOfMemoryError as e:
        said = str(e).splitlines()[0]
        traceback.clear_frames(e.__traceback__)
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    fits = largest(max(hyp.batch // ranks - 1, 0)) * ranks
    raise UserError(
        f"the GPU's memory does not hold a step of --batch {hyp.batch} at imgsz {hyp.imgsz} ({said}). "
        f"--batch {fits} would fit; nbs keeps the pictures of an optimizer step as they are."
    )


def largest_size(hyp: Hyp, stride: int) -> int:
    """The largest side of a training picture that `multi_scale` may give, pixels."""
    return math.ceil(hyp.imgsz * (1 + hyp.multi_scale) / stride) * stride if hyp.multi_scale else hyp.imgsz


def require_statistics(model: nn.Module, hyp: Hyp, fewest: int) -> None:
    """UserError where a BatchNorm would be trained on a single value per channel, which has no variance.

    fewest: pictures of this rank in the smallest batch.
    """
    smallest = smallest_size(hyp, int(model.stride.max()))
    layers = single_values(model, smallest) if fewest == 1 else []
    if layers:
        varying = f" (multi_scale {hyp.multi_scale:g} of imgsz {hyp.imgsz})" if smallest < hyp.imgsz else ""
        lower = ", a smaller multi_scale" if varying else ""
        raise UserError(
            f"a batch of one picture: the smallest of batch {hyp.batch}, shared by the ranks, has a single one, and at "
            f"{smallest} px{varying} {len(layers)} BatchNorm layers, {layers[0]} the first, see one value per channel, "
            f"which they cannot normalise. Use another --batch, so that no picture is left alone{lower}, or a larger "
            "--imgsz."
        )


def smallest_size(hyp: Hyp, stride: int) -> int:
    """The smallest side of a training picture that `multi_scale` may give, pixels."""
    return max(int(hyp.imgsz * (1 - hyp.multi_scale) // stride) * stride, stride) if hyp.multi_scale else hyp.imgsz


@torch.no_grad()
def single_values(model: nn.Module, size: int) -> list[str]:
    """Names of the BatchNorm layers that train and see one value per channel of one picture of size x size pixels."""
    trial = copy.deepcopy(model).train()
    keep_frozen_bn_eval(trial)
    found: list[str] = []

    def watch(name: str) -> Callable[[nn.Module, tuple[torch.Tensor]], None]:
        def look(_: nn.Module, inputs: tuple[torch.Tensor]) -> None:
            if inputs[0].numel() == inputs[0].shape[1]:
                found.append(name)

        return look

    for name, module in trial.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training:
            module.register_forward_pre_hook(watch(name))
    trial.eval()(torch.zeros(1, 3, size, size, device=next(trial.parameters()).device))
    return found
