"""Forward and backward of the network as CUDA graphs: two tasks a batch for the host to give, not a thousand."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from utils.config.schema import Hyp
from utils.device.ranks import Ranks
from utils.errors import UserError

Capture = Callable[[nn.Module, tuple[Tensor, ...]], Callable[[Tensor], Any]]


def capture_options(record: Callable[..., Any]) -> dict[str, str]:
    """What torch's function that records is told: a thread that writes last.pt may use the GPU meanwhile.

    Before torch 2.14 it cannot be told. A run records at its first batch, when no such thread is at work.
    """
    knows = "capture_error_mode" in inspect.signature(record).parameters
    return {"capture_error_mode": "thread_local"} if knows else {}


CAPTURE: Capture = partial(torch.cuda.make_graphed_callables, **capture_options(torch.cuda.make_graphed_callables))


def require_graphs(hyp: Hyp, ranks: Ranks) -> None:
    """UserError where graphs are asked for and cannot be."""
    if hyp.graph and (ranks.device.type != "cuda" or ranks.world_size > 1):
        raise UserError("graph: true needs one GPU and one rank. Use graph=false.")


class Body(nn.Module):
    """What is recorded: the network's own forward, which stays as it is."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Any:
        return self.model(images)


class Graphed:
    """The forward pass of training, recorded with its backward at the first batch of `shape`, and replayed after it.

    Batches of another shape (an epoch's last one, multi_scale) go through `model` itself. Outputs and gradients live
    in buffers that the next replay writes over: outputs are used by then, gradients are added to those of the window.
    """

    def __init__(self, model: nn.Module, shape: tuple[int, ...], dtype: torch.dtype | None, capture: Capture = CAPTURE):
        """shape (b, 3, h, w) of a whole batch; dtype: of autocast, None for full precision."""
        self.model, self.shape, self.dtype, self.capture = model, shape, dtype, capture
        self.replay: Callable[[Tensor], Any] | None = None
        self.trained = [p for p in model.parameters() if p.requires_grad]

    def __call__(self, images: Tensor) -> Any:
        """The raw output of the head for images (b, 3, h, w)."""
        if tuple(images.shape) != self.shape:
            return self.model(images)
        if self.replay is None:
            self.replay = self._recorded(images)
        for p in self.trained:
            if p.grad is None:  # else autograd takes the buffer itself for the gradient, and the next replay changes it
                p.grad = torch.zeros_like(p)
        return self.replay(images)

    def _recorded(self, images: Tensor) -> Callable[[Tensor], Any]:
        """The network as graphs. torch lets it run a few times first, which BatchNorm's statistics are not to show."""
        buffers = list(self.model.buffers())
        before = [buffer.clone() for buffer in buffers]
        device = images.device.type
        with torch.autocast(device, dtype=self.dtype, enabled=self.dtype is not None, cache_enabled=False):
            replay = self.capture(Body(self.model), (images.clone(),))
        for buffer, value in zip(buffers, before, strict=True):
            buffer.copy_(value)
        return replay
