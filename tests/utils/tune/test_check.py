"""tune.py check: what each step says of made-up numbers, plans within a budget, and the whole thing at toy size."""

import copy
import json
import math
import signal
import time

import numpy as np
import pytest
import torch

import tune
from models.detector import build_detector
from models.inference.features import statistics_apart
from models.training.steps import with_priors
from tests.helpers import forked
from tests.helpers.runs import TINY, TOY_NAMES
from utils.config.options import parse_args
from utils.config.schema import Hyp
from utils.errors import UserError
from utils.tune.check.curves import of_curves
from utils.tune.check.lecture import (
    BAD,
    GOOD,
    LOOK,
    Trial,
    at_start,
    by_heart,
    falling,
    of_grid,
    of_longer,
)
from utils.tune.check.transfer import next_commands, transfer
from utils.tune.check.trials import plan_grid, plan_longer, seconds_of

IMPLIED = {"box": 3.0, "cls": 4.5, "dfl": 4.2}


def rows(scores, train=(), val=()) -> list[dict[str, float]]:
    found = [{"epoch": k + 1.0, "val/mAP50-95": y} for k, y in enumerate(scores)]
    for row, a, b in zip(found, train, val, strict=False):
        row |= {"train/box": a, "train/cls": 0.0, "train/dfl": 0.0, "val/box": b, "val/cls": 0.0, "val/dfl": 0.0}
    return found


def test_the_loss_at_the_start_is_held_against_what_the_priors_imply():
    assert at_start({"box": 1.4, "cls": 4.6, "dfl": 1.2}, IMPLIED, []).verdict == GOOD
    assert at_start({"box": 1.4, "cls": 12.0, "dfl": 1.2}, IMPLIED, []).verdict == LOOK
    assert at_start({"box": 1.4, "cls": 80.0, "dfl": 1.2}, IMPLIED, []).verdict == BAD
    assert at_start({"box": math.nan, "cls": 4.0, "dfl": 1.2}, IMPLIED, []).verdict == BAD


def test_few_pictures_by_heart():
    assert by_heart([(60, 0.5), (120, 0.97)], 8, 0.0).verdict == GOOD
    found = by_heart([(60, 0.1), (480, 0.2)], 8, 0.4)
    assert found.verdict == BAD and "raise --imgsz" in found.advice and "labels" in found.advice
    cut = by_heart([(9, 0.1)], 8, 0.0, cut=True)  # which proves nothing
    assert cut.verdict == LOOK and "--minutes" in cut.advice
    assert "imgsz.{" not in found.advice and by_heart([(60, 0.6)], 8, 0.0).verdict == LOOK


def test_rates_that_lower_the_loss():
    down, flat = np.linspace(9, 4, 50), np.full(50, 9.0)
    assert falling({0.1: flat, 0.01: down}, 0.01, 100).verdict == GOOD
    assert "within 60 batches" in falling({0.1: flat, 0.01: down}, 0.01, 60).title
    found = falling({0.1: flat, 0.01: down}, 0.1, 100)
    assert found.verdict == LOOK and "try 0.01" in found.advice
    assert falling({0.1: flat, 0.01: [9.0, math.nan]}, 0.1, 100).verdict == BAD


def test_a_grid_whose_best_rate_is_at_its_edge():
    def grid(scores):
        return of_grid([Trial(lr, 0.0005, s) for lr, s in zip((0.001, 0.003, 0.01), scores, strict=True)], 2)

    assert grid((0.1, 0.2, 0.15)).verdict == GOOD
    assert "higher" in grid((0.1, 0.2, 0.25)).advice and "lower" in grid((0.3, 0.2, None)).advice
    assert grid((None, None, None)).verdict == BAD
    assert of_longer([Trial(0.1, 0, 0.4)], [Trial(0.1, 0, 0.3)], 9).verdict == GOOD
    assert of_longer([Trial(0.1, 0, None)], [Trial(0.1, 0, 0.3)], 9).verdict == LOOK


def test_learning_curves_are_read():
    assert "more epochs" in of_curves(rows(np.linspace(0.1, 0.5, 12))).advice
    assert "Flat at first" in of_curves(rows([0.001] * 5 + [0.3, 0.4, 0.41, 0.41, 0.41, 0.41])).advice
    assert "Falling" in of_curves(rows([0.1, 0.3, 0.5, 0.5, 0.4, 0.3, 0.3, 0.2])).advice
    steady = [0.3, 0.4, 0.45, 0.5, 0.5, 0.5, 0.5, 0.5]
    apart = of_curves(rows(steady, np.linspace(4, 1, 8), [3, 2, 1.5, 1.5, 1.6, 1.8, 2.0, 2.2]))
    assert "more augmentation" in apart.advice
    assert "No gap" in of_curves(rows(steady, np.linspace(4, 2, 8), np.linspace(4, 2, 8))).advice
    assert of_curves(rows([0.1, 0.2])).verdict == LOOK


def test_a_rate_that_fell_while_the_score_rose_is_named():
    def read(scores, lrs):
        found = rows(scores)
        for row, lr in zip(found, lrs, strict=True):
            row["lr/weight"] = lr
        return of_curves(found)

    rising, lrs = [0.1, 0.2, 0.3, 0.4, 0.5, 0.501, 0.501, 0.502, 0.502, 0.502], [0.01] * 5 + [0.0005] * 5
    early = read(rising, lrs)
    assert early.verdict == LOOK and "Decayed too early" in early.advice and "epoch 6" in early.evidence
    for scores, rates in (
        (rising, [0.01] * 10),  # a rate that is held
        ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95], lrs),  # it rises on
        ([0.1, 0.3, 0.45, 0.49, 0.5, 0.501, 0.501, 0.502, 0.502, 0.502], [0.01] * 9 + [0.0005]),  # flat long before
        (rising, [math.nan] * 10),
    ):
        assert "Decayed too early" not in read(scores, rates).advice


@pytest.mark.parametrize(
    ("pictures", "apart", "first"), [(100, 0.1, "few"), (100, 2.0, "few"), (9999, 0.1, "many"), (9999, None, "many")]
)
@pytest.mark.parametrize("known", [0, 2])
def test_each_case_of_transfer_has_arms_that_compare_py_takes(pictures, apart, first, known):
    """What counts as near is the pictures: classes of the same name prove nothing, and are told."""
    case, arms = transfer(pictures, ["a", "b"][:known], ["a", "b"], 20, apart)
    assert case.startswith(first) and ("near" in case) == (apart == 0.1) and len(arms) >= 2
    assert f"{known} of 2 classes" in case
    for own in arms.values():
        parse_args(["--hyp", "finetune", "--weights", "w.pt", "--data", "d.yaml", *own])
    assert all(
        "as-set" in line or "train.py" in line for line in next_commands("--hyp demo", Trial(0.1, 0, 1), arms, 9)
    )


def test_pictures_that_a_network_learnt_from_are_near_and_others_are_not():
    model, _ = build_detector(str(TINY), TOY_NAMES)
    torch.manual_seed(0)
    pictures = torch.rand(8, 3, 64, 64)
    assert statistics_apart(model, [pictures]) is None  # a fresh network has seen none
    for norm in (m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)):
        norm.momentum = 1.0  # it remembers the last batch alone
    model.train()(pictures)
    before = copy.deepcopy(model.state_dict())
    same, darker = statistics_apart(model, [pictures[:4], pictures[4:]]), statistics_apart(model, [pictures / 4])
    assert same < 0.01 and darker > 10 * same and model.training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert not any(m._forward_pre_hooks for m in model.modules())


def test_a_plan_keeps_to_its_budget():
    hyp = Hyp(epochs=50)
    for left in (10, 60, 200, 1000, 9000):
        points, epochs = plan_grid(hyp, 0.01, left, 4.0, 2)
        assert not points or seconds_of(epochs, 4.0, len(points), 2) <= left
        runs, longer = plan_longer(hyp, max(epochs, 1), left, 4.0, 2)
        assert not runs or (seconds_of(longer, 4.0, runs, 2) <= left and longer >= 2 * epochs)
    assert plan_grid(hyp, 0.01, 10, 4.0, 2) == ([], 0) and plan_longer(hyp, 1, 10, 4.0, 2) == (0, 0)
    assert len(plan_grid(hyp, 0.01, 9000, 4.0, 2)[0]) == 6 and plan_longer(hyp, 5, 90000, 4.0, 2) == (3, 50)


def test_a_network_that_knows_its_priors_only_answers_alike_everywhere():
    model, _ = build_detector(str(TINY), TOY_NAMES)
    before = copy.deepcopy(model.state_dict())
    naive = with_priors(model).train()
    scores = naive(torch.rand(2, 3, 64, 64))["scores"]  # (b, nc, a)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    levels = scores[0].unique()
    expected = [math.log(5 / 4 / (640 / s) ** 2) for s in model.stride.tolist()]
    assert sorted(levels.tolist()) == pytest.approx(sorted(expected))


def test_ctrl_c_keeps_what_is_finished(toy_args, tmp_path):
    """In step 2, so that step 1 is made; the same command makes it no more, and ends when the minutes are over."""
    words = ["check", *toy_args, "--pictures", "2", "--project", str(tmp_path), "lr0=1e-9"]
    process = forked.start("tune.py", *words, folder=tmp_path)
    place = tmp_path / "check/check.json"
    end = time.monotonic() + 120
    while time.monotonic() < end and not (place.is_file() and json.loads(place.read_text())["findings"]):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert "kept: 1 finished steps" in (tmp_path / "out.txt").read_text()
    kept = json.loads(place.read_text())
    assert list(kept["findings"]) == ["1"] and kept["seconds"] > 0
    assert tune.main([*words, "--minutes", "1e-9"])["findings"].keys() == {1}


def test_a_full_disk_ends_a_check_with_one_message(toy_args, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(UserError, match="check.json: No space left on device. Make room"):
        tune.main(["check", *toy_args, "--project", str(tmp_path)])


@pytest.mark.slow
def test_a_check_from_the_command_line_to_its_page(toy_args, tmp_path, forked_runs, monkeypatch):
    monkeypatch.setattr("utils.tune.check.tries.BLOCKS", (10, 10))
    words = ["check", *toy_args, "--pictures", "4", "--minutes", "20", "--jobs", "2", "--project", str(tmp_path)]
    result = tune.main(words)
    folder = tmp_path / "check"
    content = json.loads((folder / "check.json").read_text())
    assert sorted(result["findings"]) == [1, 2, 3, 4, 5, 6] and len(content["numbers"]["trials4"]) == 6
    page = (folder / "check.html").read_text()
    assert all(f"{k}. " in page for k in range(1, 7)) and "<script" not in page and "compare.py" in page
    runs = {place: place.stat().st_mtime_ns for place in (folder / "runs").glob("*/metrics.csv")}
    del content["findings"]["5"], content["findings"]["6"]
    (folder / "check.json").write_text(json.dumps(content))
    assert tune.main(words)["findings"] == result["findings"]  # the same folder, and no run is made again
    assert runs == {place: place.stat().st_mtime_ns for place in (folder / "runs").glob("*/metrics.csv")}
    assert not (tmp_path / "check2").exists()
