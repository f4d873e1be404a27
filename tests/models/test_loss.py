"""DetectionLoss against ultralytics' own call of its criterion, and its state over epochs."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from ultralytics.utils.tal import TaskAlignedAssigner

from data.definition.dataset_yaml import load_dataset_yaml
from data.index.index import build_index
from data.loading.loader import build_train_loader
from models.decode import decoding_in_full
from models.detector import build_detector
from models.loss.detection import DetectionLoss, class_weights
from models.loss.evaluation import softplus_sum
from models.loss.sparse import Sparse
from tests.helpers.waits import Waits
from utils.config.schema import Hyp
from utils.evaluation.evaluate import forward
from utils.evaluation.losses import AIMED

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


def full(preds):
    """Every tensor of a head's raw output as float32."""
    if isinstance(preds, dict):
        return {key: full(value) for key, value in preds.items()}
    return [full(value) for value in preds] if isinstance(preds, list) else preds.detach().float()


@pytest.mark.parametrize("yaml", ["yolov8n.yaml", "yolov10n.yaml", "yolo26n.yaml"])
def test_the_criterion_of_a_network_in_bf16_is_computed_in_full_precision(yaml):
    """Loss and gradients of its raw output are those of the same numbers in float32."""
    torch.manual_seed(0)
    model, _ = build_detector(yaml, NAMES)
    loss_fn, batch = DetectionLoss(model, Hyp()), random_batch()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        preds = model(batch["img"])
        branches = [preds] if "boxes" in preds else list(preds.values())
        low = [branch[key] for branch in branches for key in ("boxes", "scores")]
        assert all(part.dtype == torch.bfloat16 for part in low)
        loss, items = loss_fn(preds, batch)  # inside of the autocast, where the criterion would round as well
    wanted = full(preds)
    branches = [wanted] if "boxes" in wanted else list(wanted.values())
    high = [branch[key].requires_grad_() for branch in branches for key in ("boxes", "scores")]
    reference, reference_items = model.loss(batch, wanted)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, reference.sum())
    assert torch.equal(items, torch.stack(list(reference_items.values())))
    gradients = torch.autograd.grad(loss, low), torch.autograd.grad(reference.sum(), high)
    for ours, theirs in zip(*gradients, strict=True):
        assert torch.equal(ours, theirs.to(ours.dtype)) and bool(theirs.any())


@pytest.mark.parametrize("yaml", ["yolov8n.yaml", "yolov10n.yaml", "yolo26n.yaml"])
def test_boxes_of_a_network_in_bf16_are_decoded_in_full_precision(yaml):
    torch.manual_seed(0)
    model, _ = build_detector(yaml, NAMES)
    images, head = random_batch()["img"], model.eval().model[-1]
    with decoding_in_full(model):
        found = forward(model, images, torch.bfloat16)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        raw = full(model(images)[1])
    head.shape = None  # what it keeps of its anchors came from bf16
    raw = raw["one2one" if model.end2end else "one2many"] if "one2one" in raw else raw
    expected = head._inference(raw)
    expected = head.postprocess(expected.permute(0, 2, 1)) if model.end2end else expected
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)
    ours = {"_inference", "forward_head"} & set(vars(head)) | {"forward"} & set(vars(head.dfl))
    assert not ours, "a network is pickled as ultralytics knows it"
    head.shape = None
    with decoding_in_full(model):
        ours = forward(model, images)
    torch.testing.assert_close(ours, forward(model, images), rtol=1e-5, atol=1e-4)  # in float32 nothing changes


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


@pytest.mark.parametrize("yaml", ["yolov8n.yaml", "yolov10n.yaml", "yolo26n.yaml"])
@pytest.mark.parametrize(("counts", "power"), [([900, 30, 5], 0.5), ([900, 30, 5], 1.0), ([4, 0, 9], 0.25)])
def test_class_weights_are_those_of_ultralytics(yaml, counts, power):
    """Their trainer sets the weights, their criterion reads them; ours gives the same loss."""
    from ultralytics.models.yolo.detect import DetectionTrainer

    torch.manual_seed(0)
    model, _ = build_detector(yaml, NAMES)
    ours, plain = DetectionLoss(model, Hyp(cls_pw=power), np.array(counts)), DetectionLoss(model, Hyp())
    assert not hasattr(model, "class_weights"), "no part of the network that is saved"
    batch = random_batch()
    preds = model(batch["img"])
    loss, items = ours(preds, batch)

    trainer = DetectionTrainer.__new__(DetectionTrainer)
    trainer.args, trainer.model, trainer.device = SimpleNamespace(cls_pw=power), model, torch.device("cpu")
    trainer.get_class_counts = lambda: np.array(counts, np.float32)
    trainer.set_class_weights()
    model.criterion = model.init_criterion()
    theirs, their_items = model.loss(batch, preds)
    assert torch.equal(loss, theirs.sum()) and torch.equal(items, torch.stack(list(their_items.values())))
    unweighted = plain(preds, batch)[1]
    assert torch.equal(items[[0, 2]], unweighted[[0, 2]]) and items[1] != unweighted[1]


def test_without_a_power_the_counts_change_nothing():
    model, _ = build_detector("yolov8n.yaml", NAMES)
    batch = random_batch()
    preds = model(batch["img"])
    one, other = DetectionLoss(model, Hyp()), DetectionLoss(model, Hyp(), np.array([9, 1, 1]))
    assert torch.equal(one(preds, batch)[0], other(preds, batch)[0])
    np.testing.assert_array_equal(class_weights(np.array([7, 7, 7]), 1.0), [1, 1, 1])


def test_a_step_on_a_dataset_with_a_third_of_backgrounds(tmp_path):
    """Pictures without boxes are part of every epoch, alone in a batch as well."""
    for split in ("train", "val"):
        draw_rectangles(tmp_path, split, 12)
    (tmp_path / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [a, b, c]\n")
    index = build_index(load_dataset_yaml(tmp_path / "data.yaml"), "train")
    assert (np.diff(index.offsets) == 0).sum() == 4 and index.n == 12
    torch.manual_seed(0)
    model, _ = build_detector("yolov8n.yaml", NAMES)
    loss_fn = DetectionLoss(model, Hyp())
    before = [p.clone() for p in model.parameters()]
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    without = 0
    for mosaic, batch_size in ((1.0, 12), (0.0, 2)):
        hyp = Hyp(imgsz=64, mosaic=mosaic, epochs=20)
        for batch in build_train_loader(index, hyp, batch=batch_size, workers=0).epoch(0):
            without += batch_size - len(batch["batch_idx"].unique())
            loss, _ = loss_fn(model(batch["img"].float() / 255), batch)
            assert loss.isfinite()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert without >= 4, "pictures without a box were in the batches"
    assert all(p.isfinite().all() for p in model.parameters())
    assert any((p != q).any() for p, q in zip(model.parameters(), before, strict=True))


def draw_rectangles(root: Path, split: str, n: int) -> None:
    """n pictures with a box each, every third without."""
    for folder in ("images", "labels"):
        (root / folder / split).mkdir(parents=True)
    for k in range(n):
        Image.new("RGB", (64, 64), (20 * k, 100, 100)).save(root / f"images/{split}/{k}.png")
        (root / f"labels/{split}/{k}.txt").write_text("" if k % 3 == 0 else f"{k % 3} 0.5 0.5 0.4 0.4\n")


@pytest.mark.parametrize(("yaml", "branches"), [("yolov8n.yaml", 1), ("yolo11n.yaml", 1), ("yolo26n.yaml", 2)])
def test_the_loss_waits_for_a_gpu_where_the_criterion_must_and_changes_no_bit(yaml, branches):
    """5 waits a branch: two sizes of the picture, the smallest side of a box, two lists of matches; 17 by itself."""
    torch.manual_seed(0)
    model, _ = build_detector(yaml, NAMES)
    here, on_gpu = DetectionLoss(model, Hyp()), DetectionLoss(model, Hyp())
    heads_of = [getattr(on_gpu.criterion, name, None) for name in ("one2many", "one2one")]
    for branch in heads_of if all(heads_of) else [on_gpu.criterion]:
        branch.assigner = branch.aligned
    empty = dict.fromkeys(("cls", "batch_idx"), torch.zeros(0))
    batches = [random_batch(), random_batch(3, 11, seed=1), random_batch() | empty | {"bboxes": torch.zeros(0, 4)}]
    for batch in batches:
        preds = full(model(batch["img"]))
        results = []
        for ours in (on_gpu, here, None):
            heads = [preds] if "boxes" in preds else list(preds.values())
            leaves = [head[key].detach().requires_grad_() for head in heads for key in ("boxes", "scores")]
            for head in heads:
                head["boxes"], head["scores"] = leaves[:2] if head is heads[0] else leaves[2:]
            with Waits(batch.values()) as waits:
                loss, items = ours(preds, batch) if ours else model.loss(batch, preds)
            loss.sum().backward()
            items = items if ours else torch.stack(list(items.values()))
            results.append([loss.sum().detach(), items, *(leaf.grad for leaf in leaves)])
            if batch is batches[1] and ours is not here:
                most = 5 * branches if ours else 16 * branches  # theirs: the copy of the boxes is none on a CPU
                assert waits.counts.total() == most and waits.counts["ours"] == 0, waits.counts
        assert len(results[0]) == 2 + 2 * branches
        assert all(torch.equal(a, b) and torch.equal(b, c) for a, b, c in zip(*results, strict=True))


@pytest.mark.parametrize("cls_pw", [0, 0.5])
@pytest.mark.parametrize("yaml", ["yolov8n.yaml", "yolov10n.yaml", "yolo26n.yaml"])
def test_the_parts_of_an_evaluation_are_the_means_that_training_logs(yaml, cls_pw, monkeypatch):
    """Of the raw output in evaluation mode, for every kind of head; the weights of two branches do not move them."""
    torch.manual_seed(0)
    model, _ = build_detector(yaml, NAMES)
    model.eval()
    loss_fn = DetectionLoss(model, Hyp(epochs=3, cls_pw=cls_pw), np.array([900, 30, 5]))
    batch = random_batch(pictures=3, boxes=40)  # many anchors lie in several boxes
    decoded, raw = model(batch["img"])
    expected = loss_fn(raw, batch)[1]

    def means(*decoded: torch.Tensor) -> dict[str, torch.Tensor]:
        sums = loss_fn.sums(raw, batch, *decoded)
        aimed = sums.pop(AIMED)
        return {name: value / aimed.clamp(min=1) for name, value in sums.items()}

    parts = means()
    assert tuple(parts) == loss_fn.names and not any(part.requires_grad for part in parts.values())
    close = {"rtol": 1e-4, "atol": 1e-4}  # theirs takes differences of nearly equal numbers
    torch.testing.assert_close(torch.stack(list(parts.values())), expected, **close)
    for name in ("AT_ONCE", "MOST"):  # picture by picture
        monkeypatch.setattr(f"models.loss.detection.{name}", 1)
    torch.testing.assert_close(torch.stack(list(means(decoded).values())), expected, **close)
    parts = means()
    loss_fn.end_epoch()
    assert means() == parts


@pytest.mark.parametrize("weights", [None, torch.tensor([0.5, 2.0, 0.0])])
def test_the_class_loss_of_what_is_to_be_low_is_that_of_softplus(weights):
    generator = torch.Generator().manual_seed(0)
    for middle, spread in [(-30, 5), (-12, 3), (-7, 0.5), (0, 30), (90, 1)]:
        logits = middle + spread * torch.randn(2, 3, 200, generator=generator)
        wanted = torch.nn.functional.softplus(logits.double()) * (1 if weights is None else weights[:, None])
        assert float(softplus_sum(logits, weights)) == pytest.approx(float(wanted.sum()), rel=2e-6)
    logits[0, 1, 7] = float("nan")
    assert softplus_sum(logits, weights).isnan()


@pytest.mark.parametrize("counts", [{}, {"topk2": 1}, {"topk": 7, "topk2": 3}])
@pytest.mark.parametrize(("pictures", "nc", "most"), [(1, 1, 1), (3, 2, 0), (4, 3, 30), (2, 80, 20)])
def test_targets_on_a_cpu_are_those_of_the_criterion_bit_for_bit(pictures, nc, most, counts):
    """With equal scores, boxes twice, tiny ones, and pictures that have fewer or none."""
    g = torch.Generator().manual_seed(most)
    grid = [torch.cartesian_prod(torch.arange(64 // s), torch.arange(64 // s)).flip(1) * s + s / 2 for s in (8, 16, 32)]
    points = torch.cat(grid)  # (a, 2)
    centres = points + torch.randn(pictures, len(points), 2, generator=g) * 4
    sides = torch.rand(pictures, len(points), 2, generator=g) * 30 + 2
    found = torch.cat((centres - sides / 2, centres + sides / 2), -1)
    scores = (torch.rand(pictures, len(points), nc, generator=g) * 8).round() / 8
    there = torch.arange(most) < torch.randint(0, most + 1, (pictures, 1), generator=g).clamp(max=most)  # (b, n)
    centres, sides = (
        torch.rand(pictures, most, 2, generator=g) * 64,
        torch.rand(pictures, most, 2, generator=g) ** 3 * 50,
    )
    truth = torch.cat((centres - sides / 2, centres + sides / 2), -1).clamp(0, 64) * there[..., None]
    truth[:, 1:2] = truth[:, :1]
    labels = torch.randint(0, nc, (pictures, most, 1), generator=g).float()
    given = (scores, found, points, labels, truth, truth.sum(2, keepdim=True).gt_(0))
    own = TaskAlignedAssigner(num_classes=nc, alpha=0.5, beta=6.0, **({"topk": 10} | counts))
    (_, boxes, aims, aimed, _), (_, sparse_boxes, sparse_aims, sparse_aimed, _) = own(*given), Sparse(own)(*given)
    assert torch.equal(aims, sparse_aims) and torch.equal(aimed, sparse_aimed)
    weigh = aims.sum(2) > 0  # what an anchor finds that aims at nothing is multiplied by 0
    assert torch.equal(boxes[weigh], sparse_boxes[weigh])
    assert weigh.any() or not truth.any()
