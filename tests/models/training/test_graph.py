"""What is around CUDA graphs, on a CPU: buffers as torch's graphs have them, plain calls in place of replays."""

import copy
import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from models.detector import build_detector
from models.loss.detection import DetectionLoss
from models.training.graph import Graphed, capture_options, require_graphs
from models.training.optim import build_optimizer
from tests.helpers.runs import TINY
from tests.helpers.zoo import thinned
from utils.config.schema import Hyp
from utils.device.ranks import Ranks
from utils.errors import UserError

HYP = Hyp(imgsz=96, epochs=1)


def captured(module: nn.Module, sample: tuple[Tensor, ...]) -> Callable[[Tensor], Any]:
    """As torch.cuda.make_graphed_callables: warms up, and hands out the same memory at every call."""
    given, inside = sample[0], tuple(module.parameters())
    parameters = [p for p in inside if p.requires_grad]
    enabled, dtype = torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")
    assert not (enabled and torch.is_autocast_cache_enabled()), "torch refuses that"
    for _ in range(3):
        module(given)
    outputs: list[Tensor] = []
    gradients: list[Tensor] = []

    def forward_again() -> tuple[list[Tensor], Any]:
        with torch.enable_grad(), torch.autocast("cpu", dtype=dtype, enabled=enabled, cache_enabled=False):
            return tree_flatten(module(given))

    class Replayed(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, images: Tensor, *_: Tensor) -> tuple[Tensor, ...]:
            given.copy_(images)
            ctx.made, ctx.spec = forward_again()
            Replayed.spec = ctx.spec
            outputs.extend(torch.empty_like(made) for made in ctx.made[len(outputs) :])
            for output, made in zip(outputs, ctx.made, strict=True):
                output.copy_(made.detach())
            return tuple(output.detach() for output in outputs)

        @staticmethod
        def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
            found = torch.autograd.grad([made for made in ctx.made if made.requires_grad], parameters, grads)
            gradients.extend(torch.empty_like(one) for one in found[len(gradients) :])
            for gradient, one in zip(gradients, found, strict=True):
                gradient.copy_(one)
            places = iter(gradients)
            return None, *(next(places).detach() if p.requires_grad else None for p in inside)

    return lambda images: tree_unflatten(list(Replayed.apply(images, *inside)), Replayed.spec)


def trained(model: nn.Module, forward: Callable[[Tensor], Any], dtype: torch.dtype | None) -> dict[str, Tensor]:
    """The state after windows of two batches of 4 pictures, the last one with a batch of 3 in it."""
    loss_fn, optimizer = DetectionLoss(model, HYP), build_optimizer(model, HYP, 0.001)
    generator = torch.Generator().manual_seed(0)
    for k, n in enumerate((4, 4, 4, 3, 4, 4)):
        images = torch.rand(n, 3, 96, 96, generator=generator)
        boxes = torch.rand(2 * n, 4, generator=generator) / 2 + 0.2
        batch = {"cls": torch.zeros(2 * n), "bboxes": boxes, "batch_idx": torch.arange(n).repeat_interleave(2).float()}
        with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
            preds = forward(images)
        loss_fn(preds, batch)[0].backward()
        if k % 2:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
    return model.state_dict()


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
@pytest.mark.parametrize(
    "yaml", [TINY, pytest.param(thinned("yolo26.yaml"), marks=pytest.mark.slow)], ids=lambda path: path.stem
)
def test_a_replayed_network_learns_what_a_called_one_does(yaml, dtype):
    """Weights and BatchNorm's statistics, to the bit: windows of several batches, a batch of another shape."""
    torch.manual_seed(0)
    model, _ = build_detector(str(yaml), ["a", "b"])
    model.train()
    other = copy.deepcopy(model)
    graphed = Graphed(other, (4, 3, 96, 96), dtype, captured)
    plain, replayed = trained(model, model, dtype), trained(other, graphed, dtype)
    assert graphed.replay is not None and "forward" not in vars(other)
    assert all(torch.equal(value, replayed[key]) for key, value in plain.items())


@pytest.mark.parametrize(("device", "ranks"), [("cpu", 1), ("cuda", 2)])
def test_graphs_are_refused_where_there_can_be_none(device, ranks):
    require_graphs(Hyp(), Ranks(0, ranks, torch.device(device)))
    with pytest.raises(UserError, match="needs one GPU and one rank"):
        require_graphs(Hyp(graph=True), Ranks(0, ranks, torch.device(device)))


def as_torch_2_11(callables, sample_args, num_warmup_iters=3, allow_unused_input=False, pool=None):
    """The parameters that torch's function has there, which knows no error mode."""


@pytest.mark.parametrize("record", [torch.cuda.make_graphed_callables, as_torch_2_11])
def test_what_records_is_told_only_what_it_knows(record):
    options = capture_options(record)
    inspect.signature(record).bind(nn.Identity(), (torch.zeros(1),), **options)
    assert bool(options) == ("capture_error_mode" in inspect.signature(record).parameters)
