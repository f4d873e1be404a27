"""One pass of a detector over an evaluation loader, scored as COCO does; train.py and val.py both call it."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from utils.device.images import ToDevice, in_channels_last
from utils.device.streams import Lane, Stopwatch, held_back, sent_ahead
from utils.device.together import copy_first, gathered, told
from utils.evaluation.coco import CocoScores, coco_results, coco_scores
from utils.evaluation.losses import Criterion, Means, targets
from utils.evaluation.metrics import F1Curves, confusion_matrix, f1_curves
from utils.evaluation.nms import ClassMap, end2end_detections, non_max_suppression
from utils.evaluation.truth import LIMIT

ALSO = ("mAP50-95", "mAP50")  # scores of a second set that are kept
BEHIND = {"cuda": 1}  # batches by which detections are chosen behind the network, by device; else 0


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found out; undefined scores (no box to find) are nan."""

    metrics: dict[str, float]  # 'val/mAP50-95' ... as fractions; of a criterion its losses, 'val/box' ...
    per_class: list[dict[str, Any]]  # name, pictures, boxes, precision, recall, mAP50, mAP75, mAP50-95
    predictions: list[dict[str, Any]]  # COCO results: image_id, category_id, bbox xywh pixels, score
    detections: dict[int, np.ndarray]  # row of the index -> (n, 6) xyxy original pixels, score, class; best first
    f1: F1Curves
    precision50: np.ndarray  # (101, nc) precision at recall 0, 0.01 ... 1, IoU 0.5; nan without boxes
    confusion: np.ndarray  # (nc + 1, nc + 1) row predicted, column true, last = background
    speed: dict[str, float]  # ms per picture: preprocess, inference, nms; loss, with a criterion
    counted: int = LIMIT  # detections of a class that count in one picture; COCO's 100 but for crowded pictures


@dataclass(frozen=True)
class Settings:
    """How detections are made and chosen."""

    conf: float = 0.001
    iou: float = 0.7
    max_det: int = 300
    multi_label: bool = True
    agnostic: bool = False
    dtype: torch.dtype | None = None  # of autocast; None: full precision
    channels_last: bool = False
    class_map: list[int] | None = None  # class of the truth for each class of the model, -1 for none; None: the same

    @property
    def layout(self) -> torch.memory_format:
        """Of a network's weights."""
        return torch.channels_last if self.channels_last else torch.contiguous_format

    @classmethod
    def of(cls, options: Any, dtype: torch.dtype | None, class_map: list[int] | None = None) -> "Settings":
        """As a Hyp or the options of val.py have them."""
        chosen = {name: getattr(options, name) for name in ("conf", "iou", "max_det", "multi_label")}
        return cls(
            **chosen,
            agnostic=options.agnostic_nms,
            dtype=dtype,
            channels_last=in_channels_last(options.channels_last),
            class_map=class_map,
        )


def evaluate(
    model: nn.Module,
    loader: Iterable[dict[str, Any]],
    truth: Any,
    device: torch.device,
    settings: Settings = Settings(),  # noqa: B008  (frozen)
    criterion: Criterion | None = None,
    world_size: int = 1,
) -> Evaluation:
    """Detects on every picture of the loader and scores the result against the index `truth`.

    Pictures that the loader leaves out count as pictures without detections. The mode of the model is restored.
    A criterion adds its losses, means over the batches as those of an epoch of training are. On a GPU the detections of
    a batch are chosen while the network is at work on the next one. world_size: ranks that do so together, each with
    its share of every batch; the first one scores, and the others are told all but detections and predictions.
    """
    end2end = bool(getattr(model, "end2end", False))
    if not end2end:
        import torchvision  # noqa: F401  (for suppression; here, as its second is no part of the first batch)
    class_map, nc = settings.class_map, len(truth.names)
    mapped = None if class_map is None else ClassMap(class_map, nc, device)
    watch, losses, lane = Stopwatch(device), Means(), Lane(device)
    detections: dict[int, np.ndarray] = {}
    was_training = model.training
    model.eval()
    try:
        passes = _passes(model, loader, device, settings, watch, lane)
        for pred, raw, batch, made in held_back(passes, BEHIND.get(device.type, 0)):
            with lane.after(made):
                watch.start()
                if criterion:
                    losses.add(criterion(raw, targets(batch, truth), pred))
                    watch.lap("loss")
                pred = pred if mapped is None else mapped(pred, end2end)
                found = choose(pred, settings, end2end)
                watch.lap("nms")
            detections |= to_original(found, batch)
    finally:
        model.train(was_training)
    shares = gathered((detections, watch.seconds(), losses.table()), world_size)
    result = None
    if shares is not None:
        detections = {row: found for share, _, _ in shares for row, found in share.items()}
        seconds = {name: sum(s.get(name, 0.0) for _, s, _ in shares) for name in shares[0][1]}
        result = score(truth, dict(sorted(detections.items())), seconds)
        result = replace(result, metrics=result.metrics | losses.values("val/", [table for _, _, table in shares]))
    brief = told(result and replace(result, detections={}, predictions=[]), world_size)
    return result or brief


def _passes(
    model: nn.Module, loader: Iterable[dict[str, Any]], device: torch.device, s: Settings, watch: Stopwatch, lane: Lane
) -> Iterator[tuple[Tensor, Any, dict[str, Any], Any]]:
    """Decoded and raw output of the network for each batch, the batch, and what to wait for before they are used."""
    to_device = ToDevice(device, s.channels_last, s.dtype)

    def prepare(batch: dict[str, Any]) -> Tensor:
        watch.start()
        images = to_device(batch)
        watch.lap("preprocess")
        return images

    for batch, images in sent_ahead(loader, device, prepare):
        watch.start()
        pred, raw = forward_both(model, images, s.dtype)
        watch.lap("inference")
        yield pred, raw, batch, lane.here()


def choose(pred: Tensor, s: Settings, end2end: bool) -> list[Tensor]:
    """The detections of each picture (n, 6) in decoded output, on the host."""
    if end2end:
        return end2end_detections(pred, s.conf, s.max_det)
    return non_max_suppression(pred, s.conf, s.iou, s.max_det, s.multi_label, s.agnostic)


@dataclass(frozen=True)
class Validation:
    """What a detector is scored on, and how."""

    loader: Any  # batches of the evaluation pictures; its .dataset makes single ones
    truth: Any  # their index
    device: torch.device
    settings: Settings
    prepared: Callable[[nn.Module], AbstractContextManager[nn.Module]] = nullcontext  # the model -> what makes the pass
    criterion: Criterion | None = None
    also: "Validation | None" = None  # a second set
    world_size: int = 1  # ranks that score together

    def start(self) -> None:
        """Start the workers of the loaders."""
        self.loader.start()
        if self.also:
            self.also.start()

    def score(self, model: nn.Module) -> Evaluation:
        """One pass over all pictures, and one over those of the second set: also/mAP50-95 and also/mAP50.

        Ranks do it together, with the network of rank 0.
        """
        copy_first(model, self.world_size)
        with self.prepared(model) as prepared:
            way = (self.settings, self.criterion, self.world_size)
            result = evaluate(prepared, self.loader, self.truth, self.device, *way)
        if self.also is None:
            return result
        second = self.also.score(model).metrics
        return replace(result, metrics=result.metrics | {f"also/{k}": second[f"val/{k}"] for k in ALSO})


def forward(model: nn.Module, images: Tensor, amp_dtype: torch.dtype | None = None) -> Tensor:
    """The decoded output of a detector in eval mode, (b, 4 + nc, a) or (b, k, 6), in float32."""
    return forward_both(model, images, amp_dtype)[0]


@torch.no_grad()  # not inference_mode: the head keeps its anchors, and training cannot use inference tensors
def forward_both(model: nn.Module, images: Tensor, amp_dtype: torch.dtype | None = None) -> tuple[Tensor, Any]:
    """The decoded output as `forward` gives it, and what the head made it of, if the model hands that on."""
    autocast = torch.autocast(images.device.type, dtype=amp_dtype) if amp_dtype else nullcontext()
    with autocast:
        out = model(images)
    decoded, raw = (out[0], out[1]) if isinstance(out, (tuple, list)) else (out, None)
    return decoded.float(), raw


def to_original(found: list[Tensor], batch: dict[str, Any]) -> dict[int, np.ndarray]:
    """Detections of a batch, per row of the index, in pixels of the original pictures, as float64."""
    rows = {}
    for boxes, row, box, shape in zip(found, batch["index"], batch["letterbox"], batch["ori_shape"], strict=True):
        array = boxes.numpy().astype(np.float64)  # (n, 6)
        array[:, :4] = box.undo(array[:, :4], clip_to=tuple(shape))
        rows[int(row)] = array
    return rows


def score(index: Any, detections: dict[int, np.ndarray], seconds: dict[str, float]) -> Evaluation:
    """All the scores of the detections found; `seconds` is the time each part took over all pictures."""
    predictions = coco_results(index, detections)
    coco = coco_scores(index, predictions)
    curves = f1_curves(index, detections)
    precision, recall = curves.precision[:, curves.best], curves.recall[:, curves.best]  # (k,), (k,)
    nan = float("nan")
    best = {
        "val/precision": float(precision.mean()) if len(precision) else nan,
        "val/recall": float(recall.mean()) if len(recall) else nan,
    }
    return Evaluation(
        metrics=coco.metrics | best,
        per_class=per_class_table(index, coco, curves),
        predictions=predictions,
        detections=detections,
        f1=curves,
        precision50=coco.precision50,
        confusion=confusion_matrix(index, detections),
        counted=coco.counted,
        speed={name: 1000 * s / max(len(detections), 1) for name, s in seconds.items()},
    )


def per_class_table(index: Any, coco: CocoScores, curves: F1Curves) -> list[dict[str, Any]]:
    """One row per class name; crowds are not counted as boxes."""
    picture = np.repeat(np.arange(len(index.image_ids)), np.diff(index.offsets))  # (m,) picture of each box
    place = {int(c): i for i, c in enumerate(curves.classes)}
    table = []
    for c, name in enumerate(index.names):
        mine = (index.classes == c) & ~index.crowd
        has_boxes = c in place
        table.append(
            {
                "name": name,
                "pictures": len(np.unique(picture[mine])),
                "boxes": int(mine.sum()),
                "precision": float(curves.precision[place[c], curves.best]) if has_boxes else float("nan"),
                "recall": float(curves.recall[place[c], curves.best]) if has_boxes else float("nan"),
                "mAP50": float(coco.ap[0, c]),
                "mAP75": float(coco.ap[5, c]),
                "mAP50-95": float(coco.ap[:, c].mean()),
            }
        )
    return table
