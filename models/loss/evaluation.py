"""The losses of an evaluation: the same numbers as the criterion's, computed without its dense tables.

Those have an entry for every picture, box, class and anchor, for the sake of gradients, and cost a seventh of an
evaluation. Here the boxes of a batch are one list, and only pairs of a box and an anchor inside it are looked at.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from ultralytics.utils.ops import xywh2xyxy, xyxy2xywh

FAR_BELOW = -7.0  # there log(1 + e^x) is e^x - e^2x / 2 to seven digits


def softplus_sum(logits: Tensor, weights: Tensor | None = None) -> Tensor:
    """Sum of log(1 + e^x), times the weights of the classes (nc,), of logits (b, nc, a) float32; 0-dim.

    Nearly all logits of a detector are far below 0: there two terms of the series do, at a tenth of the time.
    """
    far = logits.amax(1) < FAR_BELOW  # (b, a); NaN is not
    power = logits.exp()
    power.addcmul_(power, power, value=-0.5)
    if weights is not None:
        power *= weights[:, None]
    near = F.softplus(logits.transpose(1, 2)[~far])  # (m, nc)
    return power.sum(1)[far].sum() + (near.sum() if weights is None else (near @ weights).sum())


@dataclass(frozen=True)
class Truth:
    """The boxes of a batch as one list, on the device."""

    picture: Tensor  # (n,) int64
    cls: Tensor  # (n,) int64
    boxes: Tensor  # (n, 4) xyxy pixels

    @classmethod
    def of(cls, batch: dict[str, Tensor], size: Tensor, device: torch.device) -> "Truth":
        """Of cls, bboxes xywh in 0..1 and batch_idx; size: width, height, width, height."""
        rows = torch.cat((batch["batch_idx"].view(-1, 1), batch["cls"].view(-1, 1), batch["bboxes"]), 1).to(device)
        boxes = xywh2xyxy(rows[:, 2:] * size)
        return cls(rows[:, 0].long(), rows[:, 1].long(), boxes)

    def split(self, most: int) -> Iterator["Truth"]:
        """Parts of about `most` boxes, those of a picture together."""
        ends = self.picture.bincount().cumsum(0).tolist()
        first = 0
        for end, after in pairwise([*ends, float("inf")]):
            if after - first > most and end > first:
                yield Truth(self.picture[first:end], self.cls[first:end], self.boxes[first:end])
                first = end


def inside(boxes: Tensor, points: Tensor, least: float) -> Tensor:
    """Whether points (a, 2) lie inside of boxes (n, 4) xyxy, sides below `least` counted as that long; (n, a) bool."""
    centre, side = xyxy2xywh(boxes).split(2, 1)
    x1, y1, x2, y2 = xywh2xyxy(torch.cat((centre, side.clamp(min=least)), 1)).T[..., None]  # (n, 1) each
    x, y = points.T  # (a,) each
    return (x > x1).logical_and_(x < x2).logical_and_(y > y1).logical_and_(y < y2)


def chosen(which: Tensor, *columns: Tensor) -> list[Tensor]:
    """The entries of each column (p,) where `which` (p,) is true, looked for once."""
    places = which.nonzero().squeeze(1)
    return [column[places] for column in columns]


def assign(
    assigner: Any, score_at: Callable[..., Tensor], boxes: Tensor, points: Tensor, truth: Truth
) -> tuple[Tensor, Tensor, Tensor]:
    """Which box each anchor is to find, as the assigner of the criterion decides: row of truth, anchor, score; (m,).

    score_at: picture, class and anchor, (p,) each, -> scores (p,) found there; boxes (b, a, 4) xyxy pixels found;
    points (a, 2): the anchors in pixels. A box takes the anchors inside that fit best, by score ** alpha * IoU ** beta;
    one that several take goes to the box it overlaps most. The score to aim at is the fit, scaled so that the best
    anchor of a box has the largest IoU of its anchors.
    """
    n, anchors = len(truth.boxes), len(points)
    possible = inside(truth.boxes, points, assigner.stride_val)  # (n, a)
    row, anchor = possible.nonzero(as_tuple=True)  # (p,), (p,): pairs
    picture = truth.picture[row]
    iou = assigner.iou_calculation(truth.boxes[row], boxes[picture, anchor])  # (p,)
    fit = score_at(picture, truth.cls[row], anchor).pow(assigner.alpha) * iou.pow(assigner.beta)  # (p,)

    table = fit.new_zeros(n, anchors)
    table[row, anchor] = fit
    takes = torch.zeros_like(possible).scatter_(1, table.topk(assigner.topk, 1).indices, True)  # (n, a)
    place = picture * anchors + anchor  # (p,) of an anchor among those of all pictures
    takes = takes[row, anchor]  # (p,)
    takers = torch.zeros(len(boxes) * anchors, dtype=torch.int32, device=place.device)
    takers.index_add_(0, place, takes.int())
    contested = takers[place] > 1  # (p,)
    rows = (row, anchor, place, iou, fit, takes, contested)
    row, anchor, place, iou, fit, takes, contested = chosen(takes | contested, *rows)
    most = iou.new_zeros(len(takers)).scatter_reduce_(0, place, iou, "amax")
    first = torch.where(iou == most[place], row, n)  # of boxes that overlap it equally, the first
    winner = torch.full_like(takers, n, dtype=torch.int64).scatter_reduce_(0, place, first, "amin")
    kept = torch.where(contested, winner[place] == row, takes)
    row, anchor, iou, fit = chosen(kept, row, anchor, iou, fit)
    if assigner.topk2 != assigner.topk:
        table.zero_()[row, anchor] = fit
        best = torch.zeros_like(possible).scatter_(1, table.topk(assigner.topk2, 1).indices, True)
        row, anchor, iou, fit = chosen(best[row, anchor], row, anchor, iou, fit)
    largest = [v.new_zeros(n).scatter_reduce_(0, row, v, "amax")[row] for v in (iou, fit)]
    return row, anchor, fit * largest[0] / (largest[1] + assigner.eps)


def loss_sums(
    criterion: Any, raw: dict[str, Tensor], boxes: Tensor, truth: Truth, anchors: tuple[Tensor, Tensor], size: Tensor
) -> tuple[Tensor, Tensor]:
    """What finding `truth` adds to the losses box, cls, dfl (3,), gains aside, and the sum of the scores aimed at.

    Of the class loss the part of the logits that are to be low is not in it (softplus_sum). raw: boxes
    (b, 4 * reg_max, a) and scores (b, nc, a) of a branch of a head; boxes (b, a, 4) xyxy pixels: what it decodes to;
    anchors: points (a, 2) in strides, and strides (a, 1); size: height and width in pixels. Computed in float32.
    """
    points, strides = anchors
    row, anchor, score = assign(
        criterion.aligned, lambda *at: raw["scores"][at].float().sigmoid(), boxes, points * strides, truth
    )
    picture, cls, stride = truth.picture[row], truth.cls[row], strides[anchor]
    logit = raw["scores"][picture, cls, anchor].float()  # (m,)
    weights = 1 if criterion.class_weights is None else criterion.class_weights.flatten()[cls]
    box, dfl = criterion.bbox_loss(
        raw["boxes"][picture, :, anchor].float(),  # (m, 4 * reg_max)
        boxes[picture, anchor] / stride,
        points[anchor],
        truth.boxes[row] / stride,
        score[:, None],
        score.new_ones(()),
        torch.ones_like(anchor, dtype=torch.bool),
        size,
        stride,
    )
    return torch.stack((box, -(logit * score * weights).sum(), dfl)), score.sum()
