"""Training batches -> what a network is given."""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from data.loading.augment import coloured_later
from data.loading.device.colour import recolour
from utils.config.schema import Hyp
from utils.device.images import ToDevice, in_channels_last


def to_device(hyp: Hyp, device: torch.device, dtype: torch.dtype | None) -> ToDevice:
    """What makes pictures on the device of a batch of the loader; they are resized in full precision.

    dtype: of autocast, None for full precision.
    """
    colour = partial(recolour, mode=hyp.hsv_mode)
    return ToDevice(device, in_channels_last(hyp.channels_last), None if hyp.multi_scale else dtype, colour)


def colour_change(hyp: Hyp) -> Callable[[Tensor], Tensor] | None:
    """What a device does to the colours of pictures (b, 3, h, w) uint8, for who wants to know what it takes."""
    if not coloured_later(hyp):
        return None
    return lambda images: recolour(images, np.zeros((len(images), 3)), hyp.hsv_mode)
