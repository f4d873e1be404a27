"""What a run keeps beside best.pt: the k best epochs, the ends of cycles, and the score of their ensemble."""

import math
import shlex
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import train
import val
from models.training.kept import ends_cycle
from tests.helpers.runs import assert_same, guesser, run_train, state_of
from utils.config.schema import Hyp
from utils.errors import UserError
from utils.run.state.progress import Progress
from utils.schedule.rates import build_schedule


@given(st.lists(st.sampled_from([0.1, 0.2, 0.3, 0.4, math.nan]), max_size=12), st.integers(1, 4))
def test_the_best_are_those_of_a_sorted_list(scores, most):
    progress, there = Progress(), set()
    for progress.epoch, score in enumerate(scores, 1):
        is_kept, gone = progress.keep(score, most)
        there |= {progress.epoch} if is_kept else set()
        there -= {gone}
    numbered = [(score, epoch) for epoch, score in enumerate(scores, 1) if not math.isnan(score)]
    best = sorted(numbered, key=lambda one: (-one[0], one[1]))[:most]
    assert [tuple(one) for one in progress.kept] == best and there == {epoch for _, epoch in best}


@pytest.mark.parametrize("warmup", [0.0, 1.0, 0.5])
def test_cycles_end_where_sgdr_says(warmup):
    """After 2, 6 and 14 epochs of decay; where warm-up shifts a restart into an epoch, before that epoch."""
    kind = {"decay": "cosine_restarts", "T_0": 2, "T_mult": 2, "decay_from": "warmup", "warmup_max": 1.0}
    hyp = Hyp(epochs=16, warmup_epochs=warmup, warmup="linear" if warmup else "none", **kind)
    schedule = build_schedule(hyp, 6, 16, ("weight", "bias", "norm"))
    ends = [epoch for epoch in range(1, 16) if ends_cycle(schedule, epoch * 6)]
    assert ends == [math.floor(end + warmup) for end in (2, 6, 14) if end + warmup < 16]


@pytest.fixture(scope="module")
def kept_run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], Path]:
    """A run of five epochs with two best ones and cycles of two epochs, and its words."""
    toy = request.getfixturevalue("toy")
    words = [
        *("--weights", str(guesser()), "--data", str(toy), "--imgsz", "64", "--epochs", "5", "--batch", "8"),
        *("--workers", "0", "--noplots", "--device", "cpu", "nbs=8", "warmup=none", "decay=cosine_restarts", "T_0=2"),
        *("ema_tau=2", "lr0=0.001", "keep_best=2", "snapshots=true", "conf=0.01"),
    ]
    return words, run_train(*words, project=tmp_path_factory.mktemp("kept"), name="whole")


def test_a_run_keeps_the_best_and_the_ends_of_cycles(kept_run):
    _, folder = kept_run
    progress = state_of(folder)["progress"]
    names = {path.name for path in (folder / "weights").iterdir()}
    best = {f"best-epoch{int(epoch)}.pt" for _, epoch in progress["kept"]}
    assert (
        names
        == {"best.pt", "last.pt", "last-older.pt", "snapshot-epoch2.pt", "snapshot-epoch4.pt", "snapshot-epoch5.pt"}
        | best
    )
    assert len(best) == 2 and progress["kept"][0] == [progress["best"], progress["best_epoch"]]


@pytest.mark.slow
def test_the_ensemble_is_scored_beside_best_pt(kept_run, toy, tmp_path, capsys):
    """The line says what val.py says of the same files."""
    words, _ = kept_run
    capsys.readouterr()
    scores = train.main([*words, "--project", str(tmp_path), "--epochs", "3"])
    printed = capsys.readouterr().out
    lines = [line for line in printed.splitlines() if line.startswith("ensemble of 2")]
    assert len(lines) == 2 and "best epochs" in lines[0] and "2 snapshots (2, 3)" in lines[1]
    files = shlex.split(lines[1].partition("--weights ")[2])
    words = ["--data", str(toy), "--workers", "0", "--noplots", "--project", str(tmp_path)]
    again = val.main(["--weights", *files, *words])
    assert again["val/mAP50-95"] == pytest.approx(scores["snapshot-ensemble/mAP50-95"], abs=1e-6)


@pytest.mark.slow
def test_a_resumed_run_keeps_the_same(kept_run, tmp_path):
    words, whole = kept_run
    halves = run_train(*words, "--stop-after", "3", project=tmp_path, name="halves")
    train.main(["--resume", str(halves / "weights/last.pt")])
    assert_same(state_of(whole)["progress"] | {"hours": 0}, state_of(halves)["progress"] | {"hours": 0})
    for path in (whole / "weights").glob("*-epoch*.pt"):
        files = (path, halves / "weights" / path.name)
        assert_same(*(torch.load(file, weights_only=False)["model"].state_dict() for file in files))


def test_snapshots_need_cycles():
    with pytest.raises(UserError, match="cosine_restarts"):
        train.parse_args(["--data", "toy-target", "snapshots=true"])
