"""The folded copy of a network: the same outputs of every family, and nothing of the network itself changed."""

import copy

import pytest
import torch
from torch import nn
from ultralytics.nn.tasks import DetectionModel, yaml_model_load

from models.decode import decoding_in_full
from models.detector import for_evaluation
from models.fold import fold, pack, packs
from tests.helpers.loops import shown

FAMILIES = ["yolov5n", "yolov6n", "yolov8n", "yolov8n-ghost", "yolov9t", "yolov10n", "yolo11n", "yolo12n", "yolo26n"]
COMMON = ("yolov8n", "yolov9t", "yolov10n", "yolo26n")  # seen in the fast loop


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


@pytest.mark.parametrize("family", shown(COMMON, FAMILIES))
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


@pytest.mark.skipif(not packs(torch.float32), reason="this torch or processor has no packed convolutions")
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("family", ["yolov8n", "yolov10n"])
def test_a_packed_copy_computes_the_same_at_every_size(family, layout):
    folded = fold(thin(family).to(memory_format=layout))
    packed = pack(copy.deepcopy(folded))
    with torch.no_grad():
        for shape in ((2, 3, 64, 96), (1, 3, 96, 64), (16, 3, 32, 32)):  # packed for the first, serving all
            images = torch.rand(shape).contiguous(memory_format=layout)
            torch.testing.assert_close(packed(images)[0], folded(images)[0], rtol=1e-4, atol=1e-4)


def test_blocks_that_cannot_be_packed_whole_stay_right():
    """A convolution that pads otherwise, and a norm that is not folded, between convolution and SiLU."""
    model = thin("yolov8n")
    model.model[0].conv.padding_mode = "reflect"
    model.model[0].conv._reversed_padding_repeated_twice = [1, 1, 1, 1]
    model.model[1].bn = nn.GroupNorm(2, model.model[1].conv.out_channels)
    folded, images = fold(model), torch.rand(2, 3, 64, 64)
    assert isinstance(folded.model[1].bn, nn.GroupNorm)
    with torch.no_grad():
        expected = folded(images)[0]
        torch.testing.assert_close(pack(folded)(images)[0], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.skipif(not packs(torch.bfloat16), reason="this torch or processor has no packed convolutions in bf16")
def test_a_packed_copy_obeys_the_autocast_around_it():
    """In bf16 it is as close to full precision as the network that torch computes in bf16."""
    model, images = thin("yolov8n"), torch.rand(2, 3, 64, 64)
    folded = fold(model)
    packs.cache_clear()  # asked for the first time below
    with torch.no_grad(), decoding_in_full(folded), for_evaluation(model) as packed:
        full = folded(images)[0]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            low, found = folded(images)[0].float(), packed(images)[0].float()
            assert packs(torch.bfloat16)
        torch.testing.assert_close(packed(images)[0], full, rtol=1e-4, atol=1e-4)  # no weights of bf16 stay behind
    error, allowed = (found - full).abs().mean(), (low - full).abs().mean()
    assert 0 < error < 1.5 * allowed


def test_a_type_that_cannot_be_packed_is_computed_as_before():
    folded = fold(thin("yolov8n")).double()
    images = torch.rand(1, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(pack(copy.deepcopy(folded))(images)[0], folded(images)[0])
