"""Non-maximum suppression against a plain quadratic one, and what broken output must not do."""

import pytest
import torch
from torch import Tensor
from torchvision.ops import box_iou

from utils.evaluation import nms
from utils.evaluation.nms import ClassMap, end2end_detections, non_max_suppression, suppress_together

CPU = torch.device("cpu")


def random_output(b: int = 2, nc: int = 3, a: int = 80, seed: int = 0) -> Tensor:
    """Crowded boxes (b, 4 + nc, a), so that many overlap; half of the scores are tiny."""
    g = torch.Generator().manual_seed(seed)
    boxes = torch.rand(b, 4, a, generator=g) * 40 + 20
    scores = torch.rand(b, nc, a, generator=g) * (torch.rand(b, nc, a, generator=g) > 0.5)
    return torch.cat((boxes, scores), 1)


def plain_nms(pred: Tensor, conf: float, iou: float, max_det: int, multi_label: bool, agnostic: bool) -> Tensor:
    """Quadratic suppression of one picture (4 + nc, a), written down as the definition says it."""
    candidates = []
    for x, y, w, h, *scores in pred.T.tolist():
        classes = range(len(scores)) if multi_label else [max(range(len(scores)), key=scores.__getitem__)]
        candidates += [(x - w / 2, y - h / 2, x + w / 2, y + h / 2, scores[c], c) for c in classes if scores[c] > conf]
    kept: list[tuple] = []
    for row in sorted(candidates, key=lambda r: -r[4]):
        rivals = [k for k in kept if agnostic or k[5] == row[5]]
        boxes = torch.tensor([k[:4] for k in rivals], dtype=torch.float64).reshape(-1, 4)
        if not (box_iou(torch.tensor([row[:4]], dtype=torch.float64), boxes) > iou).any():
            kept.append(row)
    return torch.tensor(kept[:max_det]).reshape(-1, 6)


@pytest.mark.parametrize("agnostic", [False, True])
@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize(("conf", "iou", "max_det"), [(0.001, 0.7, 300), (0.25, 0.45, 300), (0.1, 0.5, 7)])
def test_nms_matches_a_quadratic_reference(conf, iou, max_det, multi_label, agnostic):
    pred = random_output()
    for found, one in zip(non_max_suppression(pred, conf, iou, max_det, multi_label, agnostic), pred, strict=True):
        torch.testing.assert_close(found, plain_nms(one, conf, iou, max_det, multi_label, agnostic))


@pytest.mark.parametrize("agnostic", [False, True])
@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("together", [1, 60, 10**6])
def test_a_batch_at_once_gives_what_its_pictures_give_one_by_one(monkeypatch, together, multi_label, agnostic):
    """All candidates at once, some pictures, or one; a picture without any, equal scores, too many, NaN among them."""
    monkeypatch.setattr(nms, "TOGETHER", together)
    pred = random_output(b=5, a=60)
    pred[:, 4:] = (pred[:, 4:] * 8).round() / 8  # many are equal: the first stays
    pred[1, 4:] = 0
    pred[2, 5, :10] = float("nan")
    pred[3, 1, :10] = float("inf")
    for max_nms in (30000, 25):
        for settings in (
            (0.001, 0.5, 300, multi_label, agnostic, max_nms),
            (0.3, 0.3, 7, multi_label, agnostic, max_nms),
        ):
            one_by_one = non_max_suppression(pred, *settings)
            for a, b in zip(suppress_together(pred, *settings), one_by_one, strict=True):
                assert torch.equal(a, b)
            assert len(one_by_one[0]) and not len(one_by_one[1])
    nothing = suppress_together(torch.zeros_like(pred), 0.1, 0.5, 300, multi_label, agnostic)
    assert [tuple(n.shape) for n in nothing] == [(0, 6)] * 5


def test_classes_far_apart_in_number_do_not_suppress_each_other():
    """The class offset must not round coordinates: class 79 behaves as class 0."""
    pred = torch.zeros(1, 84, 30)
    pred[0, :4] = random_output(1, 3, 30)[0, :4] + 1000
    first, last = pred.clone(), pred.clone()
    first[0, 4], last[0, 83] = (torch.arange(1, 31) / 31.0 for _ in range(2))
    a = non_max_suppression(first, 0.001, 0.5, 300, True, False)[0]
    b = non_max_suppression(torch.cat((last, first), 2), 0.001, 0.5, 300, True, False)[0]
    assert torch.equal(a[:, :5], b[b[:, 5] == 79][:, :5]) and torch.equal(a, b[b[:, 5] == 0])


def test_only_the_best_candidates_enter():
    pred = random_output(1)
    best = non_max_suppression(pred, 0.001, 1.0, 300, True, True, max_nms=10)[0]
    everything = non_max_suppression(pred, 0.001, 1.0, 300, True, True)[0]
    assert torch.equal(best, everything[:10])


def test_nan_and_infinity_are_no_detections():
    pred = random_output(1)
    clean = non_max_suppression(pred[:, :, 3:], 0.001, 0.7, 300, True, False)[0]
    pred[0, 4:, 0] = float("nan")
    pred[0, 1, 1] = float("nan")
    pred[0, 2, 2] = float("inf")
    assert torch.equal(non_max_suppression(pred, 0.001, 0.7, 300, True, False)[0], clean)
    nothing = non_max_suppression(torch.full_like(pred, float("nan")), 0.001, 0.7, 300, True, False)
    assert [tuple(n.shape) for n in nothing] == [(0, 6)]


def test_half_precision_output_is_accepted():
    pred = random_output().half()
    for a, b in zip(
        non_max_suppression(pred, 0.1, 0.5, 300, True, False),
        non_max_suppression(pred.float(), 0.1, 0.5, 300, True, False),
        strict=True,
    ):
        assert torch.equal(a, b)


def test_end2end_output_is_cut_and_sorted():
    pred = torch.rand(2, 50, 6, generator=torch.Generator().manual_seed(0))
    pred[0, 7, 4] = float("nan")
    for found, rows in zip(end2end_detections(pred, 0.3, 10), pred, strict=True):
        scores = rows[rows[:, 4] > 0.3][:, 4].sort(descending=True).values[:10]
        assert torch.equal(found[:, 4], scores)


def test_remapped_classes_are_the_classes_of_a_remapped_result():
    pred = random_output(nc=4)
    there = torch.tensor([2, -1, 0, 1])
    mapped = ClassMap(there.tolist(), 3, CPU)(pred, end2end=False)
    moved = non_max_suppression(mapped, 0.1, 0.5, 300, True, False)
    for found, plain in zip(moved, non_max_suppression(pred, 0.1, 0.5, 300, True, False), strict=True):
        plain = plain[plain[:, 5] != 1]
        plain[:, 5] = there[plain[:, 5].long()].float()
        torch.testing.assert_close(found[found[:, 4].argsort()], plain[plain[:, 4].argsort()])


def test_merged_classes_keep_the_best_score():
    pred = random_output(nc=4)
    merged = ClassMap([0] * 4, 1, CPU)(pred, end2end=False)
    assert torch.equal(merged[:, 4], pred[:, 4:].amax(1))


def test_dropped_classes_of_an_end2end_head_take_no_place():
    pred = torch.rand(1, 40, 6, generator=torch.Generator().manual_seed(0))
    pred[..., 5] = torch.arange(40) % 4
    moved = end2end_detections(ClassMap([-1, 0, -1, 1], 2, CPU)(pred, end2end=True), 0.001, 15)[0]
    wanted = pred[0][(pred[0, :, 5] % 2) == 1]
    assert torch.equal(moved[:, 4], wanted[:, 4].sort(descending=True).values[:15])
    assert set(moved[:, 5].tolist()) == {0.0, 1.0}
