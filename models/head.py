"""What passes from a checkpoint to a detector with other classes, and an account of it."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from ultralytics.nn.tasks import BaseModel

from models.anchor.network import AnchorModel
from models.build import build_network, class_branches, label


@dataclass(frozen=True)
class Transfer:
    """What a detector took from a checkpoint: tensors carried whole, class rows copied by name, fresh classes."""

    tensors_carried: int
    tensors_total: int
    class_rows: list[str]
    fresh: list[str]

    @property
    def carried_names(self) -> list[str]:
        """Classes that the checkpoint knew already."""
        return self.class_rows

    def summary(self) -> str:
        """One line for the log."""
        share = f"{self.tensors_carried} of {self.tensors_total} tensors carried"
        rows = f"class rows carried by name: {_listed(self.class_rows)}"
        return f"{share}; {rows}; fresh classes: {_listed(self.fresh)}"


def keep_head(source: BaseModel, names: list[str]) -> tuple[BaseModel, Transfer]:
    """Keep all of `source` but the last 1x1 convolution of its class branches: rows by name, the others fresh."""
    state = {name: tensor.clone() for name, tensor in source.state_dict().items()}
    rows = matching_rows(list(source.names.values()), names)
    if isinstance(source, AnchorModel):
        rows = source.take_classes(rows)
    elif rows != list(range(len(source.names))):
        for branch in class_branches(source):
            for level, stride in zip(branch, source.stride.tolist(), strict=True):
                level[-1] = _last_conv(level[-1], rows, stride)
    return _account(label(source, names), state, rows)


def rebuild_head(source: BaseModel, names: list[str]) -> tuple[BaseModel, Transfer]:
    """The transfer of ultralytics' own trainer, by its own `load`, whatever the installed version does.

    Of an anchor-based network too, as YOLOv5's: every tensor whose shape is the same, hence no part of the head unless
    the number of classes is.
    """
    model = build_network(source.yaml, len(names), "the checkpoint's yaml")
    model.names = dict(enumerate(names))
    model.load(source, verbose=False)
    return _account(label(model, names), source.state_dict(), matching_rows(list(source.names.values()), names))


def matching_rows(old: list[str], new: list[str]) -> list[int | None]:
    """For each new class the row of the old class of that name (case and outer spaces aside), or None."""
    if old == new:
        return list(range(len(new)))
    if old == [str(i) for i in range(len(old))]:  # placeholders of a model that was never given names
        return [None] * len(new)
    row_of = {name.strip().casefold(): i for i, name in reversed(list(enumerate(old)))}
    return [row_of.get(name.strip().casefold()) for name in new]


def _last_conv(old: nn.Conv2d, rows: list[int | None], stride: float) -> nn.Conv2d:
    """1x1 convolution with one output per entry of `rows`: that row of `old`, or fresh with the class prior as bias."""
    nc = len(rows)
    conv = nn.Conv2d(old.in_channels, nc, 1)  # weight (nc, c, 1, 1), bias (nc,)
    prior = math.log(5 / nc / (640 / stride) ** 2)  # ultralytics' bias_init: 5 objects on a picture of 640 pixels
    with torch.no_grad():
        conv.bias.fill_(prior)
        for row, old_row in enumerate(rows):
            if old_row is not None:
                conv.weight[row] = old.weight[old_row]
                conv.bias[row] = old.bias[old_row]
    return conv


def _account(model: BaseModel, before: dict[str, Tensor], rows: list[int | None]) -> tuple[BaseModel, Transfer]:
    """Count what the new network shares with the old one by comparing tensors, not by trusting the transfer."""
    after = model.state_dict()
    carried = sum(name in before and torch.equal(tensor, before[name]) for name, tensor in after.items())
    names = list(model.names.values())
    kept = [name for name, row in zip(names, rows, strict=True) if row is not None]
    fresh = [name for name, row in zip(names, rows, strict=True) if row is None]
    return model, Transfer(carried, len(after), kept, fresh)


def _listed(names: list[str], limit: int = 6) -> str:
    shown = ", ".join(names[:limit]) or "none"
    return shown + (f" and {len(names) - limit} more" if len(names) > limit else "")
