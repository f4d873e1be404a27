"""From a detector's raw output to boxes: non-maximum suppression, NMS-free heads, remapping of classes. Pure."""

import torch
import torchvision
from torch import Tensor


def non_max_suppression(
    pred: Tensor,
    conf: float,
    iou: float,
    max_det: int,
    multi_label: bool,
    agnostic: bool,
    max_nms: int = 30000,
) -> list[Tensor]:
    """Detections per picture, (n, 6) xyxy pixels, score, class, best score first, of pred (b, 4 + nc, a).

    pred holds xywh in pixels and one score per class for each of the a anchors. `multi_label` lets one anchor give a
    box per class whose score exceeds `conf`, else only the best class counts; `agnostic` suppresses across classes.
    At most `max_nms` candidates enter the suppression and at most `max_det` leave it. NaN scores are no detections.
    """
    pred = pred.float()  # half-precision coordinates are whole pixels from 1024 on
    wanted = pred[:, 4:].amax(1) > conf  # (b, a); a NaN among the scores makes it False
    return [
        _suppress(_candidates(p[:, w].T, conf, multi_label, max_nms), iou, max_det, agnostic)
        for p, w in zip(pred, wanted, strict=True)
    ]


def _candidates(rows: Tensor, conf: float, multi_label: bool, max_nms: int) -> Tensor:
    """The best `max_nms` (anchor, class) pairs above `conf` of anchors (k, 4 + nc), as (n, 6) xyxy, score, class."""
    rows = rows[rows[:, :4].isfinite().all(1)]  # (k, 4 + nc)
    scores = rows[:, 4:]  # (k, nc)
    if multi_label:
        anchor, cls = torch.nonzero(scores > conf, as_tuple=True)  # (n,), (n,)
    else:
        cls = scores.argmax(1)  # (k,)
        anchor = torch.arange(len(rows), device=rows.device)
    score = scores[anchor, cls]  # (n,)
    if len(score) > max_nms:
        best = score.argsort(descending=True, stable=True)[:max_nms]
        anchor, cls, score = anchor[best], cls[best], score[best]
    centre, half = rows[anchor, :2], rows[anchor, 2:4] / 2  # (n, 2), (n, 2)
    return torch.cat((centre - half, centre + half, score[:, None], cls[:, None].float()), 1)


def _suppress(boxes: Tensor, iou: float, max_det: int, agnostic: bool) -> Tensor:
    """The rows of boxes (n, 6) that no better row of their class (if agnostic: of any) overlaps by more than iou."""
    if not len(boxes):
        return boxes
    corners = boxes[:, :4].double()  # double: with float32 the class offset below would round coordinates by 0.01 pixel
    if not agnostic:
        span = corners.max() - corners.min() + 1  # so boxes of different classes can never touch
        corners = corners + boxes[:, 5:6] * span
    keep = torchvision.ops.nms(corners, boxes[:, 4].double(), iou)[:max_det]
    return boxes[keep]


def end2end_detections(pred: Tensor, conf: float, max_det: int) -> list[Tensor]:
    """Detections per picture, (n, 6), of a head that needs no suppression: pred (b, k, 6) xyxy pixels, score, class."""
    detections = []
    for rows in pred.float():
        rows = rows[(rows[:, 4] > conf) & rows.isfinite().all(1)]  # (n, 6)
        detections.append(rows[rows[:, 4].argsort(descending=True, stable=True)[:max_det]])
    return detections


def remap_classes(pred: Tensor, class_map: Tensor, nc: int, end2end: bool) -> Tensor:
    """The same output in the classes of another list of names: model class i becomes class_map[i], dropped if -1.

    pred is (b, 4 + len(class_map), a), or (b, k, 6) when end2end; the result is (b, 4 + nc, a), or (b, k, 6) with
    score 0 in dropped rows. Classes that fall together keep the best score. Done before suppression, so that dropped
    classes take none of the `max_det` places.
    """
    if end2end:
        cls = class_map[pred[..., 5].nan_to_num().long()]  # (b, k)
        score = pred[..., 4] * (cls >= 0)
        return torch.cat((pred[..., :4], score[..., None], cls.clamp(min=0)[..., None].to(pred.dtype)), -1)
    scores = [pred[:, 4:][:, class_map == c] for c in range(nc)]  # nc of (b, model's classes that mean c, a)
    best = [s.amax(1) if s.shape[1] else torch.zeros_like(pred[:, 0]) for s in scores]  # nc of (b, a)
    return torch.cat((pred[:, :4], torch.stack(best, 1)), 1)
