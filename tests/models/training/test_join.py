"""The gradients of several ranks are those of one process over the same pictures."""

import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from data.loading.workers.shares import EpochSampler
from models.build import build_network, label
from models.loss.detection import DetectionLoss
from models.training.freeze import keep_frozen_bn_eval
from models.training.join import adding_up, join_model, share_window
from models.weights.find import read_model_yaml
from tests.helpers.loops import shown
from tests.helpers.ranks import on_ranks
from utils.config.schema import Hyp
from utils.device.ranks import Ranks

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks")
NAMES = ["a", "b", "c"]
N, BATCH = 11, 4  # pictures of an epoch, whose last batch has three


def network(family: str) -> nn.Module:
    """A narrow network in float64 whose BatchNorm is frozen: what it makes of a picture depends on no other."""
    torch.manual_seed(0)
    yaml = read_model_yaml(Path(f"{family}.yaml"))
    yaml["scales"] = {yaml["scale"]: [0.01, 0.125, 1024]}
    model = label(build_network(yaml, len(NAMES), family), NAMES).double().train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.requires_grad_(False)
    keep_frozen_bn_eval(model)
    return model


def epoch() -> dict[str, Tensor]:
    """All pictures of an epoch; of the second batch only the last has boxes, as small as they get."""
    generator = torch.Generator().manual_seed(1)
    picture = torch.tensor([0, 0, 0, 1, 3, 3, 7, 8, 8, 8, 8, 8, 9, 10], dtype=torch.float64)
    sides = torch.rand(len(picture), 2, generator=generator) * 0.5 + 0.1
    sides[picture == 7] = 0.02
    return {
        "img": torch.rand(N, 3, 64, 64, generator=generator),
        "cls": torch.randint(0, len(NAMES), (len(picture),), generator=generator).double(),
        "bboxes": torch.cat((torch.rand(len(picture), 2, generator=generator) * 0.4 + 0.3, sides), 1),
        "batch_idx": picture,
    }


def part_of(batch: dict[str, Tensor], first: int, end: int) -> dict[str, Tensor]:
    """The boxes of the pictures `first` to `end`."""
    mine = (batch["batch_idx"] >= first) & (batch["batch_idx"] < end)
    boxes = {key: batch[key][mine] for key in ("cls", "bboxes", "batch_idx")}
    return boxes | {"batch_idx": boxes["batch_idx"] - first}


def gradients(ranks: Ranks, family: str, saves_after: int) -> dict[str, Any]:
    """Gradients of a window of one epoch, and the losses of its batches; a state is saved after batch `saves_after`."""
    torch.set_default_dtype(torch.float64)
    model, whole, losses = network(family), epoch(), []
    loss_fn = DetectionLoss(model, Hyp(epochs=3), world_size=ranks.world_size)
    forward, sampler = join_model(model, ranks, False), EpochSampler(N, BATCH, ranks.rank, ranks.world_size)
    for b in range(len(sampler)):
        share = sampler.share(b)
        batch = part_of(whole, share[0], share[-1] + 1) | {"pictures": sampler.pictures(b)}
        with adding_up(forward, steps=b == len(sampler) - 1):
            loss, items = loss_fn(forward(whole["img"][share]), batch)
            (loss * ranks.world_size).backward()
        losses.append(items)
        if b == saves_after:
            share_window(model, ranks)
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {
        "gradients": found,
        "losses": torch.stack(losses),
        "smallest": min(sampler.pictures(b)[0] for b in range(3)),
    }


FAMILIES = ("yolov8n", "yolo11n", "yolo26n")


def of_families(ranks: Ranks, saves_after: int) -> dict[str, dict[str, Any]]:
    try:
        return {family: gradients(ranks, family, saves_after) for family in FAMILIES}
    finally:
        torch.set_default_dtype(torch.float32)


@cache
def alone() -> dict[str, dict[str, Any]]:
    """The same of one process; what it imports and prepares on its way the forks have, too."""
    return of_families(Ranks(0, 1, torch.device("cpu")), -1)


@pytest.mark.parametrize("world_size", shown([2], [2, 3, 4]))
def test_gradients_of_ranks_are_those_of_one_process(world_size):
    """Of a window of three batches in float64, with unequal shares, and with four ranks one that has no picture."""
    together = on_ranks(world_size, lambda ranks: of_families(ranks, 1))
    for family, one in alone().items():
        of_ranks = [families[family] for families in together]
        assert min(found["smallest"] for found in of_ranks) == (0 if world_size == 4 else 1)
        for found in of_ranks:
            torch.testing.assert_close(found["losses"], one["losses"], rtol=1e-9, atol=1e-12)
            assert found["gradients"].keys() == one["gradients"].keys(), family
            for name, expected in one["gradients"].items():
                gap = (found["gradients"][name] - expected).norm()
                assert gap <= 1e-9 * expected.norm(), f"{family}: {name}"
