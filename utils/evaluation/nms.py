"""From a detector's raw output to boxes: non-maximum suppression, NMS-free heads, remapping of classes. Pure."""

from collections.abc import Iterator

import torch
from torch import Tensor

TOGETHER = 2**14  # candidates of several pictures that are suppressed at once on a GPU, which compares all with all


def non_max_suppression(
    pred: Tensor,
    conf: float,
    iou: float,
    max_det: int,
    multi_label: bool,
    agnostic: bool,
    max_nms: int = 30000,
) -> list[Tensor]:
    """Detections per picture, (n, 6) xyxy pixels, score, class, best score first, of pred (b, 4 + nc, a); on the host.

    pred holds xywh in pixels and one score per class for each of the a anchors. `multi_label` lets one anchor give a
    box per class whose score exceeds `conf`, else only the best class counts; `agnostic` suppresses across classes.
    At most `max_nms` candidates enter the suppression and at most `max_det` leave it. NaN scores are no detections.
    """
    pred = pred.float()  # half-precision coordinates are whole pixels from 1024 on
    if pred.is_cuda:
        return suppress_together(pred, conf, iou, max_det, multi_label, agnostic, max_nms)
    wanted = pred[:, 4:].amax(1) > conf  # (b, a); a NaN among the scores makes it False
    return [
        _suppress(_candidates(p.T[w], conf, multi_label, max_nms), iou, max_det, agnostic)
        for p, w in zip(pred, wanted, strict=True)
    ]


def suppress_together(
    pred: Tensor, conf: float, iou: float, max_det: int, multi_label: bool, agnostic: bool, max_nms: int = 30000
) -> list[Tensor]:
    """What `non_max_suppression` gives, for a GPU: it waits three times a batch, in place of five times a picture.

    On a CPU it would be slower: here the boxes of all pictures are compared with each other.
    """
    nc, scores = pred.shape[1] - 4, pred[:, 4:].transpose(1, 2)  # scores (b, a, nc)
    wanted = (scores.amax(2) > conf) & pred[:, :4].isfinite().all(1)  # (b, a)
    if multi_label:
        picture, anchor, cls = torch.nonzero((scores > conf) & wanted[..., None], as_tuple=True)  # (n,) each; a wait
    else:
        picture, anchor = torch.nonzero(wanted, as_tuple=True)  # a wait
        cls = scores.argmax(2)[picture, anchor]
    centre, half = pred[picture, :2, anchor], pred[picture, 2:4, anchor] / 2  # (n, 2), (n, 2)
    score, named = scores[picture, anchor, cls], torch.stack((cls, picture), 1).float()  # (n,), (n, 2)
    boxes = torch.cat((centre - half, centre + half, score[:, None], named), 1)  # (n, 7)
    group = picture if agnostic else picture * nc + cls  # boxes of different groups leave each other alone
    kept = [_best(boxes[part], group[part], iou) for part in _parts(picture, score, len(pred), max_nms)]
    found = torch.cat(kept).cpu()  # (m, 7); a wait
    return [found[found[:, 6] == k, :6][:max_det] for k in range(len(pred))]


def _parts(picture: Tensor, score: Tensor, pictures: int, max_nms: int) -> Iterator[Tensor]:
    """Places of the candidates that are compared with each other: all, or where they are many, of a few pictures.

    picture, score (n,) of all candidates, by rising picture, of each of which the best `max_nms` are taken.
    """
    places = torch.arange(len(picture), device=picture.device)
    if len(places) <= min(TOGETHER, max_nms):
        yield places
        return
    part, size = [], 0
    for mine in places.split(torch.bincount(picture, minlength=pictures).tolist()):  # a wait
        if len(mine) > max_nms:
            mine = mine[score[mine].argsort(descending=True, stable=True)[:max_nms]]
        if size and size + len(mine) > TOGETHER:
            yield torch.cat(part)
            part, size = [], 0
        part, size = [*part, mine], size + len(mine)
    yield torch.cat(part)


def _best(boxes: Tensor, group: Tensor, iou: float) -> Tensor:
    """The rows of boxes (n, 7), by falling score, that no better row of their group overlaps by more than iou."""
    return boxes[_kept(boxes, group, iou)] if len(boxes) else boxes


def _kept(boxes: Tensor, group: Tensor | None, iou: float) -> Tensor:
    """Rows of boxes (n, 5 or more), by falling score, that no better one of their group (n,) overlaps; None: of any."""
    import torchvision  # takes a second, which a plan need not wait for

    corners = boxes[:, :4].double()  # double: with float32 the offset below would round coordinates by 0.01 pixel
    if group is not None:
        span = corners.max() - corners.min() + 1  # so boxes of different groups can never touch
        corners = corners + group[:, None].double() * span
    return torchvision.ops.nms(corners, boxes[:, 4].double(), iou)  # a wait


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
    return boxes[_kept(boxes, None if agnostic else boxes[:, 5], iou)[:max_det]] if len(boxes) else boxes


def end2end_detections(pred: Tensor, conf: float, max_det: int) -> list[Tensor]:
    """Detections per picture, (n, 6), of a head that needs no suppression, on the host.

    pred (b, k, 6) holds xyxy pixels, score, class; k is some hundred, so one copy costs less than to select on a GPU.
    """
    detections = []
    for rows in pred.cpu().float():
        rows = rows[(rows[:, 4] > conf) & rows.isfinite().all(1)]  # (n, 6)
        detections.append(rows[rows[:, 4].argsort(descending=True, stable=True)[:max_det]])
    return detections


def raise_thresholds(pred: Tensor, least: Tensor, end2end: bool, multi_label: bool) -> Tensor:
    """The same output with every score that is not above that of its class, least (nc,), set to 0.

    pred is (b, 4 + nc, a), or (b, k, 6) when end2end. Without `multi_label` only the best class of an anchor counts: it
    is no other one's where its score is too low. Done before suppression: what does not count suppresses nothing.
    """
    if end2end:
        enough = pred[..., 4] > least[pred[..., 5].nan_to_num().long().clamp(0, len(least) - 1)]  # (b, k)
        return torch.cat((pred[..., :4], (pred[..., 4] * enough)[..., None], pred[..., 5:]), -1)
    scores = pred[:, 4:]
    enough = scores > least[:, None]  # (b, nc, a)
    if not multi_label:
        enough &= torch.zeros_like(enough).scatter(1, scores.argmax(1, keepdim=True), True)
    return torch.cat((pred[:, :4], scores * enough), 1)


class ClassMap:
    """A detector's output in the classes of another list of names: model class i becomes to[i], dropped if -1."""

    def __init__(self, to: list[int], nc: int, device: torch.device) -> None:
        """nc: the number of the other classes; device: of the output, which is not to be waited for at every batch."""
        self.to = torch.tensor(to, device=device)  # (model's classes,)
        self.columns = [
            torch.tensor([k for k, c in enumerate(to) if c == mine], dtype=torch.long, device=device)
            for mine in range(nc)
        ]

    def __call__(self, pred: Tensor, end2end: bool) -> Tensor:
        """pred (b, 4 + model's classes, a) -> (b, 4 + nc, a); (b, k, 6) when end2end, with score 0 in dropped rows.

        Classes that fall together keep the best score. Done before suppression, so that dropped classes take none of
        the `max_det` places.
        """
        if end2end:
            cls = self.to[pred[..., 5].nan_to_num().long()]  # (b, k)
            score = pred[..., 4] * (cls >= 0)
            return torch.cat((pred[..., :4], score[..., None], cls.clamp(min=0)[..., None].to(pred.dtype)), -1)
        scores = [pred[:, 4:].index_select(1, mine) for mine in self.columns]  # nc of (b, model's that mean c, a)
        best = [s.amax(1) if s.shape[1] else torch.zeros_like(pred[:, 0]) for s in scores]  # nc of (b, a)
        return torch.cat((pred[:, :4], torch.stack(best, 1)), 1)
