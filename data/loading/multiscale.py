"""Training at varying sizes: a batch is resized on the device; its size is a function of (seed, batch number)."""

import random

import torch.nn.functional as F
from torch import Tensor


def random_size(seed: int, ni: int, imgsz: int, multi_scale: float, stride: int) -> int:
    """Side of batch `ni` in pixels: uniform in imgsz * (1 - multi_scale, 1 + multi_scale), a multiple of stride."""
    if multi_scale == 0:
        return imgsz
    low, high = imgsz * (1 - multi_scale), imgsz * (1 + multi_scale)
    size = random.Random(f"{seed} {ni} size").uniform(low, high + stride)
    return max(int(size // stride) * stride, stride)


def resize(images: Tensor, size: int) -> Tensor:
    """(b, 3, h, w) -> (b, 3, size, size), bilinear; boxes are fractions and stay."""
    if images.shape[-1] == size:
        return images
    return F.interpolate(images, size=(size, size), mode="bilinear", align_corners=False)
