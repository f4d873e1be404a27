"""Pictures as a network wants them: where they lie, their layout in memory and their type."""

import sys

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


def preprocess(images: Tensor, device: torch.device, channels_last: bool = False) -> Tensor:
    """uint8 (b, 3, h, w) on the host -> float32 in 0..1 on the device."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return images.to(device, non_blocking=True).to(torch.float32, memory_format=layout).div_(255)
