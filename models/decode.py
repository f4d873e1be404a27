"""How the output of a head becomes boxes and scores in evaluation: in full precision, and with rows for anchors.

bf16 and fp16 would round boxes to whole pixels.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from ultralytics.nn.modules.block import DFL
from ultralytics.nn.modules.head import Detect

from models.loss.detection import in_full


@contextmanager
def decoding_in_full(model: nn.Module) -> Iterator[None]:
    """While it lasts, the head of `model` decodes boxes and scores in float32 under any autocast around the network.

    What it gives has the shapes and values that it always has. But in memory it lies as the convolutions leave it in
    channels-last, all numbers of an anchor together: to turn that round costs a twentieth of a pass on a CPU.
    """
    head = model.model[-1]
    changed = [(head, "_inference", _decode)]
    if type(head).forward_head is Detect.forward_head:
        changed.append((head, "forward_head", _raw_output))
    if isinstance(head.dfl, DFL):
        changed.append((head.dfl, "forward", _expected))
    for module, name, function in changed:
        setattr(module, name, MethodType(function, module))
    try:
        yield
    finally:
        for module, name, _ in changed:
            delattr(module, name)  # the class's own again: nothing of ours is to be pickled with a network


def _raw_output(
    head: Detect, x: list[Tensor], box_head: nn.Module | None = None, cls_head: nn.Module | None = None
) -> dict[str, Any]:
    """`Detect.forward_head`: boxes (b, 4 * reg_max, a) and scores (b, nc, a) of the levels x, as views of rows."""

    def together(branch: nn.Module) -> Tensor:
        levels = [module(level).flatten(2).transpose(1, 2) for module, level in zip(branch, x, strict=True)]
        return torch.cat(levels, 1).transpose(1, 2)

    if box_head is None or cls_head is None:
        return {}
    return {"boxes": together(box_head), "scores": together(cls_head), "feats": x}


def _decode(head: Detect, preds: dict[str, Any]) -> Tensor:
    """Decoded boxes in pixels and scores (b, 4 + nc, a) of a head's raw output, as a view of rows."""
    with torch.autocast(preds["boxes"].device.type, enabled=False):
        preds = in_full(preds)
        if type(head)._inference is not Detect._inference:
            return type(head)._inference(head, preds)
        boxes = head._get_decode_boxes(preds)  # (b, 4, a)
        return torch.cat((boxes.transpose(1, 2), preds["scores"].transpose(1, 2).sigmoid()), 2).transpose(1, 2)


def _expected(dfl: DFL, boxes: Tensor) -> Tensor:
    """`DFL.forward`: raw output (b, 4 * bins, a) -> the expected distance to each side (b, 4, a), in strides."""
    shares = boxes.transpose(1, 2).unflatten(2, (4, dfl.c1)).softmax(-1)  # (b, a, 4, bins)
    return (shares @ torch.arange(dfl.c1, dtype=shares.dtype, device=shares.device)).transpose(1, 2)
