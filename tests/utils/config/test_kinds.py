"""Kinds of decay against the libraries that own the name, and keys that contradict each other."""

import math

import pytest
import torch

from tests.helpers.traces import GOLDEN, close, column, each, load, number
from utils.config.files import load_hyp_file
from utils.config.help import allowed_words
from utils.config.kinds import DECAYS, WARMUPS
from utils.config.options import parse_args
from utils.config.schema import Hyp
from utils.env import REPO
from utils.errors import UserError
from utils.schedule.gallery import OF_DECAY, OF_WARMUP
from utils.schedule.rates import build_schedule


def test_one_cycle_torch_is_torch():
    hyp = Hyp(**load_hyp_file("one-cycle-torch")[0], epochs=4)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, hyp.lr0, total_steps=4 * 11)
    schedule = build_schedule(hyp, 11, 64)
    for ni in range(4 * 11):
        rates, group = schedule(ni), optimizer.param_groups[0]
        assert (rates.lr["bias"], rates.momentum) == pytest.approx((group["lr"], group["momentum"]), rel=1e-9)
        optimizer.step()
        scheduler.step() if ni < 43 else None


def test_sgdr_is_torch():
    hyp = Hyp(**load_hyp_file("sgdr")[0] | {"T_0": 2}, epochs=14)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=hyp.lr0)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, 2, 2)
    schedule = build_schedule(hyp, 5, 64)
    for ni in range(70):
        scheduler.step(ni / 5)  # before the batch, where it belongs
        assert schedule(ni).lr["weight"] == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9, abs=1e-12)


def test_hf_cosine_is_their_formula():
    hyp = Hyp(**load_hyp_file("hf-cosine")[0], epochs=6)
    schedule = build_schedule(hyp, 10, 64)
    w, last = schedule.nw, schedule.total - 1
    for t in range(schedule.total):
        factor = t / w if t < w else 0.5 * (1 + math.cos(math.pi * (t - w) / (last - w)))
        assert schedule(t).lr["weight"] == pytest.approx(hyp.lr0 * factor, rel=1e-9, abs=1e-12)


@pytest.mark.skipif(not GOLDEN.is_dir(), reason="no traces")
@each("keras_cosine_warmup")
def test_keras_cosine_is_the_recorded_callback(name):
    """Whole runs by our keys: every batch of an epoch has the epoch's recorded rate."""
    wanted = column(load("keras_cosine_warmup")["traces"][name]["lr_per_epoch"])
    peak, lowest, nb = number(name, "init"), number(name, "min", 0.0), 4
    told = {"lr0": peak, "warmup_epochs": number(name, "_w"), "epochs": len(wanted), "min_lr": lowest}
    hyp = Hyp(**load_hyp_file("keras-cosine")[0] | told | {"warmup_start": lowest / peak})
    schedule = build_schedule(hyp, nb, 64)
    assert {schedule(ni).accumulate for ni in range(schedule.total)} == {1}
    close([schedule(ni).lr["weight"] for ni in range(schedule.total)], [lr for lr in wanted for _ in range(nb)], name)


def gradual_runs():
    """(length of the warm-up, peak, batches, recorded rates) of the traces that are whole runs."""
    for trace in (load("gradual_warmup").get("traces") or {}).values():
        for key, wanted in () if "index" in trace else trace.items():
            w, peak = int(number(key, "w")), number(key, "lr")
            if w > 1 and peak < 1:  # the original is stuck at 0 with w 1, and grows above lr 1: refused here
                yield pytest.param(w, peak, column(wanted), id=key)


@pytest.mark.skipif(not GOLDEN.is_dir(), reason="no traces")
@pytest.mark.parametrize(("w", "peak", "wanted"), gradual_runs())
def test_gradual_is_the_recorded_tutorial(w, peak, wanted):
    hyp = Hyp(**load_hyp_file("gradual")[0] | {"lr0": peak, "warmup_iters": w, "epochs": len(wanted)})
    schedule = build_schedule(hyp, 1, 64)
    close([schedule(ni).lr["bias"] for ni in range(len(wanted))], wanted, "gradual")


def test_a_kind_is_one_row():
    """The words of the schema, the help, and the picture all come from the tables."""
    for key, table, drawn in (("warmup", WARMUPS, OF_WARMUP), ("decay", DECAYS, OF_DECAY)):
        assert allowed_words(Hyp.model_fields[key]) == list(table)
        assert [keys[key] for keys in drawn.values() if key in keys] == list(table)
        default = next(
            row for row in (REPO / "hyps/default.yaml").read_text().splitlines() if row.startswith(key + ":")
        )
        missing = set(table) - set(default.rpartition("[")[2].rstrip("]").split(" | "))
        assert not missing, f"name {missing} in the line '{key}:' of hyps/default.yaml"


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["warmup=constant"], ["warmup_start", "constant"]),
        (["warmup=exponential"], ["warmup_start", "exponential"]),
        (["optimizer=sgd", "scale_lr=sqrt"], ["scale_lr", "summed"]),
        (["recipe=yolov5", "decay=step"], ["decay: step", "yolov5", "linear or cosine"]),
        (["recipe=yolov5", "clock=batch", "warmup_max=0.2"], ["clock: batch", "warmup_max: 0.2"]),
        (["recipe=yolov5", "--no-warmup"], ["warmup: none", "yolov5"]),
        (["recipe=yolov3-spp", "warmup_bias_lr=0.1"], ["warmup_bias_lr: 0.1", "null"]),
        (["decay=one_cycle_torch", "warmup=linear"], ["warmup: linear", "one_cycle_torch"]),
        (["decay=plateau", "--noval"], ["noval", "plateau"]),
        (["decay=exponential", "min_lr=0"], ["exponential", "min_lr"]),
        (["min_lr=1"], ["min_lr", "lr0"]),
        (["decay=power", "power=0.9"], ["power", "1.0001"]),
        (["decay=power", "power=1.001", "lr0=2"], ["lr0", "power"]),
        (["recipe=keras-cosine", "warmup_clock=batch"], ["warmup_clock: batch", "keras-cosine"]),
        (["milestones=[0.5, 0.2]"], ["milestones", "rise"]),
        (["warmup=none", "warmup_epochs_head=1"], ["warmup_epochs_head", "off"]),
        (["recipe=yolo5"], ["recipe", "Did you mean 'yolov5'?"]),
    ],
)
def test_contradictions_are_refused_by_name(words, parts):
    with pytest.raises(UserError) as error:
        parse_args(words)
    assert all(part in str(error.value) for part in parts), str(error.value)
