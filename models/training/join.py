"""The gradients of several ranks as one: added up by the backward before a step, and before a state is saved."""

import logging
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from utils.device.ranks import Ranks
from utils.device.together import add_up

log = logging.getLogger(__name__)


def join_model(model: nn.Module, ranks: Ranks, sync_bn: bool) -> nn.Module:
    """What makes the forward pass of training: the model itself, or with several ranks DDP around it.

    sync_bn: its BatchNorm takes the statistics of the pictures of all ranks, where they have GPUs.
    """
    if ranks.world_size == 1:
        return model
    if sync_bn and ranks.device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(model)  # its children, in place: parameters and names stay
    elif sync_bn:
        log.info("sync_bn needs GPUs: on a CPU each rank normalises its own pictures")
    return DistributedDataParallel(model)


def adding_up(forward: nn.Module, steps: bool) -> AbstractContextManager[None]:
    """Around forward and backward of a batch: the ranks exchange gradients only if a step follows."""
    joined = isinstance(forward, DistributedDataParallel)
    return forward.no_sync() if joined and not steps else nullcontext()


def share_window(model: nn.Module, ranks: Ranks) -> None:
    """Make the gradients of an open window those of all ranks, so that a state of one rank holds them.

    DDP takes means, and the mean of what has become equal is that: more batches may be added to the window.
    """
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    if ranks.world_size == 1 or not gradients:
        return
    mean = add_up(torch.cat([gradient.flatten() for gradient in gradients])) / ranks.world_size
    for gradient, part in zip(gradients, mean.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))
