"""The losses of an evaluation: what is to be found, and means over the batches."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

# of a batch by part of the loss, and under `AIMED` what they are divided by; where summands of a part have divisors
# of their own, box:8 is divided by aimed:8, and a part is the sum of its quotients
Sums = dict[str, Tensor]
AIMED = "aimed"  # sum of the scores that were aimed at; at least 1 is divided by
# a head's raw output, a batch, the head's decoded output -> its sums
Criterion = Callable[[Any, dict[str, Any], Tensor], Sums]


def targets(batch: dict[str, Any], index: Any) -> dict[str, Any]:
    """A batch of evaluation with the boxes that a criterion wants to see found: as in training, crowds are none."""
    rows = [slice(int(index.offsets[i]), int(index.offsets[i + 1])) for i in batch["index"]]
    crowd = np.concatenate([index.crowd[boxes] for boxes in rows])  # (n,), in the order of the batch
    if not crowd.any():
        return batch
    single = torch.from_numpy(~crowd)
    return batch | {key: batch[key][single] for key in ("cls", "bboxes", "batch_idx")}


class Means:
    """Means over batches of a criterion's sums, kept on their device until somebody asks."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.batches: list[Tensor] = []  # (k + 1,) each

    def add(self, sums: Sums) -> None:
        """Count a batch, or this rank's share of one."""
        self.names = list(sums)
        self.batches.append(torch.stack(list(sums.values())))

    def table(self) -> Tensor:
        """Sums of the batches (batches, k + 1) on the host; of no batch (0, 0)."""
        return torch.stack(self.batches).cpu() if self.batches else torch.zeros(0, 0)

    def values(self, prefix: str, tables: Iterable[Tensor]) -> dict[str, float]:
        """The means over the batches whose shares are the rows of the tables, as plain numbers; none of no batch."""
        whole: list[Tensor] = []
        for table in tables:
            rows = list(table)
            together = [a + b for a, b in zip(whole, rows, strict=False)]
            whole = together + whole[len(rows) :] + rows[len(whole) :]
        total: dict[str, Tensor] = {}
        for row in whole:
            for name, summed in zip(self.names, row, strict=True):
                part, colon, group = name.partition(":")
                if part != AIMED:
                    aimed = row[self.names.index(AIMED + colon + group)].clamp(min=1)
                    total[part] = total.get(part, 0) + summed / aimed
        return {prefix + part: float(mean) / len(whole) for part, mean in total.items()}
