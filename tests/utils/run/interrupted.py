"""Runs of train.py that a signal ends at a chosen instant."""

import subprocess
import sys

INTERRUPTED = """
import os, signal, sys, time
import torch
from train import main
from utils.errors import listen_for_save, run_script

listen_for_save()
by, whom, kind, part, left = *sys.argv[1:5], int(sys.argv[5])


def count():
    global left
    left -= 1
    if left == 0 and whom == "group":
        tell_all()
    elif left == 0:
        os.kill(os.getpid(), getattr(signal, by))


def tell_all():
    if os.fork() == 0:  # another sender than the main process, whose word its workers take
        signal.signal(getattr(signal, by), signal.SIG_IGN)
        os.kill(0, getattr(signal, by))
        os._exit(0)
    time.sleep(0.3)  # until all have heard it


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
sys.exit(run_script(lambda: main(sys.argv[6:])))
"""


def run_until(
    instant: tuple[str, str, int], *words: object, by: str = "SIGKILL", whom: str = "itself"
) -> tuple[int, str]:
    """train.py in a fork that sends a signal at the n-th time that something happens; exit code, output.

    whom: itself, or group: all processes of the run, as a cluster tells those of a job.
    """
    command = [sys.executable, "-c", INTERRUPTED, by, whom, *map(str, instant), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, start_new_session=True)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout
