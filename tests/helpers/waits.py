"""Where the host would wait for a GPU, counted on a CPU."""

import traceback
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode


def _place(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


class Waits(TorchDispatchMode):
    """Counts where the host would wait for a GPU, by the source file of ultralytics, or "ours".

    Values and shapes that depend on data (nonzero, unique, suppression, selection by a mask, one number), host memory
    that is copied there and then, and what is asked back by .cpu(); what came back so is the host's own.
    """

    ASKS = ("nonzero", "_unique2", "_local_scalar_dense", "lift_fresh", "nms", "masked_select", "bincount")

    def __init__(self, host: Iterable[torch.Tensor] = ()) -> None:
        """host: tensors that are no device's."""
        super().__init__()
        self.counts: Counter[str] = Counter()
        self.made, self.on_host = [], {}  # tensors by their place, which is theirs as long as they are held
        self.leave(host)

    def leave(self, tensors: Iterable[torch.Tensor]) -> None:
        """These are on the host."""
        self.on_host |= {_place(tensor): tensor for tensor in tensors}

    def __enter__(self) -> "Waits":
        self.cpu, self.from_numpy = torch.Tensor.cpu, torch.from_numpy
        torch.Tensor.cpu, torch.from_numpy = (lambda tensor: self._asked_back(tensor)), self._of_host
        return super().__enter__()

    def __exit__(self, *args: Any) -> None:
        torch.Tensor.cpu, torch.from_numpy = self.cpu, self.from_numpy
        super().__exit__(*args)

    def _asked_back(self, tensor: torch.Tensor) -> torch.Tensor:
        if _place(tensor) in self.on_host:
            return tensor
        self._count()
        there = self.cpu(tensor).clone()
        self.leave([there])
        return there

    def _of_host(self, array: np.ndarray) -> torch.Tensor:
        before = self.counts.copy()
        tensor = self.from_numpy(array)
        self.counts = before
        self.leave([tensor])
        return tensor

    def _count(self, times: int = 1) -> None:
        names = [frame.filename for frame in traceback.extract_stack() if "torch/" not in frame.filename]
        names = [name for name in names if name != __file__]
        theirs = [Path(n).name for n in names if "ultralytics" in n and "models/loss" not in names[-1]]
        self.counts[theirs[-1] if theirs else "ours"] += times

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name, out = func.name().partition("::")[2].partition(".")[0], func(*args, **(kwargs or {}))
        if name == "arange":
            self.made = [out]
        sent = name == "_to_copy" and args[0].data_ptr() in [made.data_ptr() for made in self.made]
        if name in self.ASKS or sent:
            self._count()
        elif name in ("index", "index_put_") and _place(args[0]) not in self.on_host:
            masks = [i for i in args[1] if i is not None and i.dtype in (torch.bool, torch.uint8)]
            self._count(len(masks)) if masks else None
        return out
