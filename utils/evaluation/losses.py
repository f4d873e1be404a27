"""The losses of an evaluation: what is to be found, and means over the batches."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

# a head's raw output, a batch, the head's decoded output -> parts of the loss
Criterion = Callable[[Any, dict[str, Any], Tensor], dict[str, Tensor]]


def targets(batch: dict[str, Any], index: Any) -> dict[str, Any]:
    """A batch of evaluation with the boxes that a criterion wants to see found: as in training, crowds are none."""
    rows = [slice(int(index.offsets[i]), int(index.offsets[i + 1])) for i in batch["index"]]
    crowd = np.concatenate([index.crowd[boxes] for boxes in rows])  # (n,), in the order of the batch
    if not crowd.any():
        return batch
    single = torch.from_numpy(~crowd)
    return batch | {key: batch[key][single] for key in ("cls", "bboxes", "batch_idx")}


class Means:
    """Means over batches of 0-dim tensors by name, kept on their device until somebody asks."""

    def __init__(self, prefix: str) -> None:
        self.prefix, self.sums, self.batches = prefix, {}, 0

    def add(self, parts: dict[str, Tensor]) -> None:
        """Count a batch."""
        self.sums = {name: self.sums.get(name, 0) + part for name, part in parts.items()}
        self.batches += 1

    def values(self) -> dict[str, float]:
        """The means as plain numbers; none of no batch."""
        return {self.prefix + name: float(total) / self.batches for name, total in self.sums.items()}
