"""How far pictures are from those that a network learnt from, by what its BatchNorm layers remember of them."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn


@torch.no_grad()
def statistics_apart(model: nn.Module, batches: Iterable[Tensor]) -> float | None:
    """How far the channels of the backbone lie from where they lay in the training that its weights come from.

    batches: pictures (b, 3, h, w) as the network takes them. For each BatchNorm of the backbone the mean of each of its
    inputs' channels over these pictures is held against the running mean, in running standard deviations: the root of
    the mean square over channels, then the median over layers. 0: the same pictures; None: no BatchNorm that has
    learnt, or no pictures. The network is left as it was.
    """
    norms = [m for layer in model.model[: len(model.yaml["backbone"])] for m in layer.modules() if has_learnt(m)]
    sums: dict[nn.Module, tuple[Tensor, int]] = {}

    def add_up(norm: nn.Module) -> Callable[..., None]:
        def hook(_: nn.Module, inputs: tuple[Any, ...]) -> None:
            x = inputs[0].float()  # (b, c, h, w)
            before, n = sums.get(norm, (0.0, 0))
            sums[norm] = before + x.double().sum((0, 2, 3)), n + x.numel() // x.shape[1]

        return hook

    hooks, was_training = [norm.register_forward_pre_hook(add_up(norm)) for norm in norms], model.training
    try:
        model.eval()
        for images in batches if norms else ():
            model(images)
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    apart = [
        ((total / n - norm.running_mean) / (norm.running_var + norm.eps).sqrt()).square().mean().sqrt()
        for norm, (total, n) in sums.items()
    ]
    return float(torch.stack(apart).median()) if apart else None


def has_learnt(module: nn.Module) -> bool:
    """Whether it is a BatchNorm that has seen pictures: a fresh one says mean 0 and variance 1 of every channel."""
    if not isinstance(module, nn.BatchNorm2d) or module.running_mean is None:
        return False
    return bool((module.running_mean != 0).any() or (module.running_var != 1).any())
