"""--profile: a trace that TensorBoard finds, five lines in plain words, and the same run as without it."""

import gzip
import json

import pytest
import torch

import train
from utils.run.profile import TRACE, advice, kind_of


@pytest.mark.slow
def test_a_profiled_run_says_where_its_time_goes_and_is_the_same_run(toy_args, tmp_path, caplog, capfd):
    options = [*toy_args, "--epochs", "2", "--project", str(tmp_path), "--noval"]
    train.main([*options, "--name", "plain"])
    capfd.readouterr()
    train.main([*options, "--name", "profiled", "--profile"])
    lines = [line for line in capfd.readouterr().out.splitlines() if line.startswith("profile  ")]
    assert len(lines) == 5
    assert "3 batches" in lines[0] and ("loader-bound" in lines[1]) != ("step-bound" in lines[1])
    assert "convolution" in lines[2] and "to try" in lines[4]
    with gzip.open(tmp_path / "profiled" / TRACE) as file:
        names = {event.get("name") for event in json.load(file)["traceEvents"]}
    assert {"aten::convolution", "aten::convolution_backward"} <= names
    plain, profiled = (
        torch.load(tmp_path / name / "weights/last.pt", weights_only=True)["model"] for name in ("plain", "profiled")
    )
    assert all(torch.equal(tensor, profiled[key]) for key, tensor in plain.items())


@pytest.mark.parametrize(
    ("operator", "kind"),
    [("aten::mkldnn_convolution", "convolution"), ("aten::native_batch_norm_backward", "BatchNorm")]
    + [("aten::silu_", "activation"), ("aten::_foreach_lerp_", "optimizer and EMA"), ("aten::gather", "rest")],
)
def test_operators_are_told_by_their_names(operator, kind):
    assert kind_of(operator) == kind


def test_advice_follows_what_holds_the_run_up():
    waiting, idle, busy = advice(0.5, "off", True, 0.4), advice(0.01, "fp16", True, 0.4), advice(0.01, "off", False, 1)
    assert "--workers" in waiting and "--batch" in idle and "--amp" in busy
    assert "--amp" not in advice(0.01, "bf16", False, 1)
