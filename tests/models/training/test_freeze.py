"""Freezing parts of a detector by number and by name."""

from copy import deepcopy
from functools import cache

import pytest
from torch import nn
from ultralytics.nn.tasks import DetectionModel

from models.detector import build_detector
from models.training.freeze import freeze, keep_frozen_bn_eval
from utils.config.options import parse_args
from utils.errors import UserError


@cache
def network() -> DetectionModel:
    return build_detector("yolov8n.yaml", ["a", "b"])[0]


def layer_of(name: str) -> int:
    """model.22.cv2.0.bn -> 22"""
    return int(name.split(".")[1])


def freezable() -> DetectionModel:
    return deepcopy(network())


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
    assert frozen == [name for name, p in network().named_parameters() if layer_of(name) in layers and p.requires_grad]
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == (layer_of(name) not in layers and ".dfl." not in name), name
    model.train()
    keep_frozen_bn_eval(model)
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.training == (layer_of(name) not in layers)


def test_freeze_takes_a_list_of_numbers_from_the_command_line():
    """YOLOv5's --freeze 0 1 2, as a list."""
    for words in (["--freeze", "[0,2]"], ["freeze=0,2"], ["--freeze", "[model.0, 2]"]):
        assert {layer_of(name) for name in freeze(freezable(), parse_args(words)[1].freeze)} == {0, 2}


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
