"""Scores against pycocotools and ultralytics on random data full of ties, crowds and empty pictures."""

import contextlib
import io
import multiprocessing
import os
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from ultralytics.utils.metrics import ap_per_class

from utils.evaluation import coco
from utils.evaluation.coco import coco_results, coco_scores
from utils.evaluation.matching import overlaps
from utils.evaluation.metrics import _verdicts, confusion_matrix, f1_curves, yolov5_ap
from utils.evaluation.truth import truth_of


@dataclass
class Columns:
    """The columns of an index that the metrics read."""

    shapes: np.ndarray
    boxes: np.ndarray
    classes: np.ndarray
    crowd: np.ndarray
    area: np.ndarray
    offsets: np.ndarray
    names: list[str]
    image_ids: list[int]
    category_ids: list[int]


def random_index(
    seed: int, pictures: int = 12, nc: int = 4, crowds: bool = True, empty: bool = False, most: int = 7
) -> Columns:
    """Pictures with 0 to `most` boxes each; class nc - 1 never occurs; category ids are neither dense nor in order."""
    rng = np.random.default_rng(seed)
    counts = np.zeros(pictures, int) if empty else rng.integers(0, most + 1, pictures)
    m = counts.sum()
    size = rng.uniform(0.02, 0.5, (m, 2))
    centre = rng.uniform(size / 2, 1 - size / 2)
    shapes = rng.integers(200, 500, (pictures, 2)).astype(np.int32)
    boxes = np.concatenate((centre, size), 1).astype(np.float32)
    pixels = boxes[:, 2:] * np.repeat(shapes[:, ::-1], counts, 0)
    return Columns(
        shapes=shapes,
        boxes=boxes,
        classes=rng.integers(0, max(nc - 1, 1), m).astype(np.int32),
        crowd=rng.random(m) < (0.15 if crowds else 0),
        area=(pixels.prod(1) * rng.uniform(0.5, 1, m)).astype(np.float32),  # of an outline: less than the box
        offsets=np.concatenate(([0], counts.cumsum())).astype(np.int64),
        names=[f"class {c}" for c in range(nc)],
        image_ids=(rng.permutation(pictures) + 100).tolist(),
        category_ids=[7, 90, 2, 13, 44][:nc],
    )


def random_detections(index: Columns, seed: int, per_box: float = 1.5, noise: int = 6) -> dict[int, np.ndarray]:
    """Shifted true boxes and inventions; scores have one digit, so most are tied."""
    rng = np.random.default_rng(seed)
    detections = {}
    for row in range(len(index.image_ids)):
        truth, classes, _, _ = truth_of(index, row)
        h, w = index.shapes[row]
        again = rng.integers(0, max(len(truth), 1), int(len(truth) * per_box))
        shift = rng.normal(0, 0.08, (len(again), 4)) * np.tile(truth[again, 2:] - truth[again, :2], 2)
        found = truth[again] + shift
        invented = np.sort(rng.uniform(0, (w, h), (noise, 2, 2)), axis=1).reshape(noise, 4)  # xyxy
        boxes = np.concatenate((found, invented))
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2])
        cls = np.concatenate((classes[again], rng.integers(0, len(index.names), noise)))
        score = rng.integers(1, 10, len(boxes)) / 10
        order = np.argsort(-score, kind="stable")
        detections[row] = np.concatenate((boxes, score[:, None], cls[:, None]), 1)[order]
    return detections


def reference(index: Columns, results: list[dict]) -> COCOeval:
    """pycocotools on the same columns and results."""
    annotations = []
    for row, image_id in enumerate(index.image_ids):
        for (x1, y1, x2, y2), cls, crowd, area in zip(*truth_of(index, row), strict=True):
            annotations.append(
                {"id": len(annotations) + 1, "image_id": image_id, "category_id": index.category_ids[cls],
                 "bbox": [x1, y1, x2 - x1, y2 - y1], "area": float(area), "iscrowd": int(crowd)}
            )  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "images": [{"id": i} for i in index.image_ids],
            "categories": [{"id": c, "name": str(c)} for c in index.category_ids],
            "annotations": annotations,
        }
        truth.createIndex()
        peer = COCOeval(truth, truth.loadRes([dict(r) for r in results]), "bbox")
        peer.evaluate()
        peer.accumulate()
        peer.summarize()
    return peer


STATS = {
    "val/mAP50-95": 0, "val/mAP50": 1, "val/mAP75": 2, "val/mAP_small": 3, "val/mAP_medium": 4, "val/mAP_large": 5,
    "val/AR1": 6, "val/AR100": 8,
}  # fmt: skip


@pytest.fixture(params=["ultrafast", "faster"])
def library(request, monkeypatch) -> str:
    """Each of the two libraries in turn; the second serves where another process had used the first."""
    if request.param == "ultrafast":
        pytest.importorskip("ultrafast_pycocotools")
    monkeypatch.setattr(coco, "_first_user", 0 if request.param == "ultrafast" else os.getpid() + 1)
    return request.param


@pytest.mark.parametrize("seed", range(6))
def test_coco_scores_match_pycocotools(seed, library):
    index = random_index(seed)
    results = coco_results(index, random_detections(index, seed))
    ours, theirs = coco_scores(index, results), reference(index, results)
    assert type(coco.evaluator()[0]()).__module__.startswith(library)
    for name, place in STATS.items():
        expected = theirs.stats[place] if theirs.stats[place] > -1 else np.nan
        np.testing.assert_allclose(ours.metrics[name], expected, atol=1e-6, err_msg=name)
    precision = theirs.eval["precision"][..., 0, -1]  # (10, 101, categories by ascending id)
    place = {c: k for k, c in enumerate(sorted(index.category_ids))}
    for cls, category in enumerate(index.category_ids):
        table = precision[:, :, place[category]]
        expected = np.nan if (table == -1).all() else table.mean()
        np.testing.assert_allclose(ours.ap[:, cls].mean(), expected, atol=1e-6)


def test_both_libraries_give_the_same_tables(monkeypatch):
    """Pictures full of ties and crowds, and one with so many boxes of a class that more than 100 detections count."""
    for boxes in (7, 130):
        index = random_index(boxes, pictures=6, nc=2, most=boxes)
        results = coco_results(index, random_detections(index, boxes))
        tables = []
        for first_user in (0, os.getpid() + 1):
            monkeypatch.setattr(coco, "_first_user", first_user)
            tables.append(coco_scores(index, results))
        for name, value in tables[0].metrics.items():
            np.testing.assert_allclose(tables[1].metrics[name], value, atol=1e-9, err_msg=name)
        np.testing.assert_allclose(tables[1].precision50, tables[0].precision50, atol=1e-9)
        np.testing.assert_allclose(tables[1].ap, tables[0].ap, atol=1e-9)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_fork_of_a_process_that_has_scored_scores_too():
    index = random_index(3)
    results = coco_results(index, random_detections(index, 3))
    expected = coco_scores(index, results).metrics["val/mAP50-95"]
    child = multiprocessing.get_context("fork").Process(target=_expect, args=(index, results, expected), daemon=True)
    child.start()
    child.join(60)
    assert child.exitcode == 0


def _expect(index: Columns, results: list[dict], expected: float) -> None:
    np.testing.assert_allclose(coco_scores(index, results).metrics["val/mAP50-95"], expected, atol=1e-9)


def test_more_than_100_detections_of_a_class_are_cut_as_in_coco(library):
    index = random_index(1, pictures=2, nc=2)
    results = coco_results(index, random_detections(index, 1, per_box=30, noise=250))
    np.testing.assert_allclose(coco_scores(index, results).metrics["val/mAP50-95"], reference(index, results).stats[0])


def test_nothing_found_is_zero_and_nothing_to_find_is_nan(library):
    index = random_index(0)
    assert coco_scores(index, []).metrics["val/mAP50-95"] == 0
    bare = random_index(0, empty=True)
    found = random_detections(bare, 0)
    for results in ([], coco_results(bare, found)):
        assert all(np.isnan(v) for v in coco_scores(bare, results).metrics.values())
    assert f1_curves(bare, found).precision.shape == (0, 1000)


@pytest.mark.parametrize("seed", range(6))
def test_precision_and_recall_match_ultralytics(seed):
    """Given the same verdicts on the same detections; crowds, which ultralytics does not know, are left out."""
    index = random_index(seed, crowds=False)
    detections = random_detections(index, seed)
    score, hit, cls = _verdicts(index, detections)
    _, _, p, r, f1, _, classes, *_ = ap_per_class(hit[:, None], score, cls, index.classes)
    ours = f1_curves(index, detections)
    assert classes.tolist() == ours.classes.tolist()
    np.testing.assert_allclose(ours.precision[:, ours.best], p, atol=1e-9)
    np.testing.assert_allclose(ours.recall[:, ours.best], r, atol=1e-9)
    np.testing.assert_allclose(ours.f1[:, ours.best], f1, atol=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_verdicts_give_the_ap_that_coco_gives(seed):
    """The matching behind precision and recall is COCO's: its verdicts integrate to COCO's AP at IoU 0.5."""
    index = random_index(seed)
    detections = random_detections(index, seed)
    detections = {k: np.concatenate((v[:, :4].round(3), v[:, 4:]), 1) for k, v in detections.items()}
    for row, found in detections.items():  # without ties: their order is the only thing left open
        found[:, 4] += np.linspace(0.05, 0, len(found)) + row * 1e-4
    scores = coco_scores(index, coco_results(index, detections))
    score, hit, cls = _verdicts(index, detections)
    for c in np.unique(index.classes[~index.crowd]):
        true = hit[cls == c].cumsum()
        recall = true / ((index.classes == c) & ~index.crowd).sum()
        precision = np.maximum.accumulate((true / np.arange(1, len(true) + 1))[::-1])[::-1]
        at = np.searchsorted(recall, np.linspace(0, 1, 101))
        ap = np.append(precision, 0)[np.minimum(at, len(precision))].mean()
        np.testing.assert_allclose(scores.ap[0, c], ap, atol=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_confusion_counts_every_box_and_every_detection_once(seed):
    index = random_index(seed, crowds=False)
    detections = random_detections(index, seed)
    counts = confusion_matrix(index, detections)
    rows = np.concatenate(list(detections.values()))
    sure = rows[rows[:, 4] >= 0.25]
    assert counts[:, :-1].sum(0).tolist() == np.bincount(index.classes, minlength=4).tolist()
    assert counts[:-1].sum(1).tolist() == np.bincount(sure[:, 5].astype(int), minlength=4).tolist()
    assert counts[-1, -1] == 0


def test_confusion_of_a_picture_worked_by_hand():
    index = random_index(0, pictures=1, nc=3)
    index.shapes = np.array([[100, 100]])
    index.boxes = np.array([[0.2, 0.2, 0.2, 0.2], [0.7, 0.7, 0.2, 0.2], [0.2, 0.8, 0.3, 0.3]], np.float32)
    index.classes, index.crowd = np.array([0, 1, 1]), np.array([False, False, True])
    index.area, index.offsets = np.array([400, 400, 900.0]), np.array([0, 3])
    found = np.array(
        [
            [10, 10, 30, 30, 0.9, 1],  # finds box 0, calls it 1
            [11, 10, 30, 30, 0.8, 0],  # box 0 again: a false alarm
            [10, 70, 20, 80, 0.7, 1],  # inside the crowd: not counted
            [60, 60, 80, 80, 0.2, 1],  # right, but below 0.25: box 1 is missed
        ]
    )
    expected = np.zeros((4, 4), int)
    expected[1, 0] = expected[0, 3] = expected[3, 1] = 1
    assert confusion_matrix(index, {0: found}).tolist() == expected.tolist()


@pytest.mark.parametrize("boxes", [100, 101, 250])
def test_a_perfect_detector_scores_1_however_many_boxes_a_picture_has(boxes):
    rng = np.random.default_rng(0)
    xywhn = np.concatenate([rng.uniform(0.1, 0.9, (boxes, 2)), rng.uniform(0.01, 0.03, (boxes, 2))], 1)
    index = SimpleNamespace(
        image_ids=np.array([1, 2]), category_ids=[1], names=["pear"], shapes=np.array([[500, 500]] * 2),
        boxes=np.concatenate([xywhn, xywhn[:3]]).astype(np.float32), classes=np.zeros(boxes + 3, np.int32),
        crowd=np.zeros(boxes + 3, bool), area=np.full(boxes + 3, 100.0), offsets=np.array([0, boxes, boxes + 3]),
    )  # fmt: skip
    detections = {}
    for row in (0, 1):
        truth = truth_of(index, row)[0]  # (n, 4)
        detections[row] = np.concatenate(
            [truth, np.linspace(1, 0.5, len(truth))[:, None], np.zeros((len(truth), 1))], 1
        )
    scores = coco_scores(index, coco_results(index, detections))
    assert scores.metrics["val/mAP50-95"] == pytest.approx(1, abs=1e-9)
    assert (scores.counted > 100) == (boxes > 100)


@pytest.mark.parametrize("seed", range(4))
def test_ap_of_yolov5_is_its_definition(seed):
    """Pair by pair and recall by recall, on detections without ties: YOLOv5's sort is not stable."""
    index, rng = random_index(seed), np.random.default_rng(seed)
    detections = random_detections(index, seed)
    for row, found in detections.items():
        found[:, 4] = rng.random(len(found))
        detections[row] = found[np.argsort(-found[:, 4])]
    singles = index.classes[~index.crowd]
    aps = [[_area(_judged(index, detections, c, t), (singles == c).sum()) for t in TENTHS] for c in np.unique(singles)]
    wanted = np.mean([row[0] for row in aps]), np.mean(aps)
    assert yolov5_ap(index, detections) == pytest.approx(wanted, abs=1e-9) and wanted[0] > wanted[1] > 0


TENTHS = np.linspace(0.5, 0.95, 10)


def _judged(index: Columns, detections: dict[int, np.ndarray], cls: int, threshold: float) -> list[bool]:
    """Whether each detection of a class is right, by falling score, as YOLOv5 pairs: by IoU, each box and each once."""
    rows = []
    for row, found in detections.items():
        truth, classes, crowd, _ = truth_of(index, row)
        truth, found = truth[(classes == cls) & ~crowd], found[found[:, 5] == cls]
        iou = overlaps(found, truth, np.zeros(len(truth), bool))
        pairs = sorted(((iou[d, t], d, t) for d in range(len(found)) for t in range(len(truth))), reverse=True)
        pairs = [pair for pair in pairs if pair[0] >= threshold]
        best = {d: t for _, d, t in reversed(pairs)}  # each detection keeps the box that it overlaps most
        owner = {t: d for d, t in sorted(best.items(), reverse=True)}  # each box the most confident of its detections
        rows += [(score, owner.get(best.get(d)) == d) for d, score in enumerate(found[:, 4])]
    return [right for _, right in sorted(rows, reverse=True)]


def _area(right: list[bool], boxes: int) -> float:
    """The area under precision against recall by 100 trapezoids; precision never rises, and ends at 0."""
    if not right:
        return 0.0
    points = [(0.0, 1.0), *((sum(right[:k]) / boxes, sum(right[:k]) / k) for k in range(1, len(right) + 1)), (1.0, 0.0)]
    falling = [max(p for _, p in points[k:]) for k in range(len(points))]
    heights = np.interp(np.linspace(0, 1, 101), [r for r, _ in points], falling)
    return sum((a + b) / 2 for a, b in zip(heights[:-1], heights[1:], strict=True)) / 100


def test_ap_of_yolov5_without_boxes_or_detections():
    index = random_index(0, crowds=False)
    assert yolov5_ap(index, {}) == (0.0, 0.0)
    assert np.isnan(yolov5_ap(random_index(0, empty=True), {})).all()
