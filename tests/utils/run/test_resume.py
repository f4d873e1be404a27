"""A run that is killed at any instant, and gone on with, ends as the one that was never stopped, bit for bit."""

import json
import signal
from pathlib import Path

import pytest
import torch

import train
from tests.helpers.loops import shown
from tests.helpers.runs import TINY, assert_equal_runs, run_train, state_of
from tests.utils.run.interrupted import run_until
from utils.errors import UserError
from utils.run.log import read_metrics, read_scalars
from utils.run.state.progress import Progress


@pytest.fixture(scope="module")
def words(toy) -> list[str]:
    return [
        *("--weights", str(TINY), "--data", str(toy), "--imgsz", "64", "--epochs", "2"),
        *("--batch", "4", "--workers", "0", "nbs=12", "warmup_epochs=1", "ema_tau=5", "--noplots", "--device", "cpu"),
        *("close_mosaic=1", "save_every=2 batches"),
    ]


@pytest.fixture(scope="module")
def whole(words, tmp_path_factory) -> Path:
    """The run that was never stopped."""
    return run_train(*words, project=tmp_path_factory.mktemp("whole"))


INSTANTS = {
    "inside a batch of the second epoch": ("forward", "training", 9),
    "inside the last evaluation": ("forward", "evaluation", 5),
    "before a state is written": ("open", "last.pt", 4),
    "before a state takes its place": ("os.rename", "last.pt", 5),
    "before the table is replaced for the last time": ("os.rename", "metrics.csv", 2),
    "before the run is closed": ("os.rename", "per_class.csv", 1),
}


@pytest.mark.parametrize("instant", shown(["inside a batch of the second epoch"], INSTANTS))
def test_a_kill_changes_no_bit(words, whole, tmp_path, forked_runs, instant):
    assert run_until(instant, *words, "--project", tmp_path)[0] == -signal.SIGKILL
    train.main(["--resume", str(tmp_path / "exp")])
    assert_equal_runs(whole, tmp_path / "exp")


@pytest.mark.slow
def test_two_kills_in_a_row_and_another_number_of_workers(words, whole, tmp_path, forked_runs):
    folder = tmp_path / "exp"
    assert run_until(("forward", "training", 4), *words, "--project", tmp_path)[0] == -signal.SIGKILL
    assert run_until(("forward", "training", 1), "--resume", folder)[0] == -signal.SIGKILL
    assert run_until(("os.rename", "last.pt", 2), "--resume", folder)[0] == -signal.SIGKILL
    train.main(["--resume", str(folder), "--workers", "1"])
    assert_equal_runs(whole, folder)


@pytest.mark.parametrize(("by", "part"), [("SIGTERM", "training"), ("SIGINT", "evaluation")])
def test_a_signal_saves_at_the_next_boundary_and_says_how_to_go_on(words, whole, tmp_path, forked_runs, by, part):
    folder, instant = tmp_path / "exp", ("forward", part, 4 if part == "training" else 1)
    code, out = run_until(instant, *words, "save_every=0", "--project", tmp_path, by=by)
    assert code == 128 + getattr(signal, by)
    ni = state_of(folder)["progress"]["ni"]
    assert ni == (4 if part == "training" else 5), "the batch that was under way is in it, or all of the epoch"
    assert f"state after batch {ni}" in out and f"--resume {folder / 'weights/last.pt'}" in out
    train.main(["--resume", str(folder)])
    assert_equal_runs(whole, folder)


@pytest.mark.parametrize(
    ("loader", "by"), shown([("ring", "SIGTERM")], [("ring", "SIGTERM"), ("torch", "SIGTERM"), ("torch", "SIGUSR1")])
)
def test_a_signal_to_every_process_of_a_job_ends_no_worker(words, whole, tmp_path, forked_runs, loader, by):
    """The main process saves, and needs them until it has; the evaluation's workers, too."""
    more = ["--workers", 2, "--loader", loader, "save_every=0", "--project", tmp_path]
    code, out = run_until(("forward", "training", 4), *words, *more, by=by, whom="group")
    assert "state after batch 4" in out and code == (143 if by == "SIGTERM" else 0)
    if code:
        train.main(["--resume", str(tmp_path / "exp")])
    assert_equal_runs(whole, tmp_path / "exp")


def test_usr1_saves_and_goes_on(words, whole, tmp_path, forked_runs):
    code, out = run_until(("forward", "training", 4), *words, "save_every=0", "--project", tmp_path, by="SIGUSR1")
    assert code == 0 and "saved: the state after batch 4" in out and "--resume" in out
    assert_equal_runs(whole, tmp_path / "exp")


def test_where_the_newest_state_cannot_be_read_the_one_before_it_is_used(words, whole, tmp_path, forked_runs, capsys):
    run_until(("forward", "training", 8), *words, "--project", tmp_path)
    folder = tmp_path / "exp"
    last = folder / "weights/last.pt"
    newest = state_of(folder)["progress"]["ni"]
    last.write_bytes(last.read_bytes()[:-100])
    train.main(["--resume", str(last)])
    out = capsys.readouterr().out
    assert "damaged" in out and f"last-older.pt, the state before it (batch {newest - 2}" in out
    assert_equal_runs(whole, folder)


def test_another_batch_device_torch_or_number_of_ranks_goes_on_and_is_named(words, tmp_path, forked_runs, capsys):
    """Three of five batches of 4 done: with batches of 6 the epoch goes on at its third, whose first are seen again."""
    folder = tmp_path / "exp"
    run_until(("forward", "training", 3), *words, "save_every=0", "--project", tmp_path, by="SIGTERM")
    state = state_of(folder) | {"made_on": {"device": "TPU", "ranks": "2", "torch": "1.0"}}
    torch.save(state, folder / "weights/last.pt")
    train.main(["--resume", str(folder), "--batch", "6"])
    out = capsys.readouterr().out
    assert "batch 6, 4 before" in out and "TPU before" in out and "ranks 1, 2 before" in out and "1.0 before" in out
    assert "2 of its 4 batches done" in out
    assert read_scalars(folder, ("lr/",))["ni"] == [0, 1, *range(2, 8)]
    assert [row["ni"] for row in read_metrics(folder / "metrics.csv")] == [4, 8]
    assert state_of(folder)["hyp"]["batch"] == 6


def test_a_place_in_another_number_of_batches():
    """10 of 20 batches of 8 in the second epoch, 3 of them in the open window."""
    progress = Progress(ni=30, epoch=1, last_step=26)
    progress.rescale(40, 20, 0.5, False)
    assert (progress.ni, progress.last_step) == (60, 53), "6 batches of 4 are open"
    progress.rescale(20, 40, 2.0, False)
    assert (progress.ni, progress.last_step) == (30, 26)
    progress.rescale(7, 20, 1.0, True)
    assert (progress.ni, progress.last_step) == (7, 3), "other data: the epoch begins anew"
    over = Progress(ni=40, epoch=1, last_step=39)
    over.rescale(13, 20, 1.6, False)
    assert (over.ni, over.last_step) == (26, 25), "an epoch that waits for its evaluation still does"


def test_another_hyp_is_refused_by_name_and_recorded_where_it_is_insisted_on(words, tmp_path, capsys):
    folder = run_train(*words, "--stop-after", 1, project=tmp_path)
    resume = ["--resume", str(folder), "lr0=0.002", "box=5"]
    with pytest.raises(UserError, match=r"box, lr0 cannot change \(box: 7.5 at the start, 5.0 now; lr0: .*anyway"):
        train.main(resume)
    with pytest.raises(UserError, match="optimizer cannot change"):
        train.main([*resume, "--optimizer", "adam", "--resume-anyway"])
    train.main([*resume, "--resume-anyway"])
    assert json.loads((folder / "run.json").read_text())["resumes"][0]["hyp_changed"] == ["box", "lr0"]
    assert read_metrics(folder / "metrics.csv")[1]["lr/weight"] == pytest.approx(0.002 * 0.01)


def test_a_run_that_was_stopped_before_its_first_state_says_so(words, tmp_path, forked_runs):
    assert run_until(("os.rename", "last.pt", 1), *words, "--project", tmp_path)[0] == -signal.SIGKILL
    with pytest.raises(UserError, match="before its first one. Start it again"):
        train.main(["--resume", str(tmp_path / "exp")])
