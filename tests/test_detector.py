"""Building, transferring, freezing and saving detectors, with ultralytics' own code as the reference."""

from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch import nn
from ultralytics import YOLO
from ultralytics.nn.tasks import DetectionModel

from models.detector import (
    build_detector,
    freeze,
    keep_frozen_bn_eval,
    load_for_eval,
    load_weights,
    model_from_yaml,
    save_ultralytics,
)
from models.find import zoo_yamls
from models.loss import DetectionLoss
from utils.checkpoint import save_state
from utils.config import Hyp
from utils.errors import UserError

OLD = ["person", *(f"thing {i}" for i in range(1, 79)), "kite"]  # 80 classes
NEW = ["cell", "kite", "platelet"]
FAMILIES = ["yolov8n", "yolo11n", "yolo26n"]
HEAVY = {"yolov3", "yolov3-spp", "yolov9c", "yolov9e", "yolov9m", "yolov10b", "yolov10l", "yolov10m", "yolov10x"}


def detection_yamls() -> list:
    """Every detection yaml of the installed ultralytics; the big ones are marked slow."""
    heads = {
        name: yaml.safe_load(path.read_text(encoding="utf-8"))["head"][-1][2] for name, path in zoo_yamls().items()
    }
    names = [name for name, head in heads.items() if head in ("Detect", "v10Detect") and "world" not in name]
    return [pytest.param(n, marks=pytest.mark.slow if Path(n).stem in HEAVY else ()) for n in names]


def smallest(name: str) -> str:
    """The name with the first scale letter that its yaml offers: yolov8-p2.yaml -> yolov8n-p2.yaml"""
    scales = yaml.safe_load(zoo_yamls()[name].read_text(encoding="utf-8")).get("scales")
    stem, dash, rest = name.removesuffix(".yaml").partition("-")
    has_letter = not stem[-1].isdigit()
    return name if has_letter or not scales else f"{stem}{next(iter(scales))}{dash}{rest}.yaml"


@pytest.fixture(scope="module", params=FAMILIES)
def checkpoint(request, tmp_path_factory) -> Path:
    """A checkpoint of 80 named classes, saved by ultralytics, with noise in every tensor so that none is a default."""
    return noisy_checkpoint(request.param, tmp_path_factory.mktemp("zoo"))


def noisy_checkpoint(family: str, folder: Path) -> Path:
    torch.manual_seed(1)
    yolo = YOLO(f"{family}.yaml")
    yolo.model.names = dict(enumerate(OLD))
    for name, tensor in yolo.model.state_dict().items():
        if tensor.is_floating_point() and ".dfl." not in name:
            tensor.add_(torch.rand_like(tensor) * 0.05)
    yolo.save(folder / f"{family}.pt")
    return folder / f"{family}.pt"


@pytest.fixture(scope="module")
def v8(tmp_path_factory) -> Path:
    return noisy_checkpoint("yolov8n", tmp_path_factory.mktemp("v8"))


def class_convs(model: DetectionModel) -> dict[str, nn.Conv2d]:
    """The last convolution of every class branch, by name."""
    head = f"model.{len(model.model) - 1}"
    return {
        name: module
        for name, module in model.named_modules()
        if name.startswith((f"{head}.cv3.", f"{head}.one2one_cv3.")) and name.count(".") == 4 and name.endswith(".2")
    }


def assert_same_tensors(a: nn.Module, b: nn.Module) -> None:
    a, b = a.state_dict(), b.state_dict()
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


@pytest.mark.parametrize("name", detection_yamls())
def test_every_detection_yaml_loads_and_trains_a_step(name, tmp_path):
    YOLO(smallest(name)).save(tmp_path / "w.pt")
    model, transfer = build_detector(str(tmp_path / "w.pt"), NEW)
    assert transfer.tensors_carried > 0.9 * transfer.tensors_total
    before = deepcopy(model.state_dict())
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    batch = {"cls": torch.tensor([0.0, 2.0]), "bboxes": torch.full((2, 4), 0.5), "batch_idx": torch.tensor([0.0, 1.0])}
    loss, items = DetectionLoss(model, Hyp())(model(torch.rand(2, 3, 64, 64)), batch)
    loss.backward()
    optimizer.step()
    assert torch.isfinite(items).all()
    moved = [n for n, p in model.named_parameters() if p.requires_grad and not torch.equal(p, before[n])]
    assert all(conv + ".bias" in moved for conv in class_convs(model))


def test_keep_carries_all_but_the_rows_of_unknown_classes(checkpoint):
    source = load_for_eval(str(checkpoint))
    torch.manual_seed(0)
    model, transfer = build_detector(str(checkpoint), NEW, head="keep")
    old_convs, new_convs = class_convs(source), class_convs(model)
    assert old_convs.keys() == new_convs.keys() and len(new_convs) == 3 * (1 + (checkpoint.stem == "yolo26n"))

    strides = model.stride.tolist()
    for name, conv in new_convs.items():
        old = old_convs[name]
        assert torch.equal(conv.weight[1], old.weight[79]) and torch.equal(conv.bias[1], old.bias[79])  # kite
        prior = np.log(5 / 3 / (640 / strides[int(name.split(".")[3])]) ** 2)
        torch.testing.assert_close(conv.bias[[0, 2]], torch.full((2,), prior, dtype=torch.float32))
        assert not any(torch.equal(conv.weight[0], row) for row in old.weight)

    old_state, state = source.state_dict(), model.state_dict()
    resized = {f"{name}.{kind}" for name in new_convs for kind in ("weight", "bias")}
    assert old_state.keys() == state.keys()
    assert all(torch.equal(state[name], old_state[name]) for name in state.keys() - resized)
    assert (transfer.tensors_carried, transfer.tensors_total) == (len(state) - len(resized), len(state))
    assert transfer.carried_names == ["kite"] and transfer.fresh == ["cell", "platelet"]
    assert f"{len(state) - len(resized)} of {len(state)}" in transfer.summary() and "kite" in transfer.summary()
    assert (model.nc, model.yaml["nc"], model.names) == (3, 3, dict(enumerate(NEW)))


def test_rebuild_is_what_ultralytics_does(checkpoint):
    """Reference: DetectionTrainer.get_model of the installed version, under the same seed."""
    theirs = YOLO(checkpoint).model.float()
    torch.manual_seed(0)
    reference = DetectionModel(deepcopy(theirs.yaml), nc=3, ch=3, verbose=False)
    reference.names = dict(enumerate(NEW))
    reference.load(theirs, verbose=False)

    torch.manual_seed(0)
    model, transfer = build_detector(str(checkpoint), NEW, head="rebuild")
    assert_same_tensors(model, reference)
    old = theirs.state_dict()
    carried = [n for n, t in model.state_dict().items() if t.shape == old[n].shape and torch.equal(t, old[n])]
    assert (transfer.tensors_carried, transfer.tensors_total) == (len(carried), len(old))


@pytest.mark.parametrize("head", ["keep", "rebuild"])
def test_same_names_carry_everything(checkpoint, head):
    model, transfer = build_detector(str(checkpoint), OLD, head=head)
    assert_same_tensors(model, load_for_eval(str(checkpoint)))
    assert transfer.tensors_carried == transfer.tensors_total and transfer.fresh == []


@pytest.mark.parametrize("head", ["keep", "rebuild"])
def test_saved_weights_open_everywhere_and_stay_the_same(checkpoint, head, tmp_path):
    model, _ = build_detector(str(checkpoint), NEW, head=head)
    path, x = tmp_path / "best.pt", torch.rand(1, 3, 64, 64)
    save_ultralytics(path, model, NEW, Hyp(weights=checkpoint.name).model_dump(), 3, {"val/mAP50-95": 0.4})
    assert [p.name for p in tmp_path.iterdir()] == ["best.pt"]

    ours, theirs = load_for_eval(str(path)), YOLO(path)
    assert theirs.names == ours.names == dict(enumerate(NEW)) and theirs.task == "detect"
    assert_same_tensors(ours, theirs.model.float())
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], tensor.half().to(tensor.dtype), rtol=0, atol=0)
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
    save_ultralytics(tmp_path / "best.pt", model, names, Hyp().model_dump(), 0, {})
    boxes = [
        YOLO(p).predict(picture, conf=1e-3, imgsz=128, verbose=False)[0].boxes.data
        for p in (original, tmp_path / "best.pt")
    ]
    assert len(boxes[0]) > 0
    torch.testing.assert_close(boxes[0], boxes[1])


def test_checkpoint_has_the_keys_of_ultralytics_and_no_path_of_the_machine(v8, tmp_path):
    model, _ = build_detector(str(v8), NEW)
    hyp = Hyp(weights="yolov8n.pt", data="bccd.yaml", epochs=7).model_dump()
    save_ultralytics(tmp_path / "best.pt", model.to(memory_format=torch.channels_last), NEW, hyp, 5, {"val/mAP50": 0.5})
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
        save_ultralytics(tmp_path / "best.pt", model, NEW, {}, 0, {})
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"the old one"]


def test_weights_widened_by_ultralytics_load(v8, tmp_path):
    """Its trainer keeps the width of 80 classes in a network whose yaml says 3; the width is read from the tensors."""
    theirs = DetectionModel("yolov8n.yaml", nc=3, verbose=False)
    theirs.load(YOLO(v8).model, verbose=False)
    torch.save({"model": theirs.half()}, tmp_path / "w.pt")
    assert_same_tensors(load_for_eval(str(tmp_path / "w.pt")), theirs.float())


def test_our_last_pt_serves_as_weights(checkpoint, tmp_path):
    model, _ = build_detector(str(checkpoint), NEW)
    raw = {name: torch.zeros_like(t) for name, t in model.state_dict().items()}
    average = {"model": model.state_dict(), "updates": 3, "decay": 0.9, "tau": 2000.0}
    save_state(tmp_path / "last.pt", {"yaml": model.yaml, "names": NEW, "model": raw, "ema": average})
    assert_same_tensors(load_for_eval(str(tmp_path / "last.pt")), model)
    again, transfer = build_detector(str(tmp_path / "last.pt"), NEW)
    assert_same_tensors(again, model)
    assert transfer.tensors_carried == transfer.tensors_total


def test_model_from_yaml_gives_the_same_shapes(checkpoint):
    for head in ("keep", "rebuild"):
        model, _ = build_detector(str(checkpoint), NEW, head=head)
        again = model_from_yaml(model.yaml, NEW)
        again.load_state_dict(model.state_dict())
        assert again.yaml == model.yaml and again.names == model.names


def test_rows_follow_names_not_positions(v8):
    names = ["KITE ", "person", "thing 5"]
    model, transfer = build_detector(str(v8), names)
    old = class_convs(load_for_eval(str(v8)))
    for name, conv in class_convs(model).items():
        assert torch.equal(conv.weight, old[name].weight[[79, 0, 5]])
    assert transfer.class_rows == names and transfer.fresh == []


def test_placeholder_names_carry_no_rows(tmp_path):
    YOLO("yolov8n.yaml").save(tmp_path / "w.pt")  # classes '0' ... '79'
    _, transfer = build_detector(str(tmp_path / "w.pt"), ["1", "7"])
    assert transfer.class_rows == []


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


@pytest.mark.parametrize(
    ("spec", "layers"),
    [
        (None, []),
        (0, []),
        (10, range(10)),
        ("10", range(10)),
        ("backbone", range(10)),
        ("neck", range(10, 22)),
        ("head", [22]),
        ("model.3", [3]),
        ("model.0, model.2", [0, 2]),
        (["backbone", "model.21"], [*range(10), 21]),
        ([0, 1, 2], range(3)),
    ],
)
def test_freeze_stops_the_named_layers(spec, layers):
    model = freezable()
    frozen = freeze(model, spec)
    layers = set(layers)
    assert {int(name.split(".")[1]) for name in frozen} == layers
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == (int(name.split(".")[1]) not in layers and ".dfl." not in name), name
    model.train()
    keep_frozen_bn_eval(model)
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.training == (int(name.split(".")[1]) not in layers)


def freezable() -> DetectionModel:
    if not hasattr(freezable, "model"):
        freezable.model, _ = build_detector("yolov8n.yaml", NEW)
    return deepcopy(freezable.model)


def test_freeze_takes_parts_of_a_layer():
    model = freezable()
    frozen = freeze(model, "model.22.cv2")
    assert frozen and all(name.startswith("model.22.cv2.") for name in frozen)


@pytest.mark.parametrize(
    ("spec", "hint"), [("backbon", "backbone"), ("model.99", "model.9"), (99, "0 to 22"), (-1, "0 to")]
)
def test_freeze_refuses_what_it_does_not_know(spec, hint):
    with pytest.raises(UserError, match=hint):
        freeze(freezable(), spec)


def test_freeze_must_leave_something():
    with pytest.raises(UserError, match="nothing to train"):
        freeze(freezable(), "backbone,neck,head")
