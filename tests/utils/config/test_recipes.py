"""The recipes against their originals' loops, written down literally and run with any numbers; no recordings needed."""

import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.traces import rates_of_original, steps_of_original
from utils.config.recipes import RECIPES
from utils.config.schema import Hyp
from utils.schedule.rates import build_schedule, scaled_weight_decay

Batch = tuple[int, float, float, float, int, int]  # ni, lr of biases and weights, momentum, accumulate, batches stepped


def decay_factor(cosine: bool, epochs: int, lrf: float) -> Callable[[int], float]:
    """lf(epoch) of YOLOv5 and ultralytics."""
    if cosine:
        return lambda x: (1 - math.cos(x * math.pi / epochs)) / 2 * (lrf - 1) + 1
    return lambda x: (1 - x / epochs) * (1 - lrf) + lrf


def warmup_length(recipe: str, hyp: Hyp, nb: int) -> int:
    """nw in the three loops."""
    if recipe == "yolov5":
        return max(round(hyp.warmup_epochs * nb), 100)
    if recipe == "ultralytics-8.3":
        return max(round(hyp.warmup_epochs * nb), 100) if hyp.warmup_epochs > 0 else -1
    return round(min(hyp.warmup_epochs, max(hyp.epochs - 1, 0)) * nb)


def ultralytics_loop(hyp: Hyp, nb: int, batch: int, start: int) -> Iterator[Batch]:
    """The loop of YOLOv5 v7.0, ultralytics 8.3 or 8.4, from epoch `start`, with scheduler and warm-up as they run."""
    lf, recipe = decay_factor(hyp.decay == "cosine", hyp.epochs, hyp.lrf), hyp.recipe
    accumulate, last, window = max(round(hyp.nbs / batch), 1), -1, 0
    if recipe == "ultralytics":
        accumulate = min(accumulate, nb * hyp.epochs)
    nw, target = warmup_length(recipe, hyp, nb), accumulate if recipe == "ultralytics" else hyp.nbs / batch
    bias = weight = hyp.lr0 * (lf(start - 1) if start else 1.0)
    momentum = hyp.momentum
    for epoch in range(start, hyp.epochs):
        if recipe == "yolov5":
            window = 0  # optimizer.zero_grad()
        else:
            bias = weight = hyp.lr0 * lf(epoch)  # scheduler.step()
        for ni in range(nb * epoch, nb * (epoch + 1)):
            if ni <= nw and (nw or recipe != "ultralytics"):
                accumulate = max(1, int(np.interp(ni, [0, nw], [1, target]).round()))
                bias, weight = (
                    float(np.interp(ni, [0, nw], [a, hyp.lr0 * lf(epoch)])) for a in (hyp.warmup_bias_lr, 0)
                )
                if hyp.optimizer == "sgd":
                    momentum = float(np.interp(ni, [0, nw], [hyp.warmup_momentum, hyp.momentum]))
            window += 1
            step = ni - last >= accumulate
            yield ni, bias, weight, momentum, accumulate, window if step else 0
            last, window = (ni, 0) if step else (last, window)
        if recipe == "yolov5":
            bias = weight = hyp.lr0 * lf(epoch)  # scheduler.step(), one epoch late


def spp_loop(hyp: Hyp, nb: int, batch: int, start: int) -> Iterator[Batch]:
    """The loop of yolov3_spp from epoch `start`; after a resume its first epoch runs at lr0."""
    window = 0
    for epoch in range(start, hyp.epochs):
        warming, length = epoch == 0, min(1000, nb - 1)
        accumulate = 1 if warming else max(round(hyp.nbs / batch), 1)
        for i in range(nb):
            factor = 0.001 * (1 - i / length) + i / length if warming and i < length else 1.0
            if not warming and epoch > start:
                factor = (1 + math.cos(epoch * math.pi / hyp.epochs)) / 2 * (1 - hyp.lrf) + hyp.lrf
            ni = i + nb * epoch
            window += 1
            step = ni % accumulate == 0
            yield ni, hyp.lr0 * factor, hyp.lr0 * factor, hyp.momentum, accumulate, window if step else 0
            window = 0 if step else window


@st.composite
def originals(draw) -> tuple[Hyp, int, int, int]:
    """(hyp, nb, batch, first epoch) of a run under a recipe."""
    recipe = draw(st.sampled_from(sorted(set(RECIPES) - {"preheat", "keras-cosine"})))
    values = {"recipe": recipe, "epochs": draw(st.integers(1, 8)), "nbs": draw(st.sampled_from([64, 64, 16, 100]))}
    if recipe != "yolov3-spp":
        values |= {
            "warmup_epochs": draw(st.sampled_from([0.0, 0.5, 1.7, 2.5, 3.0, 8.0])),
            "decay": draw(st.sampled_from(["linear", "cosine"])),
            "optimizer": draw(st.sampled_from(["sgd", "adamw"])),
        }
    batch = draw(st.sampled_from([1, 3, 5, 8, 10, 16, 24, 48, 64, 128]))
    start = draw(st.integers(0, values["epochs"] - 1))
    return Hyp(**values), draw(st.integers(1, 130)), batch, start


@settings(max_examples=150)
@given(originals())
def test_recipe_is_its_original(run):
    hyp, nb, batch, start = run
    loop = spp_loop if hyp.recipe == "yolov3-spp" else ultralytics_loop
    schedule = build_schedule(hyp, nb, batch)
    done = dict(steps_of_original(schedule, start=start * nb))
    for ni, bias, weight, momentum, accumulate, window in loop(hyp, nb, batch, start):
        rates = rates_of_original(schedule, ni, start * nb)
        mine = [rates.lr["bias"], rates.lr["weight"], rates.lr["norm"], rates.momentum]
        assert mine == pytest.approx([bias, weight, weight, momentum], rel=1e-9, abs=1e-12), ni
        assert (rates.accumulate, done.get(ni, 0)) == (accumulate, window), ni


def test_facts_that_are_no_curve():
    def built(recipe: str):
        return build_schedule(Hyp(recipe=recipe), 10, 16)

    assert [built(name).decays_all for name in RECIPES] == [name == "yolov3-spp" for name in RECIPES]
    assert [built(name).scales_weight_decay for name in RECIPES] == [name != "yolov3-spp" for name in RECIPES]
    assert scaled_weight_decay(Hyp(recipe="yolov3-spp"), 128) == Hyp().weight_decay
    assert built("yolov3-spp").loss_factor(0, 16) == 1 / 16, "epoch 0 steps after every batch"
    assert built("yolov3-spp").loss_factor(10, 16) == 1 / 64, "a mean over the batch, divided by accumulate"
    assert {built(name).loss_factor(10, 16) for name in RECIPES if name != "yolov3-spp"} == {1.0}
    assert [ni for ni in range(30) if built("yolov5").drops_at(ni)] == [0, 10, 20]
    assert not any(built("preheat").drops_at(ni) for ni in range(30))
