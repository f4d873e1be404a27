"""ultralytics' detection criterion behind one call, and the state it keeps between epochs."""

import logging
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from ultralytics.nn.tasks import DetectionModel

from utils.config.schema import Hyp

log = logging.getLogger(__name__)


def class_weights(counts: np.ndarray, power: float) -> np.ndarray:
    """Weights of the classes in the loss (nc,) float32, mean 1: 1 / boxes ** power, as ultralytics 8.4 has them.

    A class without boxes gets the mean of the others.
    """
    present = counts > 0
    weights = (1 / np.where(present, counts, 1).astype(np.float32)) ** power
    weights = np.where(present, weights, weights[present].mean())
    return (weights / weights.mean()).astype(np.float32)


class DetectionLoss:
    """Box, class and distribution loss of a detector; build it after the model is on its device.

    A network with a one-to-one branch weighs its two branches by epoch (0.8 / 0.2 at first, 0.1 / 0.9 at the end).
    """

    names = ("box", "cls", "dfl")  # a network without a distribution (reg_max 1) has an L1 loss in place of dfl

    def __init__(self, model: DetectionModel, hyp: Hyp, class_counts: np.ndarray | None = None) -> None:
        """class_counts: training boxes of each class (nc,), needed by cls_pw."""
        model.args = SimpleNamespace(box=hyp.box, cls=hyp.cls, dfl=hyp.dfl, epochs=hyp.epochs)
        if hyp.cls_pw:
            model.class_weights = torch.from_numpy(class_weights(class_counts, hyp.cls_pw))  # read by the criterion
            log.info(f"class loss weighted (cls_pw {hyp.cls_pw:g}): {_listed(model.names, model.class_weights)}")
        self.criterion = model.init_criterion()
        if hyp.cls_pw:
            del model.class_weights  # of the loss, not of the network: not to be saved with it

    def __call__(self, preds: Any, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Loss of a training-mode prediction.

        `batch` holds cls (n,), bboxes (n, 4) xywh in 0..1 and batch_idx (n,), sorted. Returns the sum over the pictures
        of the batch (a scalar with gradient) and the means (3,), gains included, detached.
        """
        parts, items = self.criterion(preds, batch)  # (3,) times the batch size; dict of scalars
        return parts.sum(), torch.stack(list(items.values()))

    def end_epoch(self) -> None:
        """Move the weights of the two branches; once after each epoch, as ultralytics' trainer does."""
        if hasattr(self.criterion, "update"):
            self.criterion.update()

    def state_dict(self) -> dict[str, float]:
        """Plain values; empty for a network with one branch."""
        return {key: getattr(self.criterion, key) for key in ("updates", "o2m", "o2o") if hasattr(self.criterion, key)}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Continue from the values of `state_dict`."""
        for key, value in state.items():
            setattr(self.criterion, key, value)


def _listed(names: dict[int, str], weights: Tensor) -> str:
    """Each class and its weight; of many classes the lightest and the heaviest."""
    rows = sorted(zip(weights.tolist(), names.values(), strict=True))
    shown = [f"{name} {weight:.3g}" for weight, name in rows]
    return ", ".join(shown if len(rows) <= 10 else [*shown[:3], "...", *shown[-3:]])
