"""The folded copy of a network: the same outputs of every family, and nothing of the network itself changed."""

import copy

import pytest
import torch
from torch import nn
from ultralytics.nn.tasks import DetectionModel, yaml_model_load

from models.detector import fold, for_evaluation

FAMILIES = ["yolov5n", "yolov6n", "yolov8n", "yolov8n-ghost", "yolov9t", "yolov10n", "yolo11n", "yolo12n", "yolo26n"]


def thin(family: str) -> DetectionModel:
    """A narrow network of the family; its BatchNorm has seen data, so that its statistics are no defaults."""
    yaml = yaml_model_load(f"{family}.yaml")
    if "scales" in yaml:
        depth, _, most = yaml["scales"][yaml["scale"]]
        yaml["scales"] = {yaml["scale"]: [depth, 0.25 if "12" in family else 0.125, most]}
    torch.manual_seed(0)
    model = DetectionModel(yaml, nc=3, verbose=False)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.3, 0.3)
            module.momentum = 0.5
    model.train()
    with torch.no_grad():
        for _ in range(4):
            model(torch.rand(2, 3, 64, 64))
    return model.requires_grad_(True)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_folded_copy_computes_the_same(family):
    model = thin(family)
    before = copy.deepcopy(model.state_dict())
    folded = fold(model)
    assert not [name for name, m in folded.named_modules() if isinstance(m, nn.BatchNorm2d)]
    assert model.training and all(p.requires_grad for p in model.parameters() if p.dtype.is_floating_point)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())

    images = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        expected, raw = model.eval()(images)
        found, folded_raw = folded(images)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    branches = [(raw, folded_raw)] if "boxes" in raw else [(raw[k], folded_raw[k]) for k in ("one2many", "one2one")]
    for ours, theirs in branches:  # a criterion may read every branch
        for key in ("boxes", "scores"):
            torch.testing.assert_close(theirs[key], ours[key], rtol=1e-3, atol=1e-3)


def test_what_is_evaluated_keeps_the_layout_and_leaves_nothing_behind():
    model = thin("yolov8n").to(memory_format=torch.channels_last)
    attributes = set(vars(model.model[-1]))
    with for_evaluation(model) as folded:
        weight = folded.model[0].conv.weight
        assert weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous()
        folded(torch.rand(1, 3, 64, 64))
    assert set(vars(model.model[-1])) == attributes and model.model[-1].shape != torch.Size([1, 8, 8, 8])
