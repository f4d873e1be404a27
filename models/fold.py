"""The copy of a network that is evaluated: it computes the same but for rounding, and faster."""

import copy
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval
from ultralytics.nn.modules.block import RepVGGDW
from ultralytics.nn.modules.conv import Conv, Conv2, RepConv

CONVOLUTIONS = {"conv": nn.Conv2d, "conv_transpose": nn.ConvTranspose2d}  # by attribute of a block, beside its `bn`


@torch.no_grad()
def fold(model: nn.Module) -> nn.Module:
    """A copy of `model` in evaluation mode, without gradients, that computes the same but for rounding, and faster.

    BatchNorm, a fixed scale and shift there, and parallel branches become part of the convolutions. `model` is left
    alone: what is averaged, saved and resumed never sees it. Raw outputs of every branch of the head stay.
    """
    folded = copy.deepcopy(model).eval().requires_grad_(False)
    for block in list(folded.modules()):
        _join_branches(block)
    for block in list(folded.modules()):
        for name, kind in CONVOLUTIONS.items():
            convolution, bn = getattr(block, name, None), getattr(block, "bn", None)
            if isinstance(convolution, kind) and isinstance(bn, nn.BatchNorm2d):
                setattr(block, name, fuse_conv_bn_eval(convolution, bn, name == "conv_transpose"))
                block.bn = nn.Identity()
    return folded


def _join_branches(block: nn.Module) -> None:
    """Make one convolution of those whose outputs a re-parameterised block adds up."""
    if isinstance(block, RepConv) and hasattr(block, "conv1"):
        block.fuse_convs()
        block.forward = block.forward_fuse
    elif isinstance(block, RepVGGDW) and hasattr(block, "conv1"):
        block.fuse()
        block.forward = block.forward_fuse
    elif isinstance(block, Conv2) and hasattr(block, "cv2"):
        block.fuse_convs()


def pack(folded: nn.Module) -> nn.Module:
    """A network that `fold` made, on a CPU with every convolution packed for oneDNN; elsewhere as it is.

    Its weights may not change any more. What is traced for other programs is not packed: the call is torch's own.
    """
    if next(folded.parameters()).device.type != "cpu" or not packs(torch.float32):
        return folded
    for block in list(folded.modules()):
        for name, convolution in list(block.named_children()):
            if type(convolution) is nn.Conv2d and _pads_evenly(convolution):
                silu = name == "conv" and _ends_in_silu(block)
                convolution.forward = Packed(convolution, silu)
                if silu:
                    block.act = nn.Identity()
    return folded


def _pads_evenly(c: nn.Conv2d) -> bool:
    """Whether it pads with zeros, by numbers: what oneDNN's call can be told."""
    return c.padding_mode == "zeros" and not isinstance(c.padding, str)


def _ends_in_silu(block: nn.Module) -> bool:
    """Whether what a block does with the output of its convolution is SiLU and nothing else."""
    known = isinstance(block, (Conv, RepConv, RepVGGDW)) and isinstance(getattr(block, "bn", None), nn.Identity | None)
    return known and type(block.act) is nn.SiLU


class Packed:
    """The forward pass of a convolution, and of the SiLU behind it where `silu`, by one call of oneDNN.

    It spares what torch's convolution does at each call (putting the weights into the layout that oneDNN wants, a copy
    in the low precision under autocast), a pass over the output for SiLU, and 1x1 convolutions outside oneDNN, which
    is where torch sends them with one thread and fewer than 16 pictures.
    """

    def __init__(self, convolution: nn.Conv2d, silu: bool):
        self.convolution, self.silu = convolution, silu
        self.packed: dict[torch.dtype, tuple[Tensor, Tensor | None]] = {}

    def __call__(self, x: Tensor) -> Tensor:
        """(b, c1, h, w) -> (b, c2, h', w') in the type of the autocast around it, if any."""
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
        c = self.convolution
        if x.device.type != "cpu" or not packs(dtype):
            out = c._conv_forward(x, c.weight, c.bias)
            return F.silu(out, inplace=True) if self.silu else out
        x = x.to(dtype)
        if dtype not in self.packed:
            self.packed[dtype] = _reorder(c, x), None if c.bias is None else c.bias.to(dtype)
        return _call(c, x, *self.packed[dtype], "swish" if self.silu else "none")


def _geometry(c: nn.Conv2d) -> tuple[list[int], list[int], list[int], int]:
    return list(c.padding), list(c.stride), list(c.dilation), c.groups


def _reorder(c: nn.Conv2d, x: Tensor) -> Tensor:
    """The weights in the type of x and the layout that suits its shape; they serve other shapes as well."""
    return torch.ops.mkldnn._reorder_convolution_weight(c.weight.to(x.dtype), *_geometry(c), list(x.shape))


def _call(c: nn.Conv2d, x: Tensor, weight: Tensor, bias: Tensor | None, then: str) -> Tensor:
    return torch.ops.mkldnn._convolution_pointwise(x, weight, bias, *_geometry(c), then, [], "")


@cache
def packs(dtype: torch.dtype) -> bool:
    """Whether this torch on this processor has the two calls, which are not among its public ones, and they hold what
    they promise: tried on a small convolution."""
    if dtype not in (torch.float32, torch.bfloat16):
        return False
    with torch.random.fork_rng(devices=[]), torch.no_grad(), torch.autocast("cpu", enabled=False):
        c, x = nn.Conv2d(4, 8, 3, 2, 1), torch.rand(2, 4, 9, 9)
        low, expected = x.to(dtype), F.silu(c(x))
        try:
            found = _call(c, low, _reorder(c, low), c.bias.to(dtype), "swish")
        except (AttributeError, RuntimeError):
            return False
    return found.dtype == dtype and torch.allclose(found.float(), expected, rtol=0.02, atol=0.02)
