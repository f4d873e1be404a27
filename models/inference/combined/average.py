"""The mean of several checkpoints; a mean of BatchNorm statistics fits no network, so they are estimated again."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from models.detector import load_for_eval
from utils.errors import UserError


def average(files: list[str], download: bool = False) -> nn.Module:
    """The first detector with the mean of all weights; UserError where the networks or the classes differ."""
    models = [load_for_eval(file, download) for file in files]
    states = [model.state_dict() for model in models]
    for file, model, state in zip(files[1:], models[1:], states[1:], strict=True):
        other = next((k for k in states[0] if k not in state or state[k].shape != states[0][k].shape), None)
        if other or state.keys() != states[0].keys():
            raise UserError(
                f"{files[0]} and {file} are different networks ({other or 'other tensors'}): there is no mean. "
                "Average checkpoints of one run or of one start; as an ensemble any go together: --weights a.pt b.pt."
            )
        if list(model.names.values()) != list(models[0].names.values()):
            raise UserError(f"{files[0]} and {file} have other classes, so their rows mean different things.")
    mean = {
        key: torch.stack([state[key].double() for state in states]).mean(0).to(value.dtype)
        if value.is_floating_point()
        else value
        for key, value in states[0].items()
    }
    models[0].load_state_dict(mean)
    models[0].thresholds = None  # chosen for another network
    return models[0]


@torch.no_grad()
def estimate_statistics(model: nn.Module, batches: Iterable[Tensor]) -> int:
    """Mean and variance of every BatchNorm from pictures (b, 3, h, w) in 0..1, all batches alike; how many there were.

    After P. Izmailov et al., Averaging weights leads to wider optima and better generalization, UAI 2018.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # the plain mean over batches
        layer.train()
    pictures = 0
    for images in batches:
        model(images)
        pictures += len(images)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
        layer.eval()
    return pictures
