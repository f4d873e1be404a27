"""What a detector with other classes takes from a checkpoint; ultralytics' own transfer is the reference."""

from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from ultralytics import YOLO
from ultralytics.nn.tasks import DetectionModel

from models.detector import build_detector, load_for_eval, model_from_yaml
from tests.helpers.zoo import NEW, OLD, ONE_IN_THE_FAST_LOOP, assert_same_tensors, class_convs, noisy_checkpoint


@pytest.fixture(params=ONE_IN_THE_FAST_LOOP)
def checkpoint(request) -> Path:
    return noisy_checkpoint(request.param)


@pytest.fixture
def v8() -> Path:
    return noisy_checkpoint("yolov8n")


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


def test_weights_widened_by_ultralytics_load(v8, tmp_path):
    """Its trainer keeps the width of 80 classes in a network whose yaml says 3; the width is read from the tensors."""
    theirs = DetectionModel("yolov8n.yaml", nc=3, verbose=False)
    theirs.load(YOLO(v8).model, verbose=False)
    torch.save({"model": theirs.half()}, tmp_path / "w.pt")
    assert_same_tensors(load_for_eval(str(tmp_path / "w.pt")), theirs.float())


def test_model_from_yaml_gives_the_same_shapes(checkpoint):
    for head in ("keep", "rebuild"):
        model, _ = build_detector(str(checkpoint), NEW, head=head)
        again = model_from_yaml(model.yaml, NEW)
        again.load_state_dict(model.state_dict())
        assert again.yaml == model.yaml and again.names == model.names
