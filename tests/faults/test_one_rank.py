"""Signals and deaths that come to one rank of several, which are forks of the test process."""

import os
import signal
import sys
import time

import pytest
import torch

import train
from tests.helpers.ranks import on_ranks
from tests.helpers.runs import guesser, replaced, state_of
from tests.scripts.test_together import WITH_NORM
from utils.device.ranks import Ranks
from utils.errors import Diverged, LeftAlone, listen_for_save, run_script

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks")


def at_forward(n: int, do, training: bool = True) -> None:
    """Do something before the n-th forward pass of the network, in training or in evaluation."""
    seen = []

    def count(module: torch.nn.Module, inputs: tuple) -> None:
        if type(module).__name__ == "DetectionModel" and module.training == training:
            seen.append(module)
            if len(seen) == n:
                do()

    torch.nn.modules.module.register_module_forward_pre_hook(count)


@pytest.fixture
def words(toy_args, tmp_path) -> list[str]:
    """Eight batches of one picture a rank and window of four: a signal finds a window open."""
    words = replaced(replaced(toy_args, "--weights", guesser()), "--epochs", 2)
    return [*words, "--freeze", WITH_NORM, "save_every=0", "lr0=0.05", "--project", str(tmp_path), "--name"]


def test_a_signal_to_one_rank_stops_all_at_the_same_batch_and_loses_nothing(words, tmp_path):
    """The state holds the open window of all ranks: gone on with by one process, the run ends as if never stopped."""

    def job(ranks: Ranks) -> int:
        if ranks.rank == 1:
            at_forward(2, lambda: os.kill(os.getpid(), signal.SIGTERM))
        return run_script(lambda: train.main([*words, "exp"]))

    assert on_ranks(2, job) == [143, 143]
    state = state_of(tmp_path / "exp")
    place = state["progress"]
    assert place["ni"] == 3 > place["last_step"] + 1 and state["gradients"], "inside the first window"
    train.main(["--resume", str(tmp_path / "exp")])
    train.main([*words, "whole"])
    found, expected = state_of(tmp_path / "exp"), state_of(tmp_path / "whole")
    assert found["progress"]["finished"] and found["progress"]["ni"] == expected["progress"]["ni"]
    for name, tensor in expected["model"].items():
        torch.testing.assert_close(found["model"][name], tensor, rtol=1e-4, atol=1e-5, msg=name)


def test_usr1_to_one_rank_saves_what_all_have_done(words, tmp_path, capfd):
    saved = []

    def job(ranks: Ranks) -> int:
        listen_for_save()
        if ranks.rank == 1:
            at_forward(1, lambda: os.kill(os.getpid(), signal.SIGUSR1))
        if ranks.rank == 0:
            at_forward(3, lambda: saved.append(state_of(tmp_path / "exp")["progress"]["ni"]))
        code = run_script(lambda: train.main([*words, "exp", "--stop-after", "1"]))
        assert saved == [2] * (ranks.rank == 0)
        return code

    assert on_ranks(2, job) == [0, 0]
    assert capfd.readouterr().out.count("saved: the state after batch 2") == 1


def test_statistics_that_one_rank_loses_end_all_with_the_same_message(words, tmp_path):
    """BatchNorm's are each rank's own: the losses and gradients of all are numbers."""

    def job(ranks: Ranks) -> str:
        def spoil(module: torch.nn.Module, inputs: tuple) -> None:
            if ranks.rank == 1 and module.training and isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.fill_(float("nan"))

        torch.nn.modules.module.register_module_forward_pre_hook(spoil)
        with pytest.raises(Diverged) as caught:
            train.main([*[word for word in words if word not in ("--freeze", WITH_NORM)], "exp"])
        return str(caught.value)

    first, second = on_ranks(2, job)
    assert first == second and "a BatchNorm statistic" in first
    assert state_of(tmp_path / "exp")["progress"]["ni"] == 0


@pytest.mark.parametrize("training", [True, False])
def test_a_killed_rank_ends_the_others_within_seconds_with_a_message(words, tmp_path, training):
    """In an evaluation, the second one, nothing is half done: what has been trained is saved all the same."""
    told = tmp_path / "told.txt"

    def job(ranks: Ranks) -> None:
        if ranks.rank == 1:
            at_forward(3 if training else 2, lambda: os.kill(os.getpid(), signal.SIGKILL), training)
        with pytest.raises(LeftAlone) as caught:
            train.main([*words, "exp"])
        told.write_text(str(caught.value))

    began = time.monotonic()
    with pytest.raises(AssertionError, match="-9"):
        on_ranks(2, job)
    assert time.monotonic() - began < 60 and "another rank has ended" in told.read_text()
    assert state_of(tmp_path / "exp")["progress"]["ni"] == (0 if training else 3)
