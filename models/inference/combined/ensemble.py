"""Several detectors as one: all their boxes suppressed together, or those that each has chosen fused."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models.inference.combined.common import Combined, as_candidates
from models.inference.export.extra import extra
from utils.errors import UserError
from utils.evaluation.evaluate import Settings, choose
from utils.evaluation.nms import ClassMap

FUSION_IOU = 0.55  # from which boxes are one to weighted box fusion: its authors' default


class Ensemble(Combined):
    """The candidates of all members side by side, (b, 4 + nc, a1 + a2 + ...), for one suppression."""

    def __init__(self, parts: list[nn.Module], files: list[str]):
        super().__init__(parts)
        self.stride = max((part.stride for part in parts), key=lambda stride: float(stride.max()))
        self.files = files
        self.maps = [names_map(part.names, self.names, file) for part, file in zip(parts, files, strict=True)]

    def of(self, parts: list[nn.Module]) -> "Ensemble":
        """The same with its members prepared."""
        return type(self)(parts, self.files)

    def outputs(self, images: Tensor) -> list[Tensor]:
        """Candidates of every member, (b, 4 + nc, a) each, in the classes of the first."""
        found = []
        for part, to in zip(self.parts, self.maps, strict=True):
            pred = as_candidates(part(images), bool(getattr(part, "end2end", False)), len(part.names))
            found.append(pred if to is None else ClassMap(to, self.nc, pred.device)(pred, end2end=False))
        return found

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat(self.outputs(images), 2)


class Fused(Ensemble):
    """Weighted box fusion: each member's boxes after its own suppression, (b, k, 6), averaged where they overlap.

    A box that few members have keeps a part of its score. R. Solovyev, W. Wang, T. Gabruseva: Weighted boxes fusion,
    Image and Vision Computing 107, 2021; computed by their library.
    """

    def __init__(self, parts: list[nn.Module], files: list[str], settings: Settings = Settings()):  # noqa: B008 (frozen)
        super().__init__(parts, files)
        self.fuse = extra("ensemble_boxes", "--fusion wbf").weighted_boxes_fusion
        self.settings, self.end2end = settings, True

    def of(self, parts: list[nn.Module]) -> "Fused":
        """The same with its members prepared."""
        return Fused(parts, self.files, self.settings)

    def forward(self, images: Tensor) -> Tensor:
        members = [choose(pred, self.settings, end2end=False) for pred in self.outputs(images)]
        size = np.array([*images.shape[:1:-1]] * 2, np.float32)  # w, h, w, h
        rows = [self._one([member[i].numpy() for member in members], size) for i in range(len(images))]
        out = torch.zeros(len(rows), max(max(map(len, rows)), 1), 6)
        for i, found in enumerate(rows):
            out[i, : len(found)] = torch.from_numpy(found)
        return out.to(images.device)

    def _one(self, members: list[np.ndarray], size: np.ndarray) -> np.ndarray:
        """Boxes (n, 6) of one picture from those of each member, best first."""
        boxes = [(found[:, :4] / size).clip(0, 1) for found in members]
        scores, classes = [found[:, 4] for found in members], [found[:, 5] for found in members]
        fused: Any = self.fuse(boxes, scores, classes, iou_thr=FUSION_IOU, skip_box_thr=self.settings.conf)
        rows = np.concatenate((fused[0].reshape(-1, 4) * size, fused[1][:, None], fused[2][:, None]), 1)
        return rows[np.argsort(-rows[:, 4], kind="stable")][: self.settings.max_det].astype(np.float32)


def names_map(names: dict[int, str], first: dict[int, str], file: str) -> list[int] | None:
    """Class of the first member for each class of another one, -1 where it has none; None where they are the same."""
    ours, theirs = ([str(name).strip().casefold() for name in some.values()] for some in (first, names))
    if ours == theirs:
        return None
    found = [ours.index(name) if name in ours else -1 for name in theirs]
    if max(found, default=-1) < 0:
        raise UserError(
            f"{file} has no class of the first weights ({', '.join(list(first.values())[:5])}): together they are no "
            "ensemble."
        )
    return found
