"""The size of a batch: the largest that fits on a GPU, found by trying; the smallest that BatchNorm can take."""

import copy
import logging
from collections.abc import Callable

import torch
from torch import nn

from models.freeze import keep_frozen_bn_eval
from utils.config.schema import Hyp
from utils.errors import UserError
from utils.run.ranks import DTYPES, Ranks, from_rank_zero, join_ranks, pick_amp

log = logging.getLogger(__name__)
SHARE = 0.85  # of the GPU's memory: the optimizer, the EMA and unlucky batches with many boxes need the rest


def settle(hyp: Hyp, ranks: Ranks, model: nn.Module) -> Hyp:
    """Settle what depends on the device: amp, and batch -1, to measure which the device is opened early."""
    amp, batch = pick_amp(hyp.amp, ranks.device), hyp.batch
    if batch == -1:
        join_ranks(ranks)
        model.to(ranks.device, memory_format=torch.channels_last)
        batch = int(from_rank_zero(largest_batch(model, hyp.imgsz, DTYPES[amp]), ranks)) * ranks.world_size
        log.info(f"batch {batch} is the largest that fits")
    return hyp.model_copy(update={"amp": amp, "batch": batch})


def largest_batch(model: nn.Module, imgsz: int, dtype: torch.dtype | None, most: int = 1024) -> int:
    """Largest power of two, at most `most`, whose forward and backward pass stays below SHARE of the memory."""
    device = next(model.parameters()).device
    if device.type != "cuda":
        raise UserError("batch -1 (the largest that fits) needs a GPU; on a CPU name a number, 16 for instance.")
    limit = torch.cuda.get_device_properties(device).total_memory * SHARE
    trial = copy.deepcopy(model).train()
    batch, fits = 2 if single_values(model, imgsz) else 1, 0
    while batch <= most:
        try:
            torch.cuda.reset_peak_memory_stats(device)
            _forward_backward(trial, batch, imgsz, dtype, device)
        except torch.cuda.OutOfMemoryError:
            break
        used = torch.cuda.max_memory_allocated(device)
        log.info(f"batch {batch}: {used / 2**30:.2f} GiB")
        if used > limit:
            break
        batch, fits = batch * 2, batch
    del trial
    torch.cuda.empty_cache()
    if not fits:
        raise UserError(
            f"not even one picture of {imgsz} px fits on {torch.cuda.get_device_name(device)}; lower imgsz."
        )
    return fits


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


def _forward_backward(
    model: nn.Module, batch: int, imgsz: int, dtype: torch.dtype | None, device: torch.device
) -> None:
    images = torch.rand(batch, 3, imgsz, imgsz, device=device).contiguous(memory_format=torch.channels_last)
    with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
        outputs = model(images)
    _total(outputs).backward()
    model.zero_grad(set_to_none=True)


def _total(outputs: object) -> torch.Tensor:
    """Sum of every floating tensor in nested outputs: a stand-in for the loss that touches the whole network."""
    if isinstance(outputs, torch.Tensor):
        return outputs.float().sum()
    values = outputs.values() if isinstance(outputs, dict) else outputs
    return sum(_total(v) for v in values)
