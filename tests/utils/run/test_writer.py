"""States written in the background: as they were, whole, in their order, and nothing goes wrong in silence."""

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from tests.helpers.runs import assert_same
from utils.errors import UserError
from utils.run.state.writer import Writer


def read(path: Path) -> dict:
    """A file as it was written; these states are parts of a run's, which `load_state` would refuse."""
    return torch.load(path, weights_only=True)


@pytest.fixture
def held(monkeypatch) -> threading.Event:
    """While it is clear, torch writes nothing."""
    may, save = threading.Event(), torch.serialization.save

    def wait(*args) -> None:
        assert may.wait(60)
        save(*args)

    monkeypatch.setattr(torch.serialization, "save", wait)
    return may


def test_a_state_is_written_as_it_was_while_training_goes_on(tmp_path, held):
    weight, said, paths = torch.zeros(3), [], [tmp_path / "last.pt", tmp_path / "epoch1.pt"]
    state = {"model": {"w": weight}, "optimizer": {"state": {0: {"m": [weight]}}}, "progress": {"epoch": 1}}
    writer = Writer(background=True)
    writer.save(paths, state, lambda: said.append([path.is_file() for path in paths]))
    weight += 1
    state["progress"]["epoch"] = 2
    assert not said and not paths[0].exists()
    held.set()
    writer.join()
    assert said == [[True, True]]
    for path in paths:
        assert_same(read(path)["model"], {"w": torch.zeros(3)})
        assert_same(read(path)["optimizer"], {"state": {0: {"m": [torch.zeros(3)]}}})
    Writer(background=False).save(paths[:1], state, lambda: said.append("at once"))
    assert said[1:] == ["at once"] and read(paths[0])["model"]["w"].tolist() == [1, 1, 1]


def test_states_follow_each_other_and_an_error_is_raised_by_the_next(tmp_path, held):
    held.set()
    writer, order = Writer(background=True), []
    for epoch in range(3):
        writer.save([tmp_path / "last.pt"], {"epoch": epoch}, lambda epoch=epoch: order.append(epoch))
    writer.save([tmp_path / "missing/last.pt"], {"epoch": 3}, lambda: order.append(3))
    with pytest.raises(UserError, match="cannot write"):
        writer.save([tmp_path / "last.pt"], {"epoch": 4})
    writer.join()
    assert order == [0, 1, 2] and read(tmp_path / "last.pt")["epoch"] == 2


KILLED = """
import sys
from pathlib import Path
import torch
from utils.run.state.writer import Writer

writer = Writer(background=True)
for epoch in range(100000):
    state = {"epoch": epoch, "w": torch.full((30000,), float(epoch))}
    writer.save([Path(sys.argv[1])], state, lambda epoch=epoch: print(epoch, flush=True))
"""


def test_a_kill_at_any_instant_leaves_the_state_of_an_epoch_that_was_told_or_the_next(tmp_path, forked_runs):
    file = tmp_path / "last.pt"
    for k in range(5):
        with subprocess.Popen([sys.executable, "-c", KILLED, file], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout.readline() == "0\n"
            time.sleep(0.02 + 0.0137 * k)
            process.send_signal(signal.SIGKILL)
            told = [0, *map(int, process.stdout.read().split())][-1]
        state = read(file)
        assert told <= state["epoch"] <= told + 1 and (state["w"] == state["epoch"]).all()
