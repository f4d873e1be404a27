"""Ctrl-C at any moment of a script: no traceback, 130; and a signal that comes twice."""

import subprocess
import sys

import pytest

from tests.helpers.loops import shown
from utils.env import REPO

AT_IMPORT = """
import os, runpy, signal, sys

module, *sys.argv = sys.argv[1:]


def hook(event, args):
    if event == "import" and args[0] == module:
        os.kill(os.getpid(), signal.SIGINT)


sys.addaudithook(hook)
runpy.run_path(sys.argv[0], run_name="__main__")
"""
SCRIPTS = {
    "train.py": ["--weights", "x.pt", "--data", "x.yaml"],
    "val.py": ["--weights", "x.pt", "--data", "x.yaml"],
    "compare.py": ["--weights", "x.pt", "--data", "x.yaml", "--arm", "a", "--arm", "b", "lr0=0.1"],
    "tune.py": ["lr", "--weights", "x.pt", "--data", "x.yaml"],
    "detect.py": ["--weights", "x.pt", "--source", "x"],
    "export.py": ["--weights", "x.pt"],
}


FAST = [("train.py", "pydantic"), ("train.py", "torch"), ("compare.py", "torch")]


@pytest.mark.parametrize(
    ("script", "module"), shown(FAST, [("train.py", "pydantic"), *((script, "torch") for script in SCRIPTS)])
)
def test_ctrl_c_while_a_script_imports_prints_no_traceback(script, module):
    """Of the first library of all, and of the first that takes seconds, behind the look at the command line."""
    words = [sys.executable, "-c", AT_IMPORT, module, REPO / script, *SCRIPTS[script]]
    done = subprocess.run(words, capture_output=True, text=True, cwd=REPO, timeout=60)
    assert (done.returncode, done.stderr) == (130, "stopped by SIGINT\n"), done.stderr[-2000:]


TWICE = """
import os, signal, sys, time
from utils.errors import held, run_script, stop_if_signalled

def main():
    with held():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(float(sys.argv[1]))
        os.kill(os.getpid(), signal.SIGTERM)
        print("whole")
    stop_if_signalled()

sys.exit(run_script(main))
"""


@pytest.mark.parametrize(("seconds", "code", "out"), [(0.1, 143, "whole\n"), (1.1, -15, "")])
def test_what_comes_with_a_signal_is_the_same_and_a_second_one_ends_at_once(seconds, code, out, forked_runs):
    words = [sys.executable, "-c", TWICE, str(seconds)]
    done = subprocess.run(words, capture_output=True, text=True, cwd=REPO, timeout=60)
    assert (done.returncode, done.stdout) == (code, out), done.stderr
