"""Jobs by several processes: results in order, errors arrive, and no end of the parent leaves anything behind."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from utils.device.parallel import do_all
from utils.env import REPO
from utils.errors import UserError


def fail(number: int) -> int:
    if number == 7:
        raise ValueError("seven")
    return number


def die(number: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return number


@pytest.mark.parametrize("fork", [True, False])
def test_results_come_in_order(fork):
    jobs = [lambda k=k: (k * k, os.getpid()) for k in range(50)]  # no pickling: a fork sees them
    results = do_all(jobs, fork=fork)
    assert [square for square, _ in results] == [k * k for k in range(50)]
    assert (os.getpid() in {pid for _, pid in results}) != fork or sys.platform != "linux"
    assert do_all([]) == []


def test_an_error_arrives_with_its_traceback():
    with pytest.raises(ValueError, match="seven") as caught:
        do_all([partial(fail, k) for k in range(20)])
    assert "in fail" in caught.value.__notes__[0]


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
def test_a_process_that_was_killed_is_an_error():
    with pytest.raises(UserError, match="ended from outside"):
        do_all([partial(die, k) for k in range(4)])


SCRIPT = """
import os, sys, time
sys.path.insert(0, {repo!r})
from utils.device.parallel import do_all
from utils.errors import run_script

def job():
    with open({folder!r} + "/" + str(os.getpid()), "w"):
        time.sleep(60)

sys.exit(run_script(lambda: do_all([job] * 2)))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="forks, and looks processes up in /proc")
@pytest.mark.parametrize(
    ("number", "group"),
    [(signal.SIGINT, True), (signal.SIGTERM, False), (signal.SIGTERM, True), (signal.SIGINT, False)],
)
def test_a_signal_ends_it_without_a_word_of_the_workers(tmp_path, number, group):
    code = SCRIPT.format(repo=str(REPO), folder=str(tmp_path))
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=pipe, stderr=pipe, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 30
    while len(list(tmp_path.iterdir())) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    (os.killpg if group else os.kill)(process.pid, number)
    out, err = process.communicate(timeout=30)
    assert (out, err, process.returncode) == ("", f"stopped by {number.name}\n", 128 + number)
    assert not [pid for pid in tmp_path.iterdir() if Path("/proc", pid.name).exists()]
