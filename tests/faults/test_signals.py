"""Ctrl-C at any moment of a script: no traceback, 130."""

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
