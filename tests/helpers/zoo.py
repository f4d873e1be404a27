"""Checkpoints that several tests share, made by ultralytics, and how two networks are compared."""

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn
from ultralytics import YOLO
from ultralytics.nn.tasks import DetectionModel

from models.detector import build_detector, load_for_eval
from models.weights.find import zoo_yamls
from tests.helpers.folders import lasting_folder
from tests.helpers.loops import shown
from utils.errors import UserError

OLD = ["person", *(f"thing {i}" for i in range(1, 79)), "kite"]  # 80 classes
NEW = ["cell", "kite", "platelet"]
FAMILIES = ["yolov8n", "yolo11n", "yolo26n"]
ONE_IN_THE_FAST_LOOP = shown(["yolo26n"], FAMILIES)  # it has two branches


@cache
def noisy_checkpoint(family: str) -> Path:
    """A checkpoint of the 80 classes OLD, saved by ultralytics, with noise so that hardly a tensor is a default."""
    torch.manual_seed(1)
    yolo = YOLO(f"{family}.yaml")
    yolo.model.names = dict(enumerate(OLD))
    for name, tensor in yolo.model.state_dict().items():
        if tensor.is_floating_point() and ".dfl." not in name:
            tensor.mul_(1 + 0.1 * torch.rand_like(tensor)).add_(0.01 * torch.rand_like(tensor))
    path = lasting_folder("weights") / f"{family}.pt"
    yolo.save(path)
    return path


def read_zoo(name: str) -> dict[str, Any]:
    """A yaml of the zoo; by libyaml where it is there, for there are many."""
    return yaml.load(zoo_yamls()[name].read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))


@cache
def thinned(name: str) -> Path:
    """A yaml of the zoo with a tenth to a quarter of its channels and no block twice in a row: the layers and their
    names are what is tested."""
    content = read_zoo(name)
    layers = [layer for layer in content["backbone"] + content["head"] if layer[2] == "CBLinear"]
    for layer in layers:  # yolov9e: names its channels outright
        layer[3][0] = [channels // 4 for channels in layer[3][0]]
    for layer in content["backbone"] + content["head"]:
        if layer[2] == "RepNCSPELAN4":  # names its repetitions outright
            layer[3][-1] = 1
    content["depth_multiple"] = 0.01
    if "scales" in content:
        thin = 0.5 if "yolo12" in name else 0.25  # its heads want 32 channels
        content["scales"] = {k: [0.01, width * thin, most] for k, (_, width, most) in content["scales"].items()}
    else:
        content["width_multiple"] = (0.25 if layers else 0.1) * content.get("width_multiple", 1.0)
    path = lasting_folder("yaml") / name
    path.write_text(yaml.safe_dump(content))
    return path


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


def refusal(weights: Path | str) -> str:
    """The message of the UserError that both doors give."""
    with pytest.raises(UserError) as built:
        build_detector(str(weights), NEW)
    with pytest.raises(UserError):
        load_for_eval(str(weights))
    return str(built.value)


@cache
def network() -> DetectionModel:
    """A detector whose copies become checkpoints."""
    return DetectionModel("yolov8n.yaml", nc=2, verbose=False)


def checkpoint_with(path: Path, **extra: Any) -> Path:
    torch.save({"model": network(), **extra}, path)
    return path
