"""DetectionLoss against ultralytics' own call of its criterion, and its state over epochs."""

import pytest
import torch

from models.detector import build_detector
from models.loss import DetectionLoss
from utils.config import Hyp

NAMES = ["a", "b", "c"]


def random_batch(pictures: int = 2, boxes: int = 5, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "img": torch.rand(pictures, 3, 64, 64, generator=generator),
        "cls": torch.randint(0, len(NAMES), (boxes,), generator=generator).float(),
        "bboxes": torch.rand(boxes, 4, generator=generator) * 0.4 + 0.2,
        "batch_idx": torch.randint(0, pictures, (boxes,), generator=generator).float().sort().values,
    }


@pytest.mark.parametrize("yaml", ["yolov8n.yaml", "yolov10n.yaml", "yolo26n.yaml"])
def test_equals_the_models_own_loss(yaml):
    torch.manual_seed(0)
    model, _ = build_detector(yaml, NAMES)
    loss_fn, batch = DetectionLoss(model, Hyp()), random_batch()
    preds = model(batch["img"])
    loss, items = loss_fn(preds, batch)
    theirs, their_items = model.loss(batch, preds)
    torch.testing.assert_close(loss, theirs.sum())
    torch.testing.assert_close(items, torch.stack(list(their_items.values())))
    assert loss.requires_grad and not items.requires_grad and items.shape == (len(loss_fn.names),)


def test_loss_is_the_sum_over_the_pictures():
    torch.manual_seed(0)
    model, _ = build_detector("yolov8n.yaml", NAMES)
    batch = random_batch(pictures=4)
    loss, items = DetectionLoss(model, Hyp())(model(batch["img"]), batch)
    torch.testing.assert_close(loss.detach(), items.sum() * 4)


def test_gains_scale_their_part():
    torch.manual_seed(0)
    model, _ = build_detector("yolov8n.yaml", NAMES)
    batch = random_batch()
    preds = model(batch["img"])
    one = DetectionLoss(model, Hyp(box=1.0, cls=1.0, dfl=1.0))(preds, batch)[1]
    other = DetectionLoss(model, Hyp(box=2.0, cls=3.0, dfl=5.0))(preds, batch)[1]
    torch.testing.assert_close(other, one * torch.tensor([2.0, 3.0, 5.0]))


def test_pictures_without_boxes_still_teach_the_background():
    model, _ = build_detector("yolov8n.yaml", NAMES)
    batch = random_batch() | {"cls": torch.zeros(0), "bboxes": torch.zeros(0, 4), "batch_idx": torch.zeros(0)}
    loss, items = DetectionLoss(model, Hyp())(model(batch["img"]), batch)
    loss.backward()
    assert items[0] == 0 and items[1] > 0
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


def test_one_to_one_branch_takes_over_by_epoch_and_the_state_comes_back():
    model, _ = build_detector("yolo26n.yaml", NAMES)
    loss_fn = DetectionLoss(model, Hyp(epochs=5))
    states = []
    for _ in range(5):
        states.append(loss_fn.state_dict())
        loss_fn.end_epoch()
    assert [s["updates"] for s in states] == [0, 1, 2, 3, 4]
    assert states[0]["o2m"] == pytest.approx(0.8) and states[-1]["o2m"] == pytest.approx(0.1)
    assert all(s["o2m"] + s["o2o"] == pytest.approx(1.0) for s in states)

    again = DetectionLoss(model, Hyp(epochs=5))
    again.load_state_dict(states[2])
    again.end_epoch()
    assert again.state_dict() == states[3]


def test_a_network_with_one_branch_has_no_state():
    model, _ = build_detector("yolov8n.yaml", NAMES)
    loss_fn = DetectionLoss(model, Hyp())
    loss_fn.end_epoch()
    assert loss_fn.state_dict() == {}
