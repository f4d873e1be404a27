"""ultralytics' detection criterion behind one call, in full precision, whatever the network has.

bf16 and fp16 round the decoded boxes to whole pixels, and with them a third of their gradients away.
"""

import logging
from types import FunctionType, MethodType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils.ops import xywh2xyxy

from models.loss.evaluation import Truth, loss_sums, softplus_sum
from models.loss.shared import Shared
from models.loss.sparse import Sparse
from utils.config.schema import Hyp, with_gains
from utils.device.together import add_up
from utils.evaluation.losses import AIMED

log = logging.getLogger(__name__)
FULL = (torch.float32, torch.float64)  # types that a criterion is computed in
AT_ONCE = 2**20  # logits that an evaluation's losses are computed of at a time on a CPU: what fits into its cache
MOST = 2**24  # pairs of a box and an anchor that they are computed of at a time


def class_weights(counts: np.ndarray, power: float) -> np.ndarray:
    """Weights of the classes in the loss (nc,) float32, mean 1: 1 / boxes ** power, as ultralytics 8.4 has them.

    A class without boxes gets the mean of the others.
    """
    present = counts > 0
    weights = (1 / np.where(present, counts, 1).astype(np.float32)) ** power
    weights = np.where(present, weights, weights[present].mean())
    return (weights / weights.mean()).astype(np.float32)


def in_full(preds: Any) -> Any:
    """The raw output of a head (nested dictionaries and tuples) in float32; of fp32 and fp64 it is left alone.

    Of `feats` only shape, type and device are ever read: they become views of one element, which cost no memory.
    """
    if isinstance(preds, dict):
        feats = {k: [_of_shape(feat) for feat in v] for k, v in preds.items() if k == "feats"}
        return {key: in_full(value) for key, value in preds.items() if key != "feats"} | feats
    if isinstance(preds, tuple):
        return tuple(in_full(value) for value in preds)
    return preds.float() if isinstance(preds, Tensor) and preds.dtype not in FULL else preds


def _of_shape(feat: Tensor) -> Tensor:
    return feat if feat.dtype in FULL else feat.new_zeros(1, dtype=torch.float32).expand(feat.shape)


class Targets:
    """The boxes of a batch as the criterion wants them, put together on the host: on a GPU nothing waits for them."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.batch, self.padded = device, {}, None
        self.none = {"batch_idx": torch.zeros(0), "cls": torch.zeros(0), "bboxes": torch.zeros(0, 4)}

    def of(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Take the boxes out of a batch; what is left goes to the criterion."""
        self.batch, self.padded = {key: batch[key].cpu().numpy() for key in self.none}, None
        return batch | self.none

    def preprocess(self, _: Tensor, pictures: int, scale_tensor: Tensor) -> Tensor:
        """In place of the criterion's: class and pixel xyxy (b, n, 5), zeros past a picture's boxes."""
        if self.padded is None:  # a network with two branches asks twice
            self.padded = self._pad(pictures).to(self.device, non_blocking=True)
        boxes = xywh2xyxy(self.padded[..., 1:] * scale_tensor)
        return torch.cat((self.padded[..., :1], boxes), -1)

    def _pad(self, pictures: int) -> Tensor:
        """Class and xywh in 0..1 (b, n, 5) float32 on the host; batch_idx is sorted."""
        picture = self.batch["batch_idx"].astype(np.int64)
        counts = np.bincount(picture, minlength=pictures)
        place = np.arange(len(picture)) - (counts.cumsum() - counts)[picture]
        room = _zeros((pictures, int(counts.max(initial=0)), 5), self.device.type == "cuda")
        padded = room.numpy()
        padded[picture, place, 0] = self.batch["cls"]
        padded[picture, place, 1:] = self.batch["bboxes"]
        return room


def _zeros(shape: tuple[int, ...], pin: bool) -> Tensor:
    """Room on the host; pin: page-locked, if the system locks memory at all, so that nobody waits for its copy."""
    try:
        return torch.zeros(shape, pin_memory=pin)
    except RuntimeError:
        return torch.zeros(shape)


def _keep_anchors(criterion: Any) -> None:
    """Let a criterion of one branch make its anchors once for each size of picture: each time costs nine waits.

    Its own code, but for the name `make_anchors`; the tensors are only ever read. Others ask its `make_anchors`.
    """
    code, kept = type(criterion).get_assigned_targets_and_loss, {}
    make = code.__globals__["make_anchors"]

    def make_anchors(feats: list[Tensor], strides: Tensor, offset: float) -> tuple[Tensor, Tensor]:
        key = (*(feat.shape[2:] for feat in feats), feats[0].dtype, feats[0].device)
        if key not in kept:
            kept[key] = make(feats, strides, offset)
        return kept[key]

    criterion.make_anchors = make_anchors
    names = code.__globals__ | {"make_anchors": make_anchors}
    own = FunctionType(code.__code__, names, code.__name__, code.__defaults__, code.__closure__)
    criterion.get_assigned_targets_and_loss = MethodType(own, criterion)


class DetectionLoss:
    """Box, class and distribution loss of a detector; build it after the model is on its device.

    A network with a one-to-one branch weighs its two branches by epoch (0.8 / 0.2 at first, 0.1 / 0.9 at the end).
    """

    names = ("box", "cls", "dfl")  # a network without a distribution (reg_max 1) has an L1 loss in place of dfl

    def __init__(
        self, model: DetectionModel, hyp: Hyp, class_counts: np.ndarray | None = None, world_size: int = 1
    ) -> None:
        """class_counts: training boxes of each class (nc,), needed by cls_pw. Several ranks call it together."""
        hyp = with_gains(hyp, anchor_based=False)
        model.args = SimpleNamespace(box=hyp.box, cls=hyp.cls, dfl=hyp.dfl, epochs=hyp.epochs)
        if hyp.cls_pw:
            model.class_weights = torch.from_numpy(class_weights(class_counts, hyp.cls_pw))  # read by the criterion
            log.info(f"class loss weighted (cls_pw {hyp.cls_pw:g}): {_listed(model.names, model.class_weights)}")
        self.criterion = model.init_criterion()
        self.targets = Targets(next(model.parameters()).device)
        branches = [getattr(self.criterion, name, None) for name in ("one2many", "one2one")]
        for branch in branches if all(branches) else [self.criterion]:
            branch.preprocess = self.targets.preprocess
            _keep_anchors(branch)
            branch.aligned = branch.assigner  # as it is: an evaluation counts by itself
            if self.targets.device.type == "cpu":
                branch.assigner = Sparse(branch.assigner)
            if world_size > 1:
                Shared(branch)
        self.world_size = world_size
        if hyp.cls_pw:
            del model.class_weights  # of the loss, not of the network: not to be saved with it

    def __call__(self, preds: Any, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Loss of a training-mode prediction.

        `batch` holds cls (n,), bboxes (n, 4) xywh in 0..1 and batch_idx (n,), sorted. Returns the sum over the pictures
        of the batch (a scalar with gradient) and the means (3,), gains included, detached. All of it in float32.
        With several ranks `batch` also holds `pictures`, how many of this rank count and of all. The means are then
        those of the whole batch, and the sum is this rank's summand of it.
        """
        with torch.autocast(self.targets.device.type, enabled=False):
            # (3,) times the batch size; dict of scalars
            parts, items = self.criterion(in_full(preds), self.targets.of(batch))
        means = torch.stack(list(items.values()))
        return parts.sum(), means if self.world_size == 1 else add_up(means)

    @torch.no_grad()
    def sums(self, raw: Any, batch: dict[str, Tensor], decoded: Tensor | None = None) -> dict[str, Tensor]:
        """What the means of `__call__` are made of, by name, for the raw output of a network in evaluation mode.

        `aimed` is the sum of the scores that were aimed at; a mean is a sum divided by that, or by 1 where it is less.
        Of two branches they are those of the one-to-one, as the means of `__call__` are, whichever branch detects (the
        other one, with suppression, where `model.end2end` is False); it alone is computed. `decoded`
        (b, 4 + nc, a) is what the head made of it, boxes xywh in pixels; of another shape it is not looked at.
        """
        criterion, device = self.criterion, self.targets.device
        if hasattr(criterion, "one2one"):
            criterion, raw, decoded = criterion.one2one, raw["one2one"], None
        anchors = criterion.make_anchors([_of_shape(feat) for feat in raw["feats"]], criterion.stride, 0.5)
        size = torch.tensor(raw["feats"][0].shape[2:], device=device) * criterion.stride[0]
        scores, weights = raw["scores"], criterion.class_weights
        weights = weights if weights is None else weights.flatten()  # (nc,)
        few = max(AT_ONCE // scores[0].numel(), 1) if device.type == "cpu" else len(scores)
        with torch.autocast(device.type, enabled=False):
            if decoded is not None and decoded.shape[2] == scores.shape[2]:
                boxes = xywh2xyxy(decoded[:, :4].transpose(1, 2))  # (b, a, 4)
            else:
                boxes = criterion.bbox_decode(anchors[0], raw["boxes"].float().transpose(1, 2)) * anchors[1]
            truth = Truth.of(batch, size[[1, 0, 1, 0]], device)
            low = sum(softplus_sum(some.float(), weights) for some in scores.split(few))
            losses, share = torch.stack((low * 0, low, low * 0)), low * 0
            for some in truth.split(MOST // scores.shape[2]):
                more, aimed = loss_sums(criterion, raw, boxes, some, anchors, size)
                losses, share = losses + more, share + aimed
        gains = [getattr(criterion.hyp, name) for name in ("box", "cls", "dfl")]
        return dict(zip(self.names, losses * losses.new_tensor(gains), strict=True)) | {AIMED: share}

    def end_epoch(self) -> None:
        """Move the weights of the two branches; once after each epoch, as ultralytics' trainer does."""
        if hasattr(self.criterion, "update"):
            self.criterion.update()

    def state_dict(self) -> dict[str, float]:
        """Plain values; empty for a network with one branch."""
        return {key: getattr(self.criterion, key) for key in ("updates", "o2m", "o2o") if hasattr(self.criterion, key)}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Continue from the values of `state_dict`."""
        for key, value in state.items():
            setattr(self.criterion, key, value)


def _listed(names: dict[int, str], weights: Tensor) -> str:
    """Each class and its weight; of many classes the lightest and the heaviest."""
    rows = sorted(zip(weights.tolist(), names.values(), strict=True))
    shown = [f"{name} {weight:.3g}" for weight, name in rows]
    return ", ".join(shown if len(rows) <= 10 else [*shown[:3], "...", *shown[-3:]])
