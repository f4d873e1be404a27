"""Test-time augmentation: a detector that looks at a picture as it is, smaller and flipped, and smaller still."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.inference.combined.common import Combined, as_candidates
from utils.errors import UserError

LOOKS = ((1.0, False), (0.83, True), (0.67, False))  # scale, flipped left to right; YOLOv5's
GREY = 114 / 255  # of letterboxes


class Augmented(Combined):
    """All candidates of all looks, in pixels of the picture as it came, for one suppression."""

    def __init__(self, part: nn.Module):
        super().__init__([part])
        if self.fixed:
            raise UserError(
                "--tta looks at pictures of several sizes, and a file of one size takes no other. Leave it out."
            )

    def of(self, parts: list[nn.Module]) -> "Augmented":
        """The same with its detector prepared."""
        return Augmented(parts[0])

    def forward(self, images: Tensor) -> Tensor:
        (part,), stride = self.parts, int(self.stride.max())
        found = []
        for scale, flipped in LOOKS:
            seen = scaled(images.flip(3) if flipped else images, scale, stride)
            pred = as_candidates(part(seen), bool(getattr(part, "end2end", False)), self.nc)
            x, y, w, h = pred[:, :4].unbind(1)
            gain_x, gain_y = (round(n * scale) / n for n in images.shape[:1:-1])
            x, y, w, h = x / gain_x, y / gain_y, w / gain_x, h / gain_y
            x = images.shape[3] - x if flipped else x
            found.append(torch.cat((torch.stack((x, y, w, h), 1), pred[:, 4:]), 1))
        return torch.cat(found, 2)


def scaled(images: Tensor, scale: float, stride: int) -> Tensor:
    """Pictures (b, 3, h, w) made smaller, with grey to the right and below up to whole strides."""
    if scale == 1:
        return images
    h, w = (round(n * scale) for n in images.shape[2:])
    small = F.interpolate(images, (h, w), mode="bilinear", align_corners=False)
    right, below = (math.ceil(n / stride) * stride - n for n in (w, h))
    return F.pad(small, (0, right, 0, below), value=GREY)
