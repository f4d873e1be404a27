"""train.py and val.py with an anchor-based network, as a user runs them, at toy size."""

import csv
from pathlib import Path

import pytest
import torch
import yaml

import train
import val
from models.detector import load_for_eval
from tests.helpers.runs import assert_same, replaced, run_train, state_of
from tests.models.anchor.test_anchor import TINY
from utils.errors import UserError
from utils.run.log import read_metrics


@pytest.fixture
def anchor_args(toy_args, tmp_path) -> list:
    """Options of a short run of an anchor-based network from random weights."""
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(TINY | {"nc": 80}))
    return replaced(toy_args, "--weights", tmp_path / "tiny.yaml")


@pytest.mark.slow
def test_a_run_trains_evaluates_and_resumes_exactly(anchor_args, tmp_path, toy):
    words = [*anchor_args, "--freeze", 1, "best_metric=val_loss"]
    whole = run_train(*words, project=tmp_path, name="whole")
    halves = run_train(*words, "--stop-after", 1, project=tmp_path, name="halves")
    train.main(["--resume", str(halves / "weights/last.pt")])
    a, b = state_of(whole), state_of(halves)
    for key in ("model", "ema", "optimizer", "loss", "random", "gradients"):
        assert_same(a[key], b[key], key)
    rows = read_metrics(whole / "metrics.csv")
    assert {"train/box", "train/obj", "train/cls", "val/box", "val/obj", "val/cls"} <= rows[-1].keys()
    assert rows[-1]["train/obj"] < rows[0]["train/obj"]
    assert all(row["lr/bias"] >= 0 for row in rows)
    hyp = yaml.safe_load((whole / "hyp.yaml").read_text())
    assert (hyp["gains"], hyp["box"]) == ("anchor-based", 0.05), "what was used is written down"

    metrics = val.main(
        [
            "--weights",
            str(whole / "weights/best.pt"),
            "--data",
            str(toy),
            "--noplots",
            "--project",
            str(tmp_path / "val"),
        ]
    )
    with open(whole / "metrics.csv", newline="") as file:
        scored = [float(row["val/mAP50-95"]) for row in csv.DictReader(file) if row["val/mAP50-95"]]
    assert metrics["val/mAP50-95"] in scored, "best.pt answers as the epoch that it was saved of"


def test_last_pt_and_best_pt_are_weights_to_go_on_from(anchor_args, tmp_path):
    first = run_train(*replaced(anchor_args, "--epochs", 1), project=tmp_path, name="first")
    for name in ("best.pt", "last.pt"):
        path = first / "weights" / name
        loaded = load_for_eval(str(path))
        assert list(loaded.names.values()) == ["mug", "key", "leaf", "bolt"] and loaded.args["imgsz"] == 64
        again = run_train(
            *replaced(replaced(anchor_args, "--epochs", 1), "--weights", path), project=tmp_path, name=f"from {name}"
        )
        rows = read_metrics(again / "metrics.csv")
        assert [row["epoch"] for row in rows] == [0, 1], "all classes were carried over, so epoch 0 has a score"


def test_plan_of_an_anchor_based_network(anchor_args, capsys):
    train.answered([str(word) for word in anchor_args] + ["--plan"])
    assert "warm-up" in capsys.readouterr().out
    with pytest.raises(UserError, match="gains=anchor-based"):
        train.answered([str(word) for word in anchor_args] + ["--plan", "box=3"])


def test_hyp_file_of_yolov5_has_its_network(anchor_args, tmp_path, toy_args):
    file = tmp_path / "hyp.scratch-low.yaml"
    file.write_text(
        "lr0: 0.01\nlrf: 0.01\nmomentum: 0.937\nweight_decay: 0.0005\nwarmup_epochs: 1.0\nwarmup_momentum: 0.8\n"
        "warmup_bias_lr: 0.1\nbox: 0.04\ncls: 0.5\ncls_pw: 1.0\nobj: 0.9\nobj_pw: 1.0\niou_t: 0.2\nanchor_t: 3.5\n"
        "fl_gamma: 0.0\nhsv_h: 0.015\nhsv_s: 0.7\nhsv_v: 0.4\nmosaic: 1.0\nmixup: 0.0\ncopy_paste: 0.0\n"
    )
    words = [*replaced(anchor_args, "--epochs", 1), "--noval", "--hyp", file, "recipe=yolov5"]
    folder = run_train(*[w for w in words if not str(w).startswith(("warmup_epochs",))], project=tmp_path)
    hyp = yaml.safe_load((folder / "hyp.yaml").read_text())
    assert {key: hyp[key] for key in ("box", "cls", "obj", "anchor_t")} == {
        "box": 0.04, "cls": 0.5, "obj": 0.9, "anchor_t": 3.5,
    }  # fmt: skip
    with pytest.raises(UserError, match="anchor-based loss"):
        train.main([str(word) for word in [*toy_args, "--hyp", file, "--project", tmp_path]])


def test_best_pt_is_no_pickle_of_classes(anchor_args, tmp_path):
    folder = run_train(*replaced(anchor_args, "--epochs", 1), "--noval", project=tmp_path)
    content = torch.load(folder / "weights/best.pt", weights_only=True)
    assert content["stride"] == [4.0, 8.0] and content["yaml"]["anchors"] == TINY["anchors"]
    with pytest.raises(UserError, match="last.pt"):
        train.main(["--resume", str(Path(folder) / "weights/best.pt")])


@pytest.mark.slow
def test_run_with_autoanchor_keeps_its_anchors_and_resumes_exactly(anchor_args, tmp_path):
    words = [*anchor_args, "--noval", "--autoanchor"]
    whole = run_train(*words, project=tmp_path, name="whole")
    halves = run_train(*words, "--stop-after", 1, project=tmp_path, name="halves")
    train.main(["--resume", str(halves / "weights/last.pt")])
    a, b = state_of(whole), state_of(halves)
    assert_same(a["model"], b["model"])
    anchors = load_for_eval(str(whole / "weights/best.pt")).model[-1].pixels
    assert not torch.allclose(anchors, torch.tensor(TINY["anchors"]).view_as(anchors).float(), rtol=0.01)
    torch.testing.assert_close(anchors, torch.tensor(a["yaml"]["anchors"]).view_as(anchors), rtol=2e-3, atol=0)
