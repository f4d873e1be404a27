"""Pictures as a network wants them: where they lie, their layout in memory and their type."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


def in_channels_last(choice: str) -> bool:
    """Whether pictures and weights lie in channels-last, the faster layout for convolutions, as auto | on | off says.

    auto: not on Windows, where it was measured to be three times slower.
    """
    return choice == "on" or (choice == "auto" and sys.platform != "win32")


def memory_format(choice: str) -> torch.memory_format:
    """The layout of a network's weights for auto | on | off."""
    return torch.channels_last if in_channels_last(choice) else torch.contiguous_format


def preprocess(
    images: Tensor, device: torch.device, channels_last: bool = False, dtype: torch.dtype | None = None
) -> Tensor:
    """uint8 (b, 3, h, w) on the host -> 0..1 on the device, in the type of autocast; None: in float32.

    Autocast would make the same bits of float32: a network begins with a convolution.
    """
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return images.to(device, non_blocking=True).to(dtype or torch.float32, memory_format=layout).div_(255)


@dataclass(frozen=True)
class ToDevice:
    """Makes of a batch of the loader the pictures (b, 3, h, w) that a network is given."""

    device: torch.device
    channels_last: bool
    dtype: torch.dtype | None = None  # see `preprocess`
    recolour: Callable[[Tensor, Any], Tensor] | None = None  # of whole pictures; called where a batch has `gains`

    def __call__(self, batch: dict[str, Any]) -> Tensor:
        images = batch["img"].to(self.device, non_blocking=True)
        if self.recolour and "gains" in batch:
            images = self.recolour(images, batch["gains"])
        return preprocess(images, self.device, self.channels_last, self.dtype)
