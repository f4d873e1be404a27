"""The assigner of the criterion on a CPU: the same targets bit for bit, looked for where a box may find them only."""

from typing import Any

import torch
from torch import Tensor

from models.loss.evaluation import Truth, assign


class Sparse:
    """In place of the assigner of a criterion's branch, whose tables have an entry for each picture, box and anchor.

    Those take 14 of the criterion's 17 ms for 16 pictures at 224 px with 346 boxes, this a quarter of it. On a GPU the
    tables are the faster way: there nobody has to know how many pairs there are.
    """

    def __init__(self, own: Any) -> None:
        self.own = own

    def __call__(
        self, scores: Tensor, boxes: Tensor, points: Tensor, labels: Tensor, truth: Tensor, mask: Tensor
    ) -> tuple[None, Tensor, Tensor, Tensor, None]:
        """Boxes (b, a, 4) xyxy pixels and scores (b, a, nc) to aim at, and at which anchors, (b, a).

        scores (b, a, nc), boxes (b, a, 4): what was found; points (a, 2) in pixels; labels (b, n, 1), truth (b, n, 4),
        mask (b, n, 1): the boxes of each picture, and which of them there are. Nobody asks for what is None.
        """
        picture, place = mask.squeeze(-1).nonzero(as_tuple=True)  # (n,), (n,)
        boxes_of = Truth(picture, labels[picture, place, 0].long(), truth[picture, place])
        row, anchor, score = assign(
            self.own, lambda picture, cls, anchor: scores[picture, anchor, cls], boxes, points, boxes_of
        )
        picture = picture[row]
        aims, aimed = torch.zeros_like(scores), torch.zeros(scores.shape[:2], dtype=torch.bool)
        aims[picture, anchor, boxes_of.cls[row]] = score
        aimed[picture, anchor] = True
        found = torch.zeros_like(boxes)
        found[picture, anchor] = boxes_of.boxes[row]
        return None, found, aims, aimed, None
