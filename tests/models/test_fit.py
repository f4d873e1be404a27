"""The smallest batch that a network can be trained on."""

import pytest
import torch

import train
from data.loading.loader import EpochSampler
from data.loading.multiscale import random_size
from models.detector import build_detector
from models.fit import require_statistics, single_values, smallest_size
from models.freeze import freeze, keep_frozen_bn_eval
from tests.helpers.runs import state_of
from utils.config.schema import Hyp
from utils.env import REPO
from utils.errors import UserError

DEMO = str(REPO / "models/demo.yaml")


def trains(model: torch.nn.Module, pictures: int, size: int) -> bool:
    """Whether torch accepts a batch in training mode."""
    model.train()
    keep_frozen_bn_eval(model)
    try:
        model(torch.zeros(pictures, 3, size, size))
    except ValueError as e:
        assert "more than 1 value per channel" in str(e)
        return False
    return True


@pytest.mark.parametrize("frozen", [None, "neck", "backbone,neck,head"])
def test_a_batch_is_refused_where_torch_cannot_normalise_it(frozen):
    model, _ = build_detector(DEMO, ["a"])
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(frozen != "backbone,neck,head" or name == "model.0.conv.weight")
    if frozen == "neck":
        freeze(model, frozen)
    for pictures in (1, 2):
        for size, hyp in ((32, Hyp(imgsz=64, multi_scale=0.5)), (64, Hyp(imgsz=64))):
            try:
                require_statistics(model, hyp, pictures)
                accepted = True
            except UserError as e:
                accepted = False
                assert "multi_scale 0.5" in str(e) and "batch 16" in str(e)
            assert accepted == trains(model, pictures, size)
    assert bool(single_values(model, 32)) == (frozen != "backbone,neck,head")
    assert model.training and not any(m._forward_pre_hooks for m in model.modules())


def test_the_smallest_batch_and_size_are_those_that_occur():
    for n in (5, 8, 9):
        for batch, ranks in ((4, 1), (4, 2), (4, 4), (16, 2)):
            samplers = [EpochSampler(n, batch, rank, ranks) for rank in range(ranks)]
            for sampler in samplers:
                assert sampler.fewest == min(len(keys) for keys in sampler)
    for imgsz, varies in ((64, 0.5), (64, 0.3), (96, 0.9), (64, 0.0)):
        sizes = [random_size(0, ni, imgsz, varies, 32) for ni in range(400)]
        assert min(sizes) == smallest_size(Hyp(imgsz=imgsz, multi_scale=varies), 32)


def test_a_run_that_meets_one_is_refused_before_its_first_batch(toy_args, tmp_path):
    """20 pictures in batches of 19 leave one."""
    for words in (("--imgsz", "32"), ("--imgsz", "64", "multi_scale=0.5")):
        with pytest.raises(UserError, match="BatchNorm"):
            train.main([*toy_args, "--batch", "19", *words, "--project", str(tmp_path), "--name", "refused"])
    train.main([*toy_args, "--batch", "19", "--epochs", "1", "--project", str(tmp_path), "--name", "larger"])
    assert state_of(tmp_path / "larger")["progress"]["ni"] == 2
