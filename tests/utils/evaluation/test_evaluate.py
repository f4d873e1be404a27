"""The whole evaluation: a detector that knows the truth scores 1, real weights score what pycocotools says."""

import contextlib
import dataclasses
import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from data.definition.dataset_yaml import load_dataset_yaml
from data.index.index import Index, build_index
from data.loading.loader import build_eval_loader
from utils.boxes import xywhn_to_xyxy
from utils.config.schema import Hyp
from utils.device.images import ToDevice, memory_format, preprocess
from utils.evaluation.evaluate import BEHIND, Settings, evaluate
from utils.evaluation.losses import AIMED

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    """Seven pictures of several shapes; the second has no boxes."""
    root = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    (root / "images").mkdir()
    (root / "labels").mkdir()
    for i, (h, w) in enumerate([(60, 100), (100, 60), (80, 80), (50, 120), (90, 70), (64, 64), (120, 40)]):
        Image.fromarray(rng.integers(0, 255, (h, w, 3), dtype=np.uint8)).save(root / f"images/{i}.png")
        rows = [f"{k % 2} {0.25 + 0.5 * (k % 2)} {0.25 + 0.25 * k} 0.4 0.3" for k in range(3)] if i != 1 else []
        (root / f"labels/{i}.txt").write_text("\n".join(rows))
    (root / "data.yaml").write_text("train: images\nval: images\nnames: [left, right]\n")
    return build_index(load_dataset_yaml(root / "data.yaml"), "val")


def loader_of(index: Index, batch: int = 3):
    return build_eval_loader(index, imgsz=96, stride=32, batch=batch, workers=0)


class Oracle(nn.Module):
    """Answers each batch with its true boxes in a detector's output format; `edit` changes the answer."""

    def __init__(self, loader, nc: int = 2, end2end: bool = False, edit=lambda out: out, classes=(0, 1)) -> None:
        super().__init__()
        self.end2end, self.edit = end2end, edit
        self.answers = [edit(self.answer(batch, nc, classes)) for batch in loader]
        self.turn = 0

    def answer(self, batch, nc: int, classes) -> Tensor:
        b, _, h, w = batch["img"].shape
        a = 20
        boxes, cls = torch.zeros(b, a, 4), torch.zeros(b, a, dtype=torch.long)
        scores = torch.zeros(b, a)
        for i in range(b):
            mine = batch["batch_idx"].flatten() == i
            n = int(mine.sum())
            boxes[i, :n] = batch["bboxes"][mine] * torch.tensor([w, h, w, h])
            cls[i, :n] = torch.tensor(classes)[batch["cls"][mine].flatten().long()]
            scores[i, :n] = 0.9
        if self.end2end:
            corners = xywhn_to_xyxy(boxes, 1, 1)
            return torch.cat((corners, scores[..., None], cls[..., None].float()), -1)  # (b, a, 6)
        onehot = nn.functional.one_hot(cls, nc) * scores[..., None]  # (b, a, nc)
        return torch.cat((boxes, onehot), -1).transpose(1, 2)  # (b, 4 + nc, a)

    def forward(self, x: Tensor):
        assert not self.training and x.dtype == torch.float32 and 0 <= x.min() and x.max() <= 1
        self.turn += 1
        return self.answers[self.turn - 1], "the raw maps of a detection head"


@pytest.mark.parametrize("end2end", [False, True])
@pytest.mark.parametrize("batch", [1, 3, 16])
def test_a_detector_that_knows_the_truth_scores_one(index, batch, end2end):
    loader = loader_of(index, batch)
    result = evaluate(Oracle(loader, end2end=end2end), loader, index, CPU)
    for name in ("mAP50-95", "mAP50", "mAP75", "precision", "recall", "AR100"):
        assert result.metrics[f"val/{name}"] == pytest.approx(1, abs=1e-6), name
    assert np.isnan(result.metrics["val/mAP_large"])  # no box is that large
    assert [(row["name"], row["pictures"], row["boxes"]) for row in result.per_class] == [
        ("left", 6, 12),
        ("right", 6, 6),
    ]
    assert result.confusion.tolist() == [[12, 0, 0], [0, 6, 0], [0, 0, 0]]
    assert set(result.speed) == {"preprocess", "inference", "nms"}


@pytest.mark.parametrize("end2end", [False, True])
def test_detections_that_are_chosen_a_batch_later_are_the_same(index, end2end, monkeypatch):
    """As on a GPU: the network is given its next batch before the detections of the last one are chosen."""
    told, results = [], []

    def criterion(raw, batch, pred) -> dict[str, Tensor]:
        told.append(("chosen", len(batch["index"])))
        return {"box": batch["bboxes"].sum(), AIMED: torch.ones(())}

    for behind in (0, 1, 99):
        loader = loader_of(index)
        model = Oracle(loader, end2end=end2end)
        model.register_forward_hook(lambda _, images, out: told.append(("begun", len(images[0]))))
        monkeypatch.setitem(BEHIND, "cpu", behind)
        results.append(evaluate(model, loader, index, CPU, criterion=criterion))
    begun, chosen = ([(what, n) for n in (3, 3, 1)] for what in ("begun", "chosen"))
    turns = [pair for pairs in zip(begun, chosen, strict=True) for pair in pairs]
    assert told == [*turns, *begun[:2], chosen[0], begun[2], *chosen[1:], *begun, *chosen]
    for other in results[1:]:
        assert other.predictions == results[0].predictions
        assert str(other.metrics) == str(results[0].metrics) and set(other.speed) == set(results[0].speed)


def test_predictions_are_in_pixels_of_the_original(index):
    loader = loader_of(index)
    result = evaluate(Oracle(loader), loader, index, CPU)
    first = [p["bbox"] for p in result.predictions if p["image_id"] == index.image_ids[0]]
    h, w = index.shapes[0]
    expected = xywhn_to_xyxy(index.boxes[index.rows(0)], w, h)
    expected[:, 2:] -= expected[:, :2]
    found = np.array(sorted(first))
    np.testing.assert_allclose(found, np.array(sorted(expected.tolist())), atol=0.01)
    json.dumps(result.predictions)


def test_classes_of_the_model_are_mapped(index):
    """The model knows five classes in another order; 3 is 'left', 1 is 'right', the others are not in the data."""
    loader = loader_of(index)
    model = Oracle(loader, nc=5, classes=(3, 1))
    result = evaluate(model, loader, index, CPU, Settings(class_map=[-1, 1, -1, 0, -1]))
    assert result.metrics["val/mAP50-95"] == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("end2end", [False, True])
@pytest.mark.parametrize("value", [0.0, float("nan")])
def test_nothing_found_scores_zero(index, value, end2end):
    loader = loader_of(index)
    result = evaluate(Oracle(loader, end2end=end2end, edit=lambda out: out * value), loader, index, CPU)
    assert result.predictions == []
    assert result.metrics["val/mAP50-95"] == result.metrics["val/precision"] == result.metrics["val/recall"] == 0
    assert result.confusion[-1].tolist() == [12, 6, 0]


@pytest.mark.parametrize("training", [False, True])
def test_the_mode_of_the_model_is_restored_even_after_an_error(index, training):
    loader = loader_of(index)
    model = Oracle(loader).train(training)
    evaluate(model, loader, index, CPU)
    assert model.training is training
    with pytest.raises(IndexError):  # the oracle has no more answers
        evaluate(model, loader, index, CPU)
    assert model.training is training


@pytest.mark.parametrize("yaml", ["yolov8n.yaml", "yolo26n.yaml"])
def test_losses_are_the_criterion_on_each_batch_and_crowds_are_no_targets(index, yaml):
    from models.detector import build_detector
    from models.loss.detection import DetectionLoss
    from utils.config.schema import Hyp

    torch.manual_seed(0)
    model, _ = build_detector(yaml, list(index.names))
    loss_fn = DetectionLoss(model, Hyp())
    single = np.arange(len(index.classes)) % 4 > 0
    crowded = dataclasses.replace(index, crowd=~single)
    counts = [single[index.rows(i)].sum() for i in range(index.n)]
    rows = {key: getattr(index, key)[single] for key in ("classes", "boxes", "crowd", "area")}
    without = dataclasses.replace(index, **rows, offsets=np.concatenate([[0], np.cumsum(counts)]))
    expected = []
    for batch in loader_of(without):  # in full precision, one by one
        with torch.no_grad():
            raw = model.eval()(preprocess(batch["img"], CPU))[1]
        expected.append(loss_fn(raw, batch)[1])
    for dtype, tolerance in [(None, 1e-4), (torch.bfloat16, 0.05)]:
        result = evaluate(model, loader_of(crowded), crowded, CPU, Settings(dtype=dtype), loss_fn.sums)
        losses = [result.metrics[f"val/{name}"] for name in loss_fn.names]
        assert losses == pytest.approx(torch.stack(expected).mean(0).tolist(), rel=tolerance)
    assert "loss" in result.speed


def test_the_losses_of_pictures_without_boxes_are_numbers(index):
    from models.detector import build_detector
    from models.loss.detection import DetectionLoss
    from utils.config.schema import Hyp

    torch.manual_seed(0)
    model, _ = build_detector("yolov8n.yaml", list(index.names))
    loss_fn = DetectionLoss(model, Hyp())
    everywhere = dataclasses.replace(index, crowd=np.ones_like(index.crowd))
    metrics = evaluate(model, loader_of(index), everywhere, CPU, criterion=loss_fn.sums).metrics
    assert metrics["val/box"] == metrics["val/dfl"] == 0 < metrics["val/cls"] < float("inf")


def test_nothing_is_printed(index, capfd):
    loader = loader_of(index)
    evaluate(Oracle(loader), loader, index, CPU)
    assert capfd.readouterr() == ("", "")


def half_of_coco128(testdata: Path, folder: Path) -> list[int]:
    """Every second picture with its labels, truth.json, and a yaml of each kind; returns COCO's ids of the classes."""
    content = json.loads((testdata / "coco128/annotations/instances_train2017.json").read_text())
    content["images"] = content["images"][::2]
    ids = {image["id"] for image in content["images"]}
    content["annotations"] = [box for box in content["annotations"] if box["image_id"] in ids]
    (folder / "truth.json").write_text(json.dumps(content))
    for kind, suffix in (("images", ".jpg"), ("labels", ".txt")):  # links: ultralytics writes beside the labels
        (folder / kind).mkdir()
        for image in content["images"]:
            name = Path(image["file_name"]).with_suffix(suffix)
            if (source := testdata / "coco128" / kind / "train2017" / name).exists():
                (folder / kind / name).symlink_to(source)
    names = (testdata / "coco128/coco128.yaml").read_text().partition("names:")[2]
    for file, val in (("ours.yaml", "truth.json"), ("theirs.yaml", "images")):
        (folder / file).write_text(f"path: {folder}\ntrain: images\nval: {val}\nnames:{names}")
    return [category["id"] for category in content["categories"]]


def detected_by_ultralytics(weights: Path, folder: Path, category_ids: list[int]) -> list[dict]:
    """What their own validation writes for pycocotools."""
    from ultralytics import YOLO

    threads = torch.get_num_threads()
    options = {"imgsz": 320, "batch": 16, "workers": 0, "device": "cpu", "project": str(folder), "name": "theirs"}
    YOLO(weights).val(data=str(folder / "theirs.yaml"), save_json=True, plots=False, verbose=False, **options)
    torch.set_num_threads(threads)  # they have just taken all cores
    rows = json.loads((folder / "theirs/predictions.json").read_text())
    return [row | {"category_id": category_ids[row["category_id"] - 1]} for row in rows]


def pycocotools_scores(truth: Path, predictions: list[dict]) -> dict[str, float]:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        known = COCO(str(truth))
        reference = COCOeval(known, known.loadRes(predictions), "bbox")
        reference.evaluate()
        reference.accumulate()
        reference.summarize()
    names = ("mAP50-95", "mAP50", "mAP75", "mAP_small", "mAP_medium", "mAP_large", "AR1")
    return dict(zip(names, reference.stats, strict=False)) | {"AR100": reference.stats[8]}


@pytest.mark.slow
def test_real_weights_score_what_pycocotools_says_and_what_ultralytics_detects(testdata: Path, tmp_path: Path):
    """yolov8n on pictures of COCO128 with COCO's json as truth."""
    from models.detector import load_for_eval

    category_ids = half_of_coco128(testdata, tmp_path)
    weights = testdata / "weights/yolov8n-int8restored.pt"
    index = build_index(load_dataset_yaml(tmp_path / "ours.yaml"), "val")
    loader = build_eval_loader(index, imgsz=320, stride=32, batch=16, workers=0)
    model = load_for_eval(str(weights)).to(memory_format=torch.channels_last)
    result = evaluate(model, loader, index, CPU, Settings(channels_last=True))
    reference = pycocotools_scores(tmp_path / "truth.json", json.loads(json.dumps(result.predictions)))
    for name, expected in reference.items():
        assert result.metrics[f"val/{name}"] == pytest.approx(expected, abs=1e-6), name
    theirs = detected_by_ultralytics(weights, tmp_path, category_ids)
    assert len(result.predictions) == pytest.approx(len(theirs), rel=0.01) and reference["mAP50-95"] > 0.3
    assert reference == pytest.approx(pycocotools_scores(tmp_path / "truth.json", theirs), abs=0.005)


@pytest.mark.parametrize(
    ("choice", "platform", "expected"),
    [("auto", "linux", True), ("auto", "darwin", True), ("auto", "win32", False), ("on", "win32", True)]
    + [("off", "linux", False)],
)
def test_the_layout_is_channels_last_but_on_windows(monkeypatch, choice, platform, expected):
    monkeypatch.setattr(sys, "platform", platform)
    settings = Settings.of(Hyp(channels_last=choice), None)
    images = ToDevice(CPU, settings.channels_last)({"img": torch.zeros(2, 3, 8, 8, dtype=torch.uint8)})
    weight = nn.Conv2d(3, 4, 3).to(memory_format=memory_format(choice)).weight
    for tensor in (images, weight):
        assert tensor.is_contiguous(memory_format=torch.channels_last) is expected


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_pictures_in_the_type_of_autocast_are_those_that_it_would_make(dtype):
    levels = torch.arange(256, dtype=torch.uint8).expand(1, 3, 2, 256)
    assert torch.equal(preprocess(levels, CPU, dtype=dtype), preprocess(levels, CPU).to(dtype))
