"""The colour change of training for batches on the device: `augment.change_colour` to one level of each channel."""

import math

import numpy as np
import torch
from torch import Tensor

from data.loading.augment import LEVELS, colour_matrix

SHIFT = 12  # OpenCV divides by multiplying with tables of whole numbers and dropping so many bits
DIVIDED = {full: np.rint([0, *((full << SHIFT) / np.arange(1, 256))]).astype(np.int32) for full in (255, 30)}


def recolour(images: Tensor, gains: np.ndarray, mode: str) -> Tensor:
    """Pictures (b, 3, h, w) uint8 RGB with hue, saturation and value changed by gains (b, 3); mode: as hsv_mode has it.

    Everything is computed where the pictures are; nothing waits for it.
    """
    if mode == "matrix":
        return _by_matrix(images, gains)
    hue, saturation, value = _to_hsv(images)
    tables = torch.from_numpy(level_tables(gains)).to(images.device, non_blocking=True)  # (3, b * 256)
    first = 256 * torch.arange(len(images), dtype=torch.int32, device=images.device)[:, None, None]
    return _to_rgb(*(table[plane + first] for table, plane in zip(tables, (hue, saturation, value), strict=True)))


def level_tables(gains: np.ndarray) -> np.ndarray:
    """What becomes of every level of hue, saturation and value of each picture, (3, b * 256) uint8.

    The whole part of a product, at most 255; hue is 0..179, and goes round.
    """
    shift = np.array([math.floor(hue * 180) for hue in gains[:, 0]])[:, None]
    hue = (LEVELS.astype(int) + shift) % 180
    rest = [np.clip(LEVELS * (1 + gain[:, None]), 0, 255) for gain in (gains[:, 1], gains[:, 2])]
    return np.stack([table.astype(np.uint8).ravel() for table in (hue, *rest)])


def _to_hsv(images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """OpenCV's hue (0..179), saturation and value of RGB, each (b, h, w) int32; equal to the bit."""
    whole, sixth = (torch.from_numpy(DIVIDED[full]).to(images.device, non_blocking=True) for full in (255, 30))
    r, g, b = images.int().unbind(1)
    value = torch.maximum(torch.maximum(r, g), b)
    span = value - torch.minimum(torch.minimum(r, g), b)
    half = 1 << (SHIFT - 1)
    saturation = (span * whole[value] + half) >> SHIFT
    hue = torch.where(value == r, g - b, torch.where(value == g, b - r + 2 * span, r - g + 4 * span))
    hue = (hue * sixth[span] + half) >> SHIFT
    return torch.where(hue < 0, hue + 180, hue), saturation, value


def _to_rgb(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """RGB (b, 3, h, w) uint8 of planes (b, h, w) uint8, as OpenCV has it: its steps in float32, two of them fused."""
    turn, saturation, value = hue.float() * (6 / 180), saturation.float() * (1 / 255), value.float() * (1 / 255)
    sector = turn.floor()  # (b, h, w) of six
    part = turn - sector
    part = torch.where(sector % 2 == 1, part, 1 - part)
    least, middle = value * (1 - saturation), value * (1 - saturation.double() * part.double()).float()
    planes = []
    for ahead in (0, 4, 2):
        k = (sector + ahead) % 6
        rest = torch.where((k == 2) | (k == 3), least, middle)
        planes.append(torch.where((k == 0) | (k == 5), value, rest))
    return (torch.stack(planes, 1) * 255).to(torch.uint8)  # cut off, not rounded


def _by_matrix(images: Tensor, gains: np.ndarray) -> Tensor:
    """The same pictures through one matrix each."""
    matrices = np.stack([colour_matrix(*row)[::-1, ::-1] for row in gains.tolist()]).astype(np.float32)  # of RGB
    matrices = torch.from_numpy(matrices).to(images.device, non_blocking=True)
    changed = torch.einsum("bij,bjhw->bihw", matrices, images.float())
    return changed.round_().clamp_(0, 255).to(torch.uint8)
