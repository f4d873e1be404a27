"""Weights of a command line -> one detector: the only one, or several as one, perhaps with several looks each."""

import logging
from typing import Literal

from torch import nn

from models.inference.combined.ensemble import Ensemble, Fused
from models.inference.combined.tta import LOOKS, Augmented
from models.inference.export.read import open_weights
from utils.evaluation.evaluate import Settings

log = logging.getLogger(__name__)


def open_detectors(weights: str | list[str], download: bool = False) -> list[nn.Module]:
    """Every detector that --weights names, on the CPU."""
    files = [weights] if isinstance(weights, str) else weights
    return [open_weights(file, download) for file in files]


def as_one(
    models: list[nn.Module],
    weights: str | list[str],
    tta: bool,
    fusion: Literal["nms", "wbf"],
    settings: Settings,
) -> nn.Module:
    """The detectors as one; what is made of several is said. settings: by which each member of a fusion chooses."""
    parts = [Augmented(model) for model in models] if tta else models
    if tta:
        looks = ", ".join(f"{scale:g}{' flipped' if flipped else ''}" for scale, flipped in LOOKS)
        log.info(f"tta: {len(LOOKS)} looks at every picture (scale {looks}), whose boxes are suppressed together")
    if len(parts) == 1:
        return parts[0]
    if fusion == "wbf":
        log.info(f"ensemble of {len(parts)}: each suppresses its own boxes, which weighted box fusion then averages")
        return Fused(parts, list(weights), settings)
    log.info(f"ensemble of {len(parts)}: the boxes of all are suppressed together (--fusion nms; or wbf)")
    return Ensemble(parts, list(weights))
