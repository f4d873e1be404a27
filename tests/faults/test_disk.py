"""A full disk, a folder that is gone, a picture that vanishes: one message, exit code 2, the last state stays."""

import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import train
from data.definition.dataset_yaml import load_dataset_yaml
from data.index.index import build_index
from data.loading.again import watched
from data.loading.dataset import TrainDataset
from tests.helpers.loops import shown
from tests.helpers.runs import run_train, state_of
from utils.config.schema import Hyp
from utils.env import REPO
from utils.errors import UserError
from utils.run.log import read_metrics

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks, with a limit of their files")
FULL = """
import os, resource, runpy, sys

event, part, left, limit = *sys.argv[1:3], int(sys.argv[3]), int(sys.argv[4])
sys.argv = sys.argv[5:]


def hook(name, args):
    global left
    if name == event and any(part in str(arg) for arg in args):
        left -= 1
        if left == 0:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    if name == "time.sleep" and left <= 0:
        print("it waits for room", file=sys.stderr)


sys.addaudithook(hook)
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def until_full(event: str, part: str, times: int, *words: object, limit: int = 100) -> tuple[int, str, str]:
    """A script for which no file may grow beyond `limit` bytes from the n-th event on; exit code, output, errors."""
    words = [sys.executable, "-c", FULL, event, part, times, limit, *words]
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, cwd=REPO)
    return done.returncode, done.stdout, done.stderr


MOMENTS = {  # what is written when it happens -> epochs of the state that stays
    "the state": ("open", "last.pt", 2, 0),
    "best.pt": ("open", "best.pt", 2, 1),
    "the table": ("open", "metrics.csv", 2, 1),
    "the curves": ("os.rename", "metrics.csv", 2, 1),
    "the plots": ("open", "losses.png", 1, 2),
}


FAST = ("the state", "best.pt", "the table")  # the others go by the same way as the table


@pytest.mark.parametrize("moment", shown(FAST, MOMENTS))
def test_a_disk_that_is_full_ends_a_run_with_a_message_and_it_goes_on_when_there_is_room(
    toy_args, tmp_path, forked_runs, moment
):
    *when, epochs = moment
    words = [*toy_args, "--epochs", 2, "--noplots", "false" if "losses.png" in when else "true", "best_metric=recall"]
    words += ["patience_from=2", "--project", tmp_path]  # each epoch is written as best.pt
    code, out, err = until_full(*when, "train.py", *words)
    assert code == 2 and err.startswith("error: ") and err.count("\n") == 1, err[-3000:]
    assert "File too large" in err and "Make room" in err and str(tmp_path) in err
    assert state_of(tmp_path / "exp")["progress"]["epoch"] == epochs and "--resume" in out
    train.main(["--resume", str(tmp_path / "exp"), "--noplots"])
    assert len(read_metrics(tmp_path / "exp/metrics.csv")) == 2


@pytest.mark.parametrize("words", [["--cache", "disk"], []], ids=["pictures", "index"])
def test_a_full_disk_of_the_cache_is_one_message(toy, toy_args, tmp_path, monkeypatch, forked_runs, words):
    """Be it met by decoded pictures or by the index of a split."""
    monkeypatch.setenv("PREHEAT_CACHE", str(tmp_path / "cache"))
    part = "pictures" if words else "index"
    words = [*toy_args, *words, "--epochs", 1, "--noval", "--project", tmp_path]
    when = ("open", f"cache/{part}", 1)
    code, _, err = until_full(*when, "train.py", *words)
    assert code == 2 and err.startswith("error: ") and err.count("\n") == 1, err[-3000:]
    assert "File too large" in err


def test_output_that_cannot_be_written_is_said(forked_runs):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", FULL, "", "", "0", "0", "train.py", "--help"], stdout=full, stderr=-1, text=True
        )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1) and "No space left on device" in done.stderr


@pytest.mark.parametrize("training", [True, False])
def test_a_run_whose_folder_is_removed_says_so(toy_args, tmp_path, training):
    """In a batch, so that it meets the table first; in an evaluation, when the state of the epoch comes first."""
    seen = []

    def remove(module: torch.nn.Module, inputs: tuple) -> None:
        if type(module).__name__ == "DetectionModel" and module.training == training:
            seen.append(module)
            if len(seen) == 2:
                (tmp_path / "exp").rename(tmp_path / "gone")  # at once, whatever is being written there

    with torch.nn.modules.module.register_module_forward_pre_hook(remove):
        with pytest.raises(UserError, match="exp.*the folder is gone"):
            run_train(
                *toy_args, "--epochs", 2, "save_every=0" if training else "save_every=1 batches", project=tmp_path
            )


@pytest.mark.slow
def test_a_picture_that_vanishes_ends_the_run_where_it_is_and_it_goes_on_when_it_is_back(toy, toy_args, tmp_path):
    data = tmp_path / "a copy"
    shutil.copytree(toy.parent, data)
    words = [*toy_args, "--data", data / "toy.yaml", "mosaic=0", "--epochs", 2]
    dataset = TrainDataset(
        build_index(load_dataset_yaml(data / "toy.yaml"), "train"), Hyp(mosaic=0, close_mosaic=0), 64
    )
    victim = Path(watched(dataset, 0, 19)[1][0])  # the last picture of the epoch
    seen = []

    def remove(module: torch.nn.Module, inputs: tuple) -> None:
        if type(module).__name__ == "DetectionModel" and module.training:
            seen.append(module)
            if len(seen) == 1:
                os.rename(victim, tmp_path / "away.jpg")

    with torch.nn.modules.module.register_module_forward_pre_hook(remove):
        with pytest.raises(UserError, match=f"{victim} cannot be read"):
            run_train(*words, project=tmp_path)
    assert state_of(tmp_path / "exp")["progress"]["ni"] == 2, "what was done until there is kept"
    os.rename(tmp_path / "away.jpg", victim)
    train.main(["--resume", str(tmp_path / "exp")])
    whole = run_train(*words, project=tmp_path, name="whole")
    for name, tensor in state_of(whole)["model"].items():
        assert torch.equal(tensor, state_of(tmp_path / "exp")["model"][name]), name


def test_the_limit_is_one(tmp_path):
    """What stands for a full disk here: a file that may not grow."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"), open(tmp_path / "file", "wb", buffering=0) as file:
            file.write(bytes(100))
            file.write(b"x")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
