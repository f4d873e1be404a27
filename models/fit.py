"""The largest batch that fits on a GPU, found by trying."""

import copy
import logging

import torch
from torch import nn

from utils.errors import UserError

log = logging.getLogger(__name__)
SHARE = 0.85  # of the GPU's memory: the optimizer, the EMA and unlucky batches with many boxes need the rest


def largest_batch(model: nn.Module, imgsz: int, dtype: torch.dtype | None, most: int = 1024) -> int:
    """Largest power of two, at most `most`, whose forward and backward pass stays below SHARE of the memory."""
    device = next(model.parameters()).device
    if device.type != "cuda":
        raise UserError("batch -1 (the largest that fits) needs a GPU; on a CPU name a number, 16 for instance.")
    limit = torch.cuda.get_device_properties(device).total_memory * SHARE
    trial = copy.deepcopy(model).train()
    batch, fits = 1, 0
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
