"""The network as one function of pictures, for a tracer: decoded output alone, suppression where it is wanted."""

import math

import torch
import torchvision
from torch import Tensor, nn

from models.fold import fold
from models.inference.export.metadata import Choices

CANDIDATES = 1000  # of a picture that enter the suppression: without a fixed number nothing can be traced


class Plain(nn.Module):
    """Pictures (b, 3, h, w) in 0..1 -> decoded output (b, 4 + nc, a), or (b, k, 6) of a head without suppression."""

    def __init__(self, model: nn.Module, dynamic: bool):
        super().__init__()
        self.network = fold(model)
        head = self.network.model[-1]
        head.export = True  # the decoded output alone
        head.dynamic = dynamic  # anchors are made from the shape of the picture at hand

    def forward(self, images: Tensor) -> Tensor:
        out = self.network(images)
        return out[0] if isinstance(out, tuple | list) else out


class Suppressed(nn.Module):
    """The same with suppression by class behind it: (b, max_det, 6) xyxy, score, class; score 0 where there is none.

    The best class of an anchor counts. All pictures are suppressed at once: those of different pictures and classes are
    moved so far apart that they cannot touch.
    """

    def __init__(self, plain: Plain, choices: Choices):
        super().__init__()
        self.plain, self.choices = plain, choices

    def forward(self, images: Tensor) -> Tensor:
        c = self.choices
        pred = self.plain(images)  # (b, 4 + nc, a)
        nc = pred.shape[1] - 4
        score, cls = pred[:, 4:].max(1)  # (b, a)
        score = score * (score > c.conf)
        # a network for small pictures has fewer anchors than candidates: zeros behind them, which count as none
        score = torch.cat((score, score.new_zeros(score.shape[0], CANDIDATES)), 1)
        boxes = torch.cat((pred[:, :4], pred.new_zeros(pred.shape[0], 4, CANDIDATES)), 2)
        cls = torch.cat((cls, cls.new_zeros(cls.shape[0], CANDIDATES)), 1)
        score, at = score.topk(CANDIDATES, 1)  # (b, k)
        boxes = boxes.gather(2, at[:, None].expand(-1, 4, -1)).transpose(1, 2)  # (b, k, 4)
        cls = cls.gather(1, at)
        corners = torch.cat((boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., :2] + boxes[..., 2:] / 2), 2)
        # a picture and class each have a field of a board of their own: two axes keep numbers small for float32
        columns = math.isqrt(nc - 1) + 1
        picture = torch.ones_like(cls).cumsum(0) - 1  # (b, k): 0, 1, ... down the batch
        row = picture * -(-nc // columns) + torch.div(cls, columns, rounding_mode="floor")
        field = torch.stack((cls % columns, row), 2).to(corners.dtype)  # (b, k, 2)
        apart = corners + torch.cat((field, field), 2) * (corners.max() - corners.min() + 1)
        keep = torchvision.ops.nms(apart.reshape(-1, 4), score.reshape(-1), c.iou)
        kept = torch.zeros_like(score.reshape(-1)).scatter(0, keep, torch.ones_like(keep, dtype=score.dtype))
        best, at = (score * kept.view_as(score)).topk(min(c.max_det, CANDIDATES), 1)
        rows = torch.cat((corners, cls[..., None].to(corners.dtype)), 2).gather(1, at[..., None].expand(-1, -1, 5))
        return torch.cat((rows[..., :4], best[..., None], rows[..., 4:]), 2)


def plain_network(model: nn.Module, choices: Choices) -> nn.Module:
    """What is traced; `model` stays as it is."""
    plain = Plain(model, choices.dynamic)
    if not choices.nms or getattr(model, "end2end", False):
        return plain.eval()
    return Suppressed(plain, choices).eval()
