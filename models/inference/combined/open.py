"""Weights of a command line -> one detector: the only one, or several as one, perhaps with several looks each."""

import logging
from pathlib import Path
from typing import Literal

from torch import nn

from models.inference.combined.ensemble import Ensemble, Fused
from models.inference.combined.tta import LOOKS, Augmented
from models.inference.export.read import kind_of, open_weights
from models.weights.find import find_file, find_weights
from utils.evaluation.evaluate import Settings

log = logging.getLogger(__name__)


def open_detectors(weights: str | list[str], download: bool = False) -> list[nn.Module]:
    """Every detector that --weights names, on the CPU."""
    return [open_weights(file, download) for file in _listed(weights)]


def each_run(names: str | list[str] | None, of: str | list[str] | None = None) -> list[Path]:
    """The weights that are named, each once: a file, a run's folder, or a folder of runs, as compare.py makes one.

    Those of `of`, which are known already, are left out.
    """
    find = lambda name: find_file(name) if kind_of(name) else find_weights(name)  # noqa: E731
    known = {find(name) for name in _listed(of)}
    found: dict[Path, None] = {}
    for name in _listed(names):
        folder = Path(name).expanduser()
        below = [path for depth in ("*", "*/*", "*/*/*") for path in sorted(folder.glob(f"{depth}/weights/best.pt"))]
        single = not folder.is_dir() or (folder / "weights/best.pt").is_file() or not below
        found |= dict.fromkeys([find(name)] if single else [path.absolute() for path in below])
    return [path for path in found if path not in known]


def _listed(names: str | list[str] | None) -> list[str]:
    return [names] if isinstance(names, str) else names or []


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
