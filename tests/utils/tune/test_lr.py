"""tune.py lr on a tiny network: the steps of a run, weights as before, numbers and picture in the folder."""

import copy
import json
from contextlib import contextmanager

import numpy as np
import pytest
import torch

import tune
from tests.helpers.runs import run_train
from utils.config.options import parse_args
from utils.errors import UserError
from utils.run.log import read_scalars
from utils.tune.lr.main import ramp_up
from utils.tune.lr.ramp import rates
from utils.tune.options import Lr, read_run, run_words, train_line


def find(toy_args, tmp_path, *words: str) -> dict:
    return tune.main(["lr", *toy_args, "--steps", "20", "--seeds", "2", "--project", str(tmp_path), *words])


@pytest.mark.slow
def test_a_range_test_from_the_command_line_to_its_folder(toy_args, tmp_path, capsys):
    result = find(toy_args, tmp_path)
    assert json.loads((tmp_path / "lr/lr.json").read_text()) == result and (tmp_path / "lr/lr.png").stat().st_size
    for k, ramp in enumerate(result["ramps"]):
        n = len(ramp["lr"])
        assert ramp["seed"] == k and n == len(ramp["loss"]) and (n == 20 or ramp["diverged"])
        np.testing.assert_allclose(ramp["lr"], rates(1e-6, 1.0, 20)[:n])
    again = find(toy_args, tmp_path)
    assert again["ramps"] == result["ramps"] and (tmp_path / "lr2/lr.json").is_file()
    line = result["train"]
    if line:
        _, hyp, _ = parse_args(line.split()[2:])
        assert hyp.lr0 == pytest.approx(result["suggestions"]["middle"]["lr"], rel=0.05) and hyp.imgsz == 64
        assert line in capsys.readouterr().out


@pytest.mark.slow
def test_the_first_step_sees_what_the_first_batch_of_a_run_sees(toy_args, tmp_path):
    words = [*toy_args, "nbs=8", "--seed", "3"]
    ramp = find([*words], tmp_path)["ramps"][0]
    told = read_scalars(run_train(*words, "--epochs", "1", project=tmp_path), ("train/box", "train/cls", "train/dfl"))
    assert ramp["seed"] == 3
    assert ramp["loss"][0] == pytest.approx(sum(told[f"train/{part}"][0] for part in ("box", "cls", "dfl")), rel=1e-5)


def test_a_group_is_moved_alone_and_weights_come_back(toy_args, tmp_path):
    options, command, hyp, _, _ = read_run([*toy_args, "--group", "bias", "--steps", "20", "--lr-to", "10"], Lr)
    begun = []

    class Watched(tune.Bench):
        @contextmanager
        def begin(self):
            with super().begin() as start:
                begun.append((start.training, copy.deepcopy(start.training.model.state_dict())))
                yield start

    ramp_up(Watched(**vars(tune.open_bench(command, hyp))), options)
    [(training, before)] = begun
    assert all(torch.equal(v, before[k]) for k, v in training.model.state_dict().items())
    lr = {group["name"]: group["lr"] for group in training.optimizer.param_groups}
    assert lr["weight"] == lr["norm"] == hyp.lr0 and lr["bias"] != hyp.lr0


def test_a_full_disk_is_one_message_and_the_numbers_come_first(toy_args, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", full)
    with pytest.raises(UserError, match="No space left on device. Make room"):
        find(toy_args, tmp_path, "--seeds", "1")
    assert json.loads((tmp_path / "lr/lr.json").read_text())["ramps"]


def test_words_that_cannot_be_understood_are_named(toy_args, tmp_path):
    for words, message in (
        ([], "name a command of tune.py"),
        (["lrr"], "'lrr' is no command.*lr"),
        (["lr", "--stepz", "5"], "stepz.*steps"),
        (["lr", "--resume"], "resume"),
        (["lr", *toy_args, "--lr-to", "1e-6"], "at least ten times"),
    ):
        with pytest.raises(UserError, match=message):
            tune.main(words)


def test_the_line_of_train_py_says_what_was_given():
    given = {"lr0": 0.3, "hyp": "finetune", "classes": ["a b", "c"], "noplots": True, "weight_decay": None}
    line = train_line(run_words(given), lr0=0.002)
    assert line.startswith("python train.py --hyp finetune ") and "--lr0 0.002" in line and "0.3" not in line
    assert "'[a b, c]'" in line and "--noplots true" in line
