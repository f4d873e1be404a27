"""The smallest batch that a network can be trained on, and the search for the largest."""

import weakref

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

import train
from data.definition.dataset_yaml import load_dataset_yaml
from data.index.index import build_index
from data.loading.dataset import TrainDataset
from data.loading.device.prepare import colour_change
from data.loading.multiscale import random_size
from data.loading.order import most_boxes
from data.loading.workers.shares import EpochSampler
from models.detector import build_detector
from models.loss.detection import DetectionLoss
from models.training.fit import (
    Demand,
    largest_fitting,
    largest_size,
    require_statistics,
    single_values,
    smallest_size,
    told_when_full,
    trial_step,
    trial_work,
)
from models.training.freeze import freeze, keep_frozen_bn_eval
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
            assert {sampler.fewest for sampler in samplers} == {min(len(keys) for s in samplers for keys in s)}
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


@given(st.integers(0, 70), st.integers(1, 2), st.integers(1, 64))
def test_the_largest_batch_is_found_within_an_eighth(limit, first, most):
    asked = []

    def fits(batch: int) -> bool:
        asked.append(batch)
        return batch <= limit

    found = largest_fitting(fits, first, most)
    assert all(first <= batch <= most for batch in asked) and len(asked) == len(set(asked)) <= 12
    if limit < first or most < first:
        assert found == 0
    else:
        assert found <= min(limit, most) and (found == most or found + max(found // 8, 1) > limit)


def test_a_trial_step_is_a_step_of_training():
    """Every weight gets its gradient, and the criterion sees as many boxes as were asked for."""
    model, _ = build_detector(DEMO, ["a", "b"])
    loss_fn, sizes = DetectionLoss(model, Hyp()), []
    for boxes in (1, 9):
        with Shapes() as shapes:
            assert trial_step(model.train(), loss_fn, 2, 64, boxes, None, torch.device("cpu")) > 0
        sizes.append({shape for shape in shapes.seen if shape[:1] == (2,)})
        assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    assert (2, 9, 5) in sizes[1] and (2, 1, 5) in sizes[0] and (2, 9, 5) not in sizes[0]


@pytest.mark.parametrize(("graph", "varies"), [(False, 0.0), (True, 0.0), (True, 0.5)])
@pytest.mark.parametrize("later", [False, True])
def test_what_a_run_holds_at_once_is_all_tried(graph, varies, later):
    """Recorded steps beside plain ones at the largest size, and colours of whole batches, each with its own memory."""
    hyp = Hyp(imgsz=64, graph=graph, multi_scale=varies, hsv_on="device" if later else "host", amp="off")
    model, _ = build_detector(DEMO, ["a", "b"])
    seen: list[tuple[str, tuple[int, ...]]] = []
    model.register_forward_pre_hook(lambda _, images: seen.append(("plain", tuple(images[0].shape))))

    def capture(body: torch.nn.Module, sample: tuple[torch.Tensor, ...]):
        seen.append(("recorded", tuple(sample[0].shape)))
        return lambda images: body(images)

    demand = Demand(3, np.ones(2), colour_change(hyp))
    size = largest_size(hyp, 32)
    works = trial_work(model.train(), DetectionLoss(model, Hyp()), 2, size, hyp, demand, capture)
    assert len(works) == 1 + later
    with Shapes() as shapes:
        works[-1]()
    assert ((2, 3, size, size) in shapes.seen) == later or not later
    works[0]()
    recorded = [("recorded", (2, 3, 64, 64)), ("plain", (2, 3, 64, 64))]
    assert seen[-3 if graph else -1 :] == [*(recorded if graph else []), ("plain", (2, 3, size, size))]


class Shapes(TorchDispatchMode):
    """The shapes of all tensors that are made."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[tuple[int, ...]] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor):
            self.seen.add(tuple(out.shape))
        return out


def test_a_full_gpu_gives_one_message_with_a_batch_that_fits():
    """What the failed step held is gone when the batch is looked for."""
    held = []

    def fail() -> None:
        activations = torch.zeros(3)
        held.append(weakref.ref(activations))
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")

    def largest(most: int) -> int:
        assert held[0]() is None
        return min(most, 5)

    with pytest.raises(UserError, match="--batch 10 would fit"), told_when_full(Hyp(batch=32), 2, largest):
        fail()
    with told_when_full(Hyp(), 1, largest):
        pass


@pytest.mark.parametrize(("imgsz", "varies"), [(64, 0.5), (64, 0.3), (96, 0.9), (64, 0.0)])
def test_the_largest_size_occurs(imgsz, varies):
    hyp = Hyp(imgsz=imgsz, multi_scale=varies)
    assert max(random_size(0, ni, imgsz, varies, 32) for ni in range(400)) == largest_size(hyp, 32)


@pytest.mark.parametrize("mosaic", [0.0, 1.0])
def test_no_more_boxes_are_expected_than_a_picture_can_have(toy, mosaic):
    index = build_index(load_dataset_yaml(toy), "train")
    hyp = Hyp(imgsz=64, epochs=3, mosaic=mosaic, close_mosaic=0)
    expected, dataset = most_boxes(index, mosaic, 0.0), TrainDataset(index, hyp, 64)
    seen = [len(dataset[(epoch, k)]["cls"]) for epoch in range(2) for k in range(index.n)]
    assert np.mean(seen) <= expected <= dataset.most_boxes
