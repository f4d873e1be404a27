"""Runs of train.py that a signal ends at a chosen instant."""

import subprocess
import sys

INTERRUPTED = """
import os, signal, sys
import torch
from train import main
from utils.errors import listen_for_save, run_script

listen_for_save()
by, kind, part, left = *sys.argv[1:4], int(sys.argv[4])


def count():
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), getattr(signal, by))


def on_event(event, args):
    if event == kind and any(part in str(arg) for arg in args):
        count()


def on_forward(module, inputs):
    if type(module).__name__ == "DetectionModel" and module.training == (part == "training"):
        count()


if kind == "forward":
    torch.nn.modules.module.register_module_forward_pre_hook(on_forward)
else:
    sys.addaudithook(on_event)
sys.exit(run_script(lambda: main(sys.argv[5:])))
"""


def run_until(instant: tuple[str, str, int], *words: object, by: str = "SIGKILL") -> tuple[int, str]:
    """train.py in a fork that sends itself a signal at the n-th time that something happens; exit code, output."""
    command = [sys.executable, "-c", INTERRUPTED, by, *map(str, instant), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout
