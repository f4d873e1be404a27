"""Output whose reader is gone, as after `| head`: an answer ends quietly, a run goes on in silence."""

import logging
import os
import signal
import sys

import pytest

from utils.errors import run_script
from utils.run.console import configure_console


@pytest.fixture
def broken(capfd):
    """An output that nobody reads any more; logging and signals are afterwards what they were."""
    signals = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as out:
        yield out
    for number, handler in signals.items():
        signal.signal(number, handler)
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.parametrize("lines", [1, 100_000], ids=["fails at the end", "fails on the way"])
def test_an_answer_ends_quietly(broken, capfd, monkeypatch, lines):
    monkeypatch.setattr(sys, "stdout", broken)
    assert run_script(lambda: [print("a line") for _ in range(lines)]) == 128 + signal.SIGPIPE
    assert capfd.readouterr() == ("", "")


def test_a_run_goes_on(broken, capfd, monkeypatch):
    monkeypatch.setattr(sys, "stdout", broken)
    configure_console()
    done = []

    def run() -> None:
        for number in range(3):
            logging.getLogger("x").info("epoch %d", number)
            done.append(number)

    assert run_script(run) == 0 and done == [0, 1, 2]
    assert capfd.readouterr() == ("", "")


def test_another_pipe_that_breaks_is_a_bug(capfd):
    signals = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def lose_a_worker() -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        run_script(lose_a_worker)
    for number, handler in signals.items():
        signal.signal(number, handler)
