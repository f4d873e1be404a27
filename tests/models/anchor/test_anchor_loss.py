"""The loss of anchor-based networks against YOLOv5's formula, written here anew, box by box, in float64."""

import math

import pytest
import torch
from torch import Tensor

from models.anchor.loss import AnchorLoss
from models.anchor.match import as_rows, find
from models.anchor.network import AnchorModel
from tests.models.anchor.test_anchor import TINY, tiny
from utils.config.schema import Hyp
from utils.evaluation.losses import Means

P6 = {
    "anchors": [[10, 13, 16, 30], [40, 30, 60, 90], [90, 60, 100, 120], [200, 150, 180, 250]],
    "backbone": [[-1, 1, "Conv", [8, 3, 4]], *([-1, 1, "Conv", [8, 3, 2]] for _ in range(3))],
    "head": [[-1, 1, "Conv", [8, 1, 1]], [[0, 1, 2, 4], 1, "Detect", ["nc", "anchors"]]],
}
BALANCE = {2: (4.0, 1.0), 3: (4.0, 1.0, 0.4), 4: (4.0, 1.0, 0.25, 0.06)}


def sigmoid(v: float) -> float:
    return 1 / (1 + math.exp(-v))


def bce(logit: float, wanted: float, gamma: float) -> float:
    """Binary cross-entropy; with gamma the focal loss of alpha 0.25."""
    p = sigmoid(logit)
    loss = -(wanted * math.log(p) + (1 - wanted) * math.log(1 - p))
    right = wanted * p + (1 - wanted) * (1 - p)
    return loss * (wanted * 0.25 + (1 - wanted) * 0.75) * (1 - right) ** gamma if gamma else loss


def ciou(a: list[float], b: list[float]) -> float:
    """Complete IoU of two boxes xywh (Zheng et al. 2020): IoU - distance^2 / diagonal^2 - alpha v."""
    (ax, ay, aw, ah), (bx, by, bw, bh) = a, b
    ends = lambda c, s: (c - s / 2, c + s / 2)  # noqa: E731
    sides = [(ends(ax, aw), ends(bx, bw)), (ends(ay, ah), ends(by, bh))]
    inter = math.prod(max(min(p[1], q[1]) - max(p[0], q[0]), 0) for p, q in sides)
    iou = inter / (aw * ah + bw * bh - inter)
    diagonal = sum((max(p[1], q[1]) - min(p[0], q[0])) ** 2 for p, q in sides)
    distance = (ax - bx) ** 2 + (ay - by) ** 2
    v = 4 / math.pi**2 * (math.atan(bw / bh) - math.atan(aw / ah)) ** 2
    return iou - distance / diagonal - v * v / (v - iou + 1)


def pairs_of(rows: list[list[float]], anchors: list[list[float]], h: int, w: int, anchor_t: float) -> list[tuple]:
    """(picture, anchor, row, column, box from the cell's corner, class) in YOLOv5's order: own cells first."""
    suits = []
    for a, (aw, ah) in enumerate(anchors):
        for picture, cls, x, y, bw, bh in rows:
            bw, bh = bw * w, bh * h
            if max(bw / aw, aw / bw, bh / ah, ah / bh) < anchor_t:
                suits.append((int(picture), a, x * w, y * h, bw, bh, int(cls)))
    found = []
    for dx, dy in ((0, 0), (-1, 0), (0, -1), (1, 0), (0, 1)):
        for picture, a, x, y, bw, bh, cls in suits:
            near = {
                (0, 0): True,
                (-1, 0): x % 1 < 0.5 and x > 1,
                (0, -1): y % 1 < 0.5 and y > 1,
                (1, 0): (w - x) % 1 < 0.5 and w - x > 1,
                (0, 1): (h - y) % 1 < 0.5 and h - y > 1,
            }[dx, dy]
            if near:
                i, j = min(int(x) + dx, w - 1), min(int(y) + dy, h - 1)
                found.append((picture, a, j, i, [x - i, y - j, bw, bh], cls))
    return found


def formula(levels: list[Tensor], rows: list[list[float]], model: AnchorModel, hyp: Hyp) -> list[float]:
    """Box, objectness and class loss, gains included."""
    head, nc = model.model[-1], model.nc
    box = obj = cls = 0.0
    on, off = 1 - 0.5 * hyp.label_smoothing, 0.5 * hyp.label_smoothing
    for level, anchors, balance in zip(levels, head.anchors.double(), BALANCE[head.nl], strict=True):
        numbers = level.double().tolist()  # picture, anchor, row, column, number
        h, w = level.shape[2:4]
        pairs, wanted, overlaps, losses = pairs_of(rows, anchors.tolist(), h, w, hyp.anchor_t), {}, [], []
        for picture, a, j, i, target, c in pairs:
            x, y, rw, rh, _, *logits = numbers[picture][a][j][i]
            aw, ah = anchors[a].tolist()
            mine = [
                2 * sigmoid(x) - 0.5,
                2 * sigmoid(y) - 0.5,
                (2 * sigmoid(rw)) ** 2 * aw,
                (2 * sigmoid(rh)) ** 2 * ah,
            ]
            overlaps.append(ciou(mine, target))
            wanted[picture, a, j, i] = max(overlaps[-1], 0)
            losses += [bce(logit, on if k == c else off, hyp.fl_gamma) for k, logit in enumerate(logits)]
        if pairs:
            box += sum(1 - overlap for overlap in overlaps) / len(overlaps)
            cls += sum(losses) / len(losses) if nc > 1 else 0
        places = [(p, a, j, i) for p in range(len(numbers)) for a in range(head.na) for j in range(h) for i in range(w)]
        every = [bce(numbers[p][a][j][i][4], wanted.get((p, a, j, i), 0.0), hyp.fl_gamma) for p, a, j, i in places]
        obj += balance * sum(every) / len(every)
    few = 3 / head.nl
    gains = (hyp.box * few, hyp.obj * (hyp.imgsz / 640) ** 2 * few, hyp.cls * nc / 80 * few)
    return [part * gain for part, gain in zip((box, obj, cls), gains, strict=True)]


def random_batch(pictures: int, boxes: int, nc: int, seed: int) -> dict[str, Tensor]:
    """Boxes of every size, some of them in one place: several want the same cell."""
    g = torch.Generator().manual_seed(seed)
    xy, wh = torch.rand(boxes, 2, generator=g), 0.02 + 0.9 * torch.rand(boxes, 2, generator=g) ** 2
    xy[boxes // 2 :] = xy[: boxes - boxes // 2] + 0.01 * torch.rand(boxes - boxes // 2, 2, generator=g)
    picture = torch.randint(pictures, (boxes,), generator=g).sort()[0]
    bboxes = torch.cat((xy.clamp(0.001, 0.999), wh), 1)
    return {"batch_idx": picture.float(), "cls": torch.randint(nc, (boxes,), generator=g).float(), "bboxes": bboxes}


CASES = {
    "as given": ({}, TINY, 3),
    "smoothed, focal": ({"label_smoothing": 0.1, "fl_gamma": 1.5}, TINY, 3),
    "other gains": ({"box": 0.3, "cls": 2.0, "obj": 0.7, "anchor_t": 2.5, "imgsz": 320}, TINY, 3),
    "one class": ({}, TINY, 1),
    "four levels": ({}, P6, 3),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("boxes", [30, 0])
def test_loss_is_yolov5s(case, boxes):
    keys, yaml, nc = CASES[case]
    hyp = Hyp(**{"gains": "anchor-based", "imgsz": 64} | keys)
    model = tiny([str(i) for i in range(nc)], yaml).train()
    batch = random_batch(3, boxes, nc, seed=boxes)
    torch.manual_seed(1)
    levels = [torch.randn_like(level) * 2 for level in model(torch.rand(3, 3, 64, 96))]
    rows = torch.cat((batch["batch_idx"][:, None], batch["cls"][:, None], batch["bboxes"]), 1).double().tolist()
    loss, means = AnchorLoss(model, hyp)(levels, batch)
    wanted = formula(levels, rows, model, hyp)
    torch.testing.assert_close(means.tolist(), wanted, rtol=1e-5, atol=1e-5)
    assert loss.item() == pytest.approx(3 * sum(wanted), rel=1e-5)
    assert boxes == 0 or (means[0] > 0 and (nc == 1) == (means[2] == 0))


def test_bf16_output_is_judged_in_full():
    model, hyp = tiny().train(), Hyp(gains="anchor-based", imgsz=64)
    loss_fn, batch = AnchorLoss(model, hyp), random_batch(2, 20, 3, seed=3)
    levels = [level.bfloat16() for level in model(torch.rand(2, 3, 64, 64))]
    with torch.autocast("cpu", torch.bfloat16):
        half = loss_fn(levels, batch)[1]
    assert torch.equal(half, loss_fn([level.float() for level in levels], batch)[1])


def test_class_weights_are_those_of_the_boxes():
    """cls_pw weighs the class loss by rarity, as it does that of the anchor-free networks."""
    import numpy as np

    model, batch = tiny().train(), random_batch(2, 20, 3, seed=3)
    levels = model(torch.rand(2, 3, 64, 64))
    hyp = Hyp(gains="anchor-based", imgsz=64)
    plain = AnchorLoss(model, hyp)(levels, batch)[1]
    even = AnchorLoss(model, hyp.model_copy(update={"cls_pw": 1.0}), np.array([5, 5, 5]))(levels, batch)[1]
    rare = AnchorLoss(model, hyp.model_copy(update={"cls_pw": 1.0}), np.array([1, 9, 9]))(levels, batch)[1]
    torch.testing.assert_close(even, plain)
    assert torch.equal(rare[:2], plain[:2]) and not torch.equal(rare[2], plain[2])


def test_losses_of_an_evaluation_are_those_of_training_however_it_is_shared_out():
    """Whole, and as the shares of two ranks that are added up."""
    model, hyp = tiny().train(), Hyp(gains="anchor-based", imgsz=64)
    loss_fn, batch = AnchorLoss(model, hyp), random_batch(3, 20, 3, seed=3)
    levels = model(torch.rand(3, 3, 64, 64))
    wanted = dict(zip(loss_fn.names, loss_fn(levels, batch)[1].tolist(), strict=True))
    tables = []
    for first, end in ((0, 1), (1, 3)):
        mine = (batch["batch_idx"] >= first) & (batch["batch_idx"] < end)
        some = {key: value[mine] for key, value in batch.items()}
        some["batch_idx"] = some["batch_idx"] - first
        means = Means()
        means.add(loss_fn.sums([level[first:end] for level in levels], some))
        tables.append(means.table())
    assert means.values("", tables) == pytest.approx(wanted, rel=1e-5)
    whole = Means()
    whole.add(loss_fn.sums(levels, batch))
    assert whole.values("", [whole.table()]) == pytest.approx(wanted, rel=1e-5)


def test_darknets_boxes_stay_in_their_cell_and_are_matched_by_iou():
    """centre = s + cell, size = e^w anchors; a box goes to the anchors whose IoU with it is above iou_t."""
    model = tiny(yaml=TINY | {"decode": "darknet"})
    levels = [torch.randn_like(level) for level in model(torch.rand(1, 3, 64, 64))[1]]
    decoded = model.model[-1].boxes_and_scores(levels)
    raw = levels[0][0, 1, 2, 5].double()  # anchor 16 x 30, row 2, column 5, stride 4
    x, y, w, h = decoded[0, :4, 1 * 256 + 2 * 16 + 5].tolist()
    assert (x, y) == pytest.approx((4 * (sigmoid(raw[0]) + 5), 4 * (sigmoid(raw[1]) + 2)), rel=1e-5)
    assert (w, h) == pytest.approx((16 * math.exp(raw[2]), 30 * math.exp(raw[3])), rel=1e-4)

    head, hyp = model.model[-1], Hyp(gains="anchor-based", imgsz=64, iou_t=0.3)
    rows = as_rows({k: v for k, v in random_batch(2, 30, 3, seed=3).items()})
    found = find(rows, head.anchors[0], (2, 2, 16, 16), hyp, "darknet")
    wanted = set()
    for picture, _, x, y, w, h in rows.astype(float).tolist():
        for a, (aw, ah) in enumerate(head.anchors[0].tolist()):
            inter = min(w * 16, aw) * min(h * 16, ah)
            if inter / (w * h * 256 + aw * ah - inter) > 0.3:
                wanted.add(((int(picture) * 2 + a) * 16 + int(y * 16)) * 16 + int(x * 16))
    assert set(found.cell.tolist()) == wanted and wanted
    loss, _ = AnchorLoss(model.train(), hyp)(model(torch.rand(2, 3, 64, 64)), random_batch(2, 30, 3, seed=3))
    loss.backward()
    assert bool(loss.isfinite()) and all(bool(p.grad.isfinite().all()) for p in model.parameters())
