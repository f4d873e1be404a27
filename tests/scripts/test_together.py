"""Runs of several ranks, which are forks of the test process."""

import sys

import pytest
import torch

import train
from tests.helpers.ranks import on_ranks
from tests.helpers.runs import guesser, replaced, state_of
from utils.device.ranks import Ranks
from utils.errors import Diverged
from utils.run.log import read_metrics

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks")
WITH_NORM = ",".join(
    [*(f"model.{k}" for k in range(5)), *(f"model.5.cv{b}.{i}.{k}" for b in (2, 3) for i in (0, 1) for k in (0, 1))]
)


@pytest.mark.slow
def test_ranks_train_the_weights_of_one_process(toy_args, tmp_path):
    """With BatchNorm frozen; the last of three batches has four pictures, and windows cross epochs."""
    words = [*replaced(toy_args, "--weights", guesser()), "--freeze", WITH_NORM, "lr0=0.05", "patience=1"]

    def job(ranks: Ranks) -> dict[str, float]:
        return train.main([*words, "--project", str(tmp_path), "--name", str(ranks.world_size)])

    found = {n: on_ranks(n, job) for n in (1, 2, 3)}
    alone, rows = state_of(tmp_path / "1"), read_metrics(tmp_path / "1/metrics.csv")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["1", "2", "3"], "rank 0 alone writes"
    for n in (2, 3):
        state = state_of(tmp_path / str(n))
        for part in ("model", "gradients"):
            for name, tensor in alone[part].items():
                torch.testing.assert_close(state[part][name], tensor, rtol=1e-4, atol=1e-5, msg=name)
        for row, expected in zip(read_metrics(tmp_path / f"{n}/metrics.csv"), rows, strict=True):
            told = {key for key in expected if key.startswith(("val/", "train/", "lr/", "raw/"))}
            assert {key: row[key] for key in told} == pytest.approx(
                {key: expected[key] for key in told}, rel=1e-3, abs=1e-5, nan_ok=True
            )
        assert all(str(metrics[key]) == str(found[n][0][key]) for metrics in found[n] for key in metrics)


@pytest.mark.slow
def test_a_restarted_run_goes_on_with_fewer_ranks(toy_args, tmp_path, monkeypatch):
    """As torchrun restarts its ranks, with the same words: where one process would be, an open window included."""
    words = [*replaced(toy_args, "--weights", guesser()), "--freeze", WITH_NORM, "--project", tmp_path, "--name"]
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    on_ranks(3, lambda _: train.main([*words, "exp", "--stop-after", "1"]))
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    on_ranks(2, lambda _: train.main([*words, "exp", "--stop-after", "1"]))
    on_ranks(1, lambda _: train.main([*words, "exp", "--stop-after", "1"]))
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "another")
    on_ranks(1, lambda _: train.main([*words, "whole"]))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["exp", "whole"]
    found, expected = state_of(tmp_path / "exp"), state_of(tmp_path / "whole")
    assert found["progress"]["finished"] and found["progress"]["ni"] == expected["progress"]["ni"]
    for name, tensor in expected["model"].items():
        torch.testing.assert_close(found["model"][name], tensor, rtol=1e-4, atol=1e-5, msg=name)


def test_what_one_rank_loses_ends_all_with_the_same_message(toy_args, tmp_path):
    def job(ranks: Ranks) -> str:
        lost = ["cls=1e39"] * (ranks.rank == 1)  # the class loss of its pictures is infinite
        with pytest.raises(Diverged) as caught:
            train.main([*toy_args, *lost, "--project", str(tmp_path), "--name", "lost"])
        return str(caught.value)

    first, second = on_ranks(2, job)
    assert first == second and "the loss is NaN or infinite at batch 2, epoch 1/3" in first
