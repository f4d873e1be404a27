"""What finds the boxes of a batch."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from utils.device.images import preprocess
from utils.evaluation.evaluate import Settings, choose, forward, to_original
from utils.evaluation.nms import raise_thresholds

Detect = Callable[..., dict[int, np.ndarray]]  # a batch, its pictures on the device -> (n, 6) of each, best first


def detector(model: nn.Module, device: torch.device, settings: Settings, least: np.ndarray | None = None) -> Detect:
    """Boxes in pixels of the original pictures; `model` as for_evaluation prepares it.

    What comes back takes a batch and, where they are on the device already, its pictures as `preprocess` makes them.

    least (nc,): the score that a detection of each class must exceed; None: settings.conf for all.
    """
    end2end, differ = bool(getattr(model, "end2end", False)), least is not None and len(set(least.tolist())) > 1
    thresholds = torch.tensor(least, dtype=torch.float32, device=device) if differ else None

    def detect(batch: dict[str, Any], images: Tensor | None = None) -> dict[int, np.ndarray]:
        if images is None:
            images = preprocess(batch["img"], device, settings.channels_last, settings.dtype)
        pred = forward(model, images, settings.dtype)
        if thresholds is not None:
            pred = raise_thresholds(pred, thresholds, end2end, settings.multi_label)
        return to_original(choose(pred, settings, end2end), batch)

    return detect
