"""YOLOv5's loss (v7.0): boxes by CIoU, objectness and classes by binary cross-entropy; all of it in float32.

What is to be found where is worked out on the host, of boxes, anchors and sizes alone: on a GPU nothing waits for it.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from ultralytics.utils.metrics import bbox_iou

from models.anchor.head import BOX
from models.anchor.match import Found, as_rows, find
from models.anchor.network import AnchorModel
from models.loss.detection import class_weights
from utils.config.schema import Hyp, with_gains
from utils.device.together import add_up
from utils.evaluation.losses import AIMED

BALANCE = {3: (4.0, 1.0, 0.4)}  # of the levels' objectness, finest first; there are many more cells than objects
BALANCE_OF_OTHERS = (4.0, 1.0, 0.25, 0.06, 0.02)
ALPHA = 0.25  # of the focal loss: weight of what is there


class AnchorLoss:
    """Box, objectness and class loss of an anchor-based detector; build it after the model is on its device."""

    names = ("box", "obj", "cls")

    def __init__(
        self, model: AnchorModel, hyp: Hyp, class_counts: np.ndarray | None = None, world_size: int = 1
    ) -> None:
        """class_counts: training boxes of each class (nc,), needed by cls_pw. Several ranks call it together.

        The gains are those of `hyp` scaled as YOLOv5 does: to 3 levels, to 80 classes, to pictures of 640 pixels.
        """
        head, hyp = model.model[-1], with_gains(hyp, anchor_based=True)
        self.head, self.hyp, self.device, self.world_size = head, hyp, head.anchors.device, world_size
        self.anchors = head.anchors.detach().float().cpu()  # (levels, anchors, 2) in cells
        self.balance = BALANCE.get(head.nl, BALANCE_OF_OTHERS)[: head.nl]
        few, area = 3 / head.nl, (hyp.imgsz / 640) ** 2
        gains = (hyp.box * few, hyp.obj * area * few, hyp.cls * head.nc / 80 * few)
        self.gains = torch.tensor(gains, device=self.device)
        self.weights = None
        if hyp.cls_pw:
            self.weights = torch.from_numpy(class_weights(class_counts, hyp.cls_pw)).to(self.device)

    def __call__(self, preds: list[Tensor], batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Loss of the raw numbers of each level, (b, anchors, h, w, 5 + nc).

        `batch` holds cls (n,), bboxes (n, 4) xywh in 0..1 and batch_idx (n,). Returns the sum over the pictures of the
        batch (a scalar with gradient) and the means (3,), gains included, detached. With several ranks `batch` also
        holds `pictures`, how many of this rank count and of all: the means are those of the whole batch then, and the
        sum is this rank's summand of it.
        """
        rows, shared = as_rows(batch), self.world_size > 1 and "pictures" in batch
        mine, of_all = batch["pictures"] if shared else (len(preds[0]), len(preds[0]))
        rows = rows if mine else rows[:0]  # a rank without a picture has one that does not count
        found = [self._find(i, level, rows) for i, level in enumerate(preds)]
        pairs = torch.tensor([len(each.cell) for each in found]).to(self.device, non_blocking=True)  # (levels,)
        pairs = add_up(pairs) if shared else pairs
        with torch.autocast(self.device.type, enabled=False):
            levels = zip(preds, found, pairs, strict=True)
            parts = [self._of_level(i, level.float(), f, n, of_all) for i, (level, f, n) in enumerate(levels)]
            means = torch.stack(parts).sum(0) * self.gains * float(mine > 0)  # (3,)
        return means.sum() * of_all, add_up(means) if shared else means.detach()

    def _find(self, i: int, level: Tensor, rows: np.ndarray) -> Found:
        """What a level is to find of the boxes `rows`, on the device."""
        return find(rows, self.anchors[i], tuple(level.shape[:4]), self.hyp, self.head.decode).to(self.device)

    def _of_level(self, i: int, level: Tensor, found: Found, pairs: Tensor, pictures: int) -> Tensor:
        """Box, objectness and class loss (3,) of one level, without gains.

        They are sums over what is here, divided by the pairs of cell and box and by the pictures of all ranks.
        """
        numbers = level.flatten(0, 3)  # (b * anchors * h * w, 5 + nc)
        wanted = torch.zeros_like(numbers[:, 4])
        box = cls = numbers.new_zeros(())
        if len(found.cell):
            # by index_select: its gradient is a sum in a fixed order where two boxes share a cell
            mine = numbers.index_select(0, found.cell)  # (n, 5 + nc)
            iou = self._overlap(mine, found, i)  # (n,)
            box = (1 - iou).sum() / pairs
            wanted[found.cell[found.last]] = iou.detach().clamp(min=0)[found.last]
            if self.head.nc > 1:
                cls = self._of_classes(mine[:, BOX:], found.cls) / (pairs * self.head.nc)
        obj = self._cross_entropy(numbers[:, 4], wanted).sum() / (pictures * level[0, ..., 4].numel())
        return torch.stack((box, obj * self.balance[i], cls))

    def _overlap(self, mine: Tensor, found: Found, i: int) -> Tensor:
        """CIoU (n,) of the boxes that the numbers of a level (n, 5 + nc) say with those that were to be found."""
        anchors = self.anchors[i].to(self.device, non_blocking=True)[found.anchor]  # (n, 2)
        boxes = torch.cat((self.head.centres(mine[:, :2]), self.head.sizes(mine[:, 2:4]) * anchors), 1)
        return bbox_iou(boxes, found.box, xywh=True, CIoU=True).squeeze(-1)

    def _of_classes(self, logits: Tensor, cls: Tensor) -> Tensor:
        """Sum of the class losses of logits (n, nc) of boxes of the classes cls (n,)."""
        off = 0.5 * self.hyp.label_smoothing
        wanted = torch.full_like(logits, off).scatter_(1, cls[:, None], 1 - off)
        losses = self._cross_entropy(logits, wanted)
        return (losses if self.weights is None else losses * self.weights).sum()

    def _cross_entropy(self, logits: Tensor, wanted: Tensor) -> Tensor:
        """Binary cross-entropy number by number; with fl_gamma what is right already counts less (focal loss)."""
        losses = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
        if not self.hyp.fl_gamma:
            return losses
        p = logits.sigmoid()
        right = wanted * p + (1 - wanted) * (1 - p)
        return losses * (wanted * ALPHA + (1 - wanted) * (1 - ALPHA)) * (1 - right) ** self.hyp.fl_gamma

    @torch.no_grad()
    def sums(self, raw: list[Tensor], batch: dict[str, Tensor], _: Tensor | None = None) -> dict[str, Tensor]:
        """What the means of `__call__` are made of, for the raw output of a network in evaluation mode.

        Box and class loss of a level are divided by its pairs (aimed:0 ...), objectness by the pictures.
        """
        rows, found_sums = as_rows(batch), {}
        obj = self.gains[1] * 0
        with torch.autocast(self.device.type, enabled=False):
            for i, level in enumerate(raw):
                found = self._find(i, level, rows)
                parts = self._of_level(i, level.float(), found, torch.ones_like(obj), 1) * self.gains
                obj = obj + parts[1]
                found_sums |= {
                    f"box:{i}": parts[0],
                    f"cls:{i}": parts[2],
                    f"{AIMED}:{i}": obj.new_tensor(len(found.cell)),
                }
        return found_sums | {"obj:all": obj, f"{AIMED}:all": obj.new_tensor(len(raw[0]))}

    def end_epoch(self) -> None:
        """Nothing moves from epoch to epoch."""

    def state_dict(self) -> dict[str, Any]:
        """Empty: the loss has no state."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to continue from."""
