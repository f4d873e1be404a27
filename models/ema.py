"""Exponential moving average of the weights, in fp32, with one fused update a step."""

import copy

import torch
from torch import nn

from utils.schedule.rates import ema_decay_at


class EMA:
    """`model` is the average: evaluated, reported and kept. Batch norm statistics are averaged like weights."""

    def __init__(self, model: nn.Module, decay: float, tau: float) -> None:
        self.model = copy.deepcopy(model).float().eval().requires_grad_(False)
        self.decay, self.tau, self.updates = decay, tau, 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average towards `model` by 1 - d, d = decay * (1 - exp(-updates / tau))."""
        self.updates += 1
        d = ema_decay_at(self.updates, self.decay, self.tau)
        average, current = self.model.state_dict(), model.state_dict()
        floats = [k for k, v in average.items() if v.dtype.is_floating_point]
        # fp32: half would round an update of 1e-4 away
        torch._foreach_lerp_([average[k] for k in floats], [current[k].float() for k in floats], 1.0 - d)
        for key in average.keys() - set(floats):
            average[key].copy_(current[key])

    def state_dict(self) -> dict[str, object]:
        """Tensors of the average and the number of updates."""
        return {"model": self.model.state_dict(), "updates": self.updates, "decay": self.decay, "tau": self.tau}

    def load_state_dict(self, state: dict) -> None:
        """Continue from `state_dict()`."""
        self.model.load_state_dict(state["model"])
        self.updates, self.decay, self.tau = state["updates"], state["decay"], state["tau"]
