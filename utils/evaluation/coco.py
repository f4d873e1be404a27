"""The numbers of pycocotools, by ultrafast-pycocotools; by faster-coco-eval where that cannot work."""

import gc
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from utils.evaluation.truth import LIMIT, most_boxes, truth_of

log = logging.getLogger(__name__)
AREAS = ("all", "small", "medium", "large")  # COCO's: split at 32^2 and 96^2 pixels of the original picture
AT_1, AT_100, AT_MOST = range(3)  # positions in COCO's tables of the limits of detections per picture and class
_first_user = 0  # the process that called ultrafast-pycocotools first; 0: none so far


@dataclass(frozen=True)
class CocoScores:
    """COCO's tables, averaged; nan where there is no box to find."""

    metrics: dict[str, float]
    ap: np.ndarray  # (10, nc) average precision at IoU 0.5, 0.55 ... 0.95
    precision50: np.ndarray  # (101, nc) precision at recall 0, 0.01 ... 1, IoU 0.5; its mean over recall is the AP
    counted: int  # detections of a class that count in one picture: COCO's 100, or more where a picture has more boxes


@contextmanager
def no_collection() -> Iterator[None]:
    """Keeps Python from looking for cycles: a million fresh dicts and lists have none, and to look takes most time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@no_collection()
def coco_results(index: Any, detections: dict[int, np.ndarray]) -> list[dict[str, Any]]:
    """Detections as the list of a COCO results file: image_id, category_id, bbox xywh in pixels, score."""
    found = np.concatenate([np.zeros((0, 6)), *detections.values()])  # (n, 6)
    boxes = np.concatenate((found[:, :2], found[:, 2:4] - found[:, :2]), 1).round(3).tolist()  # (n, 4) xywh
    scores, classes = found[:, 4].round(7).tolist(), found[:, 5].astype(int).tolist()
    image_ids = [int(index.image_ids[row]) for row, rows in detections.items() for _ in range(len(rows))]
    category_ids = [int(c) for c in index.category_ids]
    return [
        {"image_id": image_id, "category_id": category_ids[cls], "bbox": box, "score": score}
        for image_id, cls, box, score in zip(image_ids, classes, boxes, scores, strict=True)
    ]


@no_collection()
def coco_scores(index: Any, results: list[dict[str, Any]]) -> CocoScores:
    """The official COCO box metrics of `results`, crowds ignored as COCO does, and their per-class parts.

    COCO counts the best 100 detections of a class in a picture. Where a picture has more boxes of a class than that, a
    perfect detector would score far below 1: then all of `results` count, which max_det has cut already.
    """
    counted = LIMIT if most_boxes(index) <= LIMIT else max(LIMIT, len(results))
    coco_set, coco_eval = evaluator()
    coco = coco_eval(_truth_set(index, coco_set()), _result_set(index, results, coco_set()), "bbox", log.debug)
    coco.params.maxDets = [1, LIMIT, counted]
    coco.evaluate()
    coco.accumulate()
    order = np.argsort(np.argsort(index.category_ids))  # the tables go by ascending category id: (nc,) places
    precision = np.asarray(coco.eval["precision"])[:, :, order]  # (10 IoU, 101 recall, nc, 4 areas, 3 limits)
    recall = np.asarray(coco.eval["recall"])[:, order]  # (10, nc, 4, 3)
    areas = {f"val/mAP_{name}": _mean(precision[..., a, AT_MOST]) for a, name in enumerate(AREAS) if a}
    metrics = {
        "val/mAP50-95": _mean(precision[..., 0, AT_MOST]),
        "val/mAP50": _mean(precision[0, ..., 0, AT_MOST]),
        "val/mAP75": _mean(precision[5, ..., 0, AT_MOST]),
        **areas,
        "val/AR1": _mean(recall[..., 0, AT_1]),
        "val/AR100": _mean(recall[..., 0, AT_100]),
    }
    precision = np.where(precision[..., 0, AT_MOST] < 0, np.nan, precision[..., 0, AT_MOST])  # (10, 101, nc)
    return CocoScores(metrics, ap=precision.mean(1), precision50=precision[0], counted=counted)


def _mean(table: np.ndarray) -> float:
    """Mean of the entries that exist; COCO writes -1 where there is nothing to find."""
    exists = table > -1
    return float(table[exists].mean()) if exists.any() else float("nan")


def evaluator() -> tuple[Callable[[], Any], Callable[..., Any]]:
    """What makes an empty COCO object, and what makes an evaluator of two of them, the kind and a function to print.

    ultrafast-pycocotools has threads that a fork does not have: a child process of one that has used it would wait for
    them for ever. There, and where it is not installed, it is faster-coco-eval; the numbers are the same to 1e-15.
    """
    global _first_user
    try:
        import ultrafast_pycocotools as ultrafast
    except ImportError:
        ultrafast = None
    if ultrafast and _first_user in (0, os.getpid()):
        _first_user = os.getpid()
        return partial(ultrafast.COCO, verbose=False), lambda *a: ultrafast.COCOeval(*a[:3], print_function=a[3])
    from faster_coco_eval import COCO, COCOeval_faster

    return COCO, lambda *a: COCOeval_faster(*a[:3], print_function=a[3])


def _truth_set(index: Any, coco: Any) -> Any:
    """The index put into an empty COCO object."""
    annotations = []
    for row, image_id in enumerate(index.image_ids):
        for box, cls, crowd, area in zip(*truth_of(index, row), strict=True):
            x1, y1, x2, y2 = box.tolist()
            annotations.append(
                {
                    "id": len(annotations) + 1,  # from 1: 0 means "unmatched" inside the library
                    "image_id": int(image_id),
                    "category_id": int(index.category_ids[cls]),
                    "bbox": [x1, y1, round(x2 - x1, 3), round(y2 - y1, 3)],
                    "area": float(area),
                    "iscrowd": int(crowd),
                }
            )
    return _filled(coco, index, annotations)


def _result_set(index: Any, results: list[dict[str, Any]], coco: Any) -> Any:
    """COCO results put into an empty COCO object. Not by `loadRes`, which writes into the results."""
    annotations = [
        {**r, "id": i, "area": r["bbox"][2] * r["bbox"][3], "iscrowd": 0} for i, r in enumerate(results, start=1)
    ]
    return _filled(coco, index, annotations)


def _filled(coco: Any, index: Any, annotations: list[dict[str, Any]]) -> Any:
    coco.dataset = {
        "images": [
            {"id": int(i), "height": int(h), "width": int(w)}
            for i, (h, w) in zip(index.image_ids, index.shapes, strict=True)
        ],
        "categories": [{"id": int(c), "name": name} for c, name in zip(index.category_ids, index.names, strict=True)],
        "annotations": annotations,
    }
    coco.createIndex()
    return coco
