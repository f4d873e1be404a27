"""Loading, building and saving detectors, with ultralytics' own code as the reference."""

from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from ultralytics import YOLO
from ultralytics.nn.tasks import DetectionModel

from models.detector import build_detector, load_for_eval
from models.loss.detection import DetectionLoss
from models.weights.find import zoo_yamls
from models.weights.load import load_weights
from models.weights.save import save_weights
from tests.helpers.loops import shown
from tests.helpers.zoo import (
    NEW,
    OLD,
    ONE_IN_THE_FAST_LOOP,
    assert_same_tensors,
    class_convs,
    noisy_checkpoint,
    read_zoo,
    thinned,
)
from utils.config.schema import Hyp
from utils.errors import UserError
from utils.run.state.checkpoint import save_state

TRUE_SIZE = {"yolov8.yaml", "yolo11.yaml", "yolo26.yaml"}
COMMON = ("yolo26.yaml", "yolov9t.yaml", "yolov10n.yaml", "yolo12.yaml")  # seen in the fast loop


def detection_yamls() -> list[str]:
    """Every detection yaml of the installed ultralytics."""
    heads = {name: read_zoo(name)["head"][-1][2] for name in zoo_yamls()}
    return [name for name, head in heads.items() if head in ("Detect", "v10Detect") and "world" not in name]


def smallest(name: str) -> str:
    """The name with the first scale letter that its yaml offers: yolov8-p2.yaml -> yolov8n-p2.yaml"""
    scales = read_zoo(name).get("scales")
    stem, dash, rest = name.removesuffix(".yaml").partition("-")
    has_letter = not stem[-1].isdigit()
    return name if has_letter or not scales else f"{stem}{next(iter(scales))}{dash}{rest}.yaml"


@pytest.fixture(params=ONE_IN_THE_FAST_LOOP)
def checkpoint(request) -> Path:
    return noisy_checkpoint(request.param)


@pytest.fixture
def v8() -> Path:
    return noisy_checkpoint("yolov8n")


@pytest.mark.parametrize("name", shown(COMMON, detection_yamls()))
def test_every_detection_yaml_loads_and_trains_a_step(name, tmp_path):
    source = DetectionModel(smallest(name) if name in TRUE_SIZE else thinned(name), verbose=False)
    torch.save({"model": source}, tmp_path / "w.pt")
    model, transfer = build_detector(str(tmp_path / "w.pt"), NEW)
    assert transfer.tensors_carried > 0.9 * transfer.tensors_total
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    torch.manual_seed(0)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)  # seen beside a bias of -11
    batch = {"cls": torch.tensor([0.0, 2.0]), "bboxes": torch.full((2, 4), 0.5), "batch_idx": torch.tensor([0.0, 1.0])}
    loss, items = DetectionLoss(model, Hyp())(model(torch.rand(2, 3, 64, 64)), batch)
    loss.backward()
    optimizer.step()
    assert torch.isfinite(items).all()
    moved = [n for n, p in model.named_parameters() if p.requires_grad and not torch.equal(p, before[n])]
    assert all(conv + ".bias" in moved for conv in class_convs(model))


@pytest.mark.slow
@pytest.mark.parametrize("head", ["keep", "rebuild"])
def test_saved_weights_open_everywhere_and_stay_the_same(checkpoint, head, tmp_path):
    model, _ = build_detector(str(checkpoint), NEW, head=head)
    path, x = tmp_path / "best.pt", torch.rand(1, 3, 64, 64)
    save_weights(path, model, NEW, Hyp(weights=checkpoint.name).model_dump(), 3, {"val/mAP50-95": 0.4})
    assert [p.name for p in tmp_path.iterdir()] == ["best.pt"]

    ours, theirs = load_for_eval(str(path)), YOLO(path)
    assert theirs.names == ours.names == dict(enumerate(NEW)) and theirs.task == "detect"
    assert_same_tensors(ours, theirs.model.float())
    rounded = ours.state_dict()
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(rounded[name], tensor.half().to(tensor.dtype), rtol=0, atol=0)
    torch.testing.assert_close(theirs.model.eval()(x)[0], ours(x)[0], rtol=0, atol=0)
    scores = model.eval()(x)[0][:, 4:]
    torch.testing.assert_close(ours(x)[0][:, 4:], scores, rtol=0, atol=2e-2)

    again, transfer = build_detector(str(path), NEW)
    assert_same_tensors(again, ours)
    assert again.yaml.get("head_nc") == model.yaml.get("head_nc") and transfer.fresh == []
    third, _ = build_detector(str(path), ["kite", "another"])  # a second fine-tune keeps the width once more
    assert {c.in_channels for c in class_convs(third).values()} == {c.in_channels for c in class_convs(model).values()}


def test_predicts_what_ultralytics_predicts(testdata, tmp_path):
    """Real weights, kept names: our file must give ultralytics the very boxes of the original."""
    original = testdata / "weights" / "yolov8n-int8restored.pt"
    picture = np.random.default_rng(0).integers(0, 255, (96, 128, 3), dtype=np.uint8)
    names = list(YOLO(original).names.values())
    model, _ = build_detector(str(original), names)
    save_weights(tmp_path / "best.pt", model, names, Hyp().model_dump(), 0, {})
    boxes = [
        YOLO(p).predict(picture, conf=1e-3, imgsz=128, verbose=False)[0].boxes.data
        for p in (original, tmp_path / "best.pt")
    ]
    assert len(boxes[0]) > 0
    torch.testing.assert_close(boxes[0], boxes[1])


def test_checkpoint_has_the_keys_of_ultralytics_and_no_path_of_the_machine(v8, tmp_path):
    model, _ = build_detector(str(v8), NEW)
    hyp = Hyp(weights="yolov8n.pt", data="bccd.yaml", epochs=7).model_dump()
    save_weights(tmp_path / "best.pt", model.to(memory_format=torch.channels_last), NEW, hyp, 5, {"val/mAP50": 0.5})
    saved = torch.load(tmp_path / "best.pt", weights_only=False)
    assert {
        "epoch",
        "best_fitness",
        "model",
        "ema",
        "train_args",
        "train_metrics",
        "date",
        "version",
        "license",
    } <= set(saved)
    assert saved["train_args"]["epochs"] == 7 and saved["train_args"]["data"] == "bccd.yaml"
    assert str(Path.home()) not in repr(saved["train_args"]) and str(v8.parent) not in repr(saved["train_args"])
    weight = saved["model"].model[0].conv.weight
    assert weight.dtype == torch.float16 and weight.is_contiguous() and not weight.requires_grad
    assert model.model[0].conv.weight.requires_grad and model.training  # the model itself is left alone


def test_a_failed_save_leaves_the_old_file(v8, tmp_path, monkeypatch):
    model, _ = build_detector(str(v8), NEW)
    (tmp_path / "best.pt").write_bytes(b"the old one")
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(UserError, match="No space left"):
        save_weights(tmp_path / "best.pt", model, NEW, {}, 0, {})
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"the old one"]


def test_our_last_pt_serves_as_weights(checkpoint, tmp_path):
    model, _ = build_detector(str(checkpoint), NEW)
    raw = {name: torch.zeros_like(t) for name, t in model.state_dict().items()}
    average = {"model": model.state_dict(), "updates": 3, "decay": 0.9, "tau": 2000.0}
    save_state(tmp_path / "last.pt", {"yaml": model.yaml, "names": NEW, "model": raw, "ema": average})
    assert_same_tensors(load_for_eval(str(tmp_path / "last.pt")), model)
    again, transfer = build_detector(str(tmp_path / "last.pt"), NEW)
    assert_same_tensors(again, model)
    assert transfer.tensors_carried == transfer.tensors_total


def test_yaml_starts_from_nothing_and_the_seed_decides(tmp_path):
    models = []
    for _ in range(2):
        torch.manual_seed(3)
        model, transfer = build_detector("yolov8n.yaml", NEW)
        models.append(model)
    assert_same_tensors(*models)
    assert transfer.tensors_carried == 0 and transfer.fresh == NEW
    assert model.yaml["scale"] == "n" and sum(p.numel() for p in model.parameters()) < 3.2e6


def test_reading_a_checkpoint_leaves_the_seed_alone(v8):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    load_for_eval(str(v8))
    build_detector(str(v8), OLD)
    assert torch.equal(before, torch.get_rng_state())


def test_nothing_pickled_lives_on(v8):
    """What is kept of a file: plain values and fp32 tensors."""
    source = load_weights(v8)
    assert {type(t) for t in source.state.values()} == {torch.Tensor}
    assert {t.dtype for t in source.state.values()} == {torch.float32, torch.int64}
    assert source.names == OLD


def test_copies_and_channels_last_agree(v8):
    model = load_for_eval(str(v8))
    other = deepcopy(model).to(memory_format=torch.channels_last)
    x = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(other(x.to(memory_format=torch.channels_last))[0], model(x)[0], rtol=1e-3, atol=1e-3)


def test_image_size_must_fit_the_stride(v8):
    with pytest.raises(UserError, match="stride 32.*Use 96"):
        build_detector(str(v8), NEW, imgsz=100)
