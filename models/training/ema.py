"""Exponential moving average of the weights, in fp32, with one fused update a step."""

import copy

import torch
from torch import Tensor, nn

from utils.schedule.rates import ema_decay_at


class EMA:
    """`model` is the average: evaluated, reported and kept. Batch norm statistics are averaged like weights."""

    def __init__(self, model: nn.Module, decay: float, tau: float) -> None:
        self.model = copy.deepcopy(model).float().eval().requires_grad_(False)
        self.decay, self.tau = decay, tau
        self._tried, self._skipped = 0, None  # updates asked for; those of them that were left out, on the device
        self._pairs: tuple[nn.Module, list[list[Tensor]]] | None = None  # of the model averaged last

    @property
    def updates(self) -> int:
        """Updates so far; on a GPU this waits for the device."""
        return self._tried if self._skipped is None else self._tried - int(self._skipped)

    @torch.no_grad()
    def update(self, model: nn.Module, taken: Tensor | None = None) -> None:
        """Move the average towards `model` by 1 - d, d = decay * (1 - exp(-updates / tau)).

        taken: 0-dim bool, whether the step was; where it was not, nothing moves. On a GPU nobody waits for it.
        """
        if taken is not None and taken.device.type != "cpu":
            self._update_on_device(model, taken)
        elif taken is None or bool(taken):
            self._tried += 1
            averages, currents, counters, counted = self._tensors(model)
            d = ema_decay_at(self.updates, self.decay, self.tau)
            torch._foreach_lerp_(averages, currents, 1.0 - d)
            if counters:
                torch._foreach_copy_(counters, counted)

    def _update_on_device(self, model: nn.Module, taken: Tensor) -> None:
        """The same with a weight that is computed on the device, and 0 where the step was not taken."""
        if self._skipped is None:
            self._skipped = torch.zeros((), dtype=torch.float64, device=taken.device)
        self._tried += 1
        self._skipped += ~taken
        d = self.decay * (1.0 - torch.exp((self._skipped - self._tried) / self.tau))  # 0-dim
        averages, currents, counters, counted = self._tensors(model)
        moves = torch._foreach_sub(currents, averages)
        torch._foreach_mul_(moves, torch.where(taken, 1.0 - d, 0.0).float())
        torch._foreach_add_(averages, moves)
        if counters:
            torch._foreach_copy_(counters, counted)

    def _tensors(self, model: nn.Module) -> list[list[Tensor]]:
        """Floats of the average and of `model`, in float32, and integers of both; found once, for it takes long."""
        if self._pairs is None or self._pairs[0] is not model:
            average, current = self.model.state_dict(), model.state_dict()
            floats = [k for k, v in average.items() if v.dtype.is_floating_point]
            others = [k for k in average if k not in set(floats)]
            lists = [[state[k] for k in keys] for keys in (floats, others) for state in (average, current)]
            self._pairs = (model, lists)
        averages, currents, counters, counted = self._pairs[1]
        # fp32: half would round an update of 1e-4 away
        return [averages, [c.float() for c in currents], counters, counted]

    def state_dict(self) -> dict[str, object]:
        """Tensors of the average and the number of updates."""
        return {"model": self.model.state_dict(), "updates": self.updates, "decay": self.decay, "tau": self.tau}

    def load_state_dict(self, state: dict) -> None:
        """Continue from `state_dict()`."""
        self.model.load_state_dict(state["model"])
        self._tried, self._skipped = state["updates"], None
        self.decay, self.tau = state["decay"], state["tau"]
