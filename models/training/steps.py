"""Optimizer steps outside a run: to find out what a rate does, with everything that a run trains with."""

import copy
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from models.training.freeze import keep_frozen_bn_eval
from models.training.optim import optimizer_step, set_rates
from models.training.state import Training
from utils.schedule.rates import Rates


@dataclass(frozen=True)
class Step:
    """What one optimizer step saw before it was taken."""

    loss: float  # mean over its pictures, gains included, all parts together
    parts: dict[str, float]
    norm: float  # of the gradient, before clipping


def take_steps(
    t: Training,
    batches: Iterator[dict[str, Any]],
    rates: Iterable[Rates],
    prepare: Callable[[dict[str, Any], int], Tensor],
    clip_norm: float | None,
    dtype: torch.dtype | None,
) -> Iterator[Step]:
    """One step for each of `rates`, over as many batches as it accumulates, as a run takes it; whoever asks may stop.

    prepare: a batch and its number -> pictures (b, 3, h, w) in 0..1 on the device. dtype: of autocast, None for full
    precision. EMA, optimizer and weights of `t` move as in a run; its progress does not.
    """
    device = next(t.model.parameters()).device
    t.model.train()
    keep_frozen_bn_eval(t.model)
    nominal = t.schedule.total - 1  # a batch at which the window is as long as it gets
    ni = 0
    for now in rates:
        set_rates(t.optimizer, now)
        sums, pictures = torch.zeros(len(t.loss_fn.names), device=device), 0
        for _ in range(now.accumulate):
            batch = next(batches)
            images = prepare(batch, ni)
            with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
                preds = t.model(images)
            loss, items = t.loss_fn(preds, batch)
            t.scaler.scale(loss * t.schedule.loss_factor(nominal, len(images))).backward()
            sums, pictures, ni = sums + items * len(images), pictures + len(images), ni + 1
        norm = optimizer_step(t.model, t.optimizer, t.scaler, t.ema, clip_norm)
        parts = dict(zip(t.loss_fn.names, (sums / pictures).tolist(), strict=True))
        yield Step(sum(parts.values()), parts, float(norm))


@contextmanager
def restored(model: nn.Module) -> Iterator[nn.Module]:
    """Whatever is done to the weights and statistics of a network meanwhile is undone in the end."""
    before, training = copy.deepcopy(model.state_dict()), model.training
    try:
        yield model
    finally:
        model.load_state_dict(before)
        model.train(training)


@torch.no_grad()
def with_priors(model: nn.Module) -> nn.Module:
    """A copy of a detector that knows nothing but its priors: of each class the same in every cell, of a box's side all
    distances alike; its losses are what a fresh head begins with."""
    naive = copy.deepcopy(model)
    head = naive.model[-1]
    for branch in (getattr(head, name, None) for name in ("cv3", "one2one_cv3")):
        for level, stride in zip(branch or (), head.stride.tolist(), strict=False):
            level[-1].weight.zero_()
            level[-1].bias.fill_(math.log(5 / head.nc / (640 / stride) ** 2))
    for branch in (getattr(head, name, None) for name in ("cv2", "one2one_cv2")):
        for level in branch or ():
            level[-1].weight.zero_()
            level[-1].bias.zero_()
    return naive
