"""Training batches -> what a network is given."""

from functools import partial

import torch

from data.loading.device.colour import recolour
from utils.config.schema import Hyp
from utils.device.images import ToDevice, in_channels_last


def to_device(hyp: Hyp, device: torch.device, dtype: torch.dtype | None) -> ToDevice:
    """What makes pictures on the device of a batch of the loader; they are resized in full precision.

    dtype: of autocast, None for full precision.
    """
    colour = partial(recolour, mode=hyp.hsv_mode)
    return ToDevice(device, in_channels_last(hyp.channels_last), None if hyp.multi_scale else dtype, colour)
