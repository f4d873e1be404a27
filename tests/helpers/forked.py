"""Python programs as forks of the test process, where everything that they import is imported already.

`Popen` takes and does what subprocess.Popen does; the fixture `forked_runs` puts it in its place, so that a test is
written as if it started an interpreter and spares the seconds in which that would import torch. What depends on how a
program starts (its environment, what it imports) needs a real one.
"""

import gc
import inspect
import logging
import multiprocessing.process
import multiprocessing.util
import os
import runpy
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from utils.env import REPO

SIGNATURE = inspect.signature(subprocess.Popen._execute_child)


class Popen(subprocess.Popen):
    """subprocess.Popen, but for [sys.executable, a script | -c code | -m module, ...], which runs in a fork of this.

    Linux and macOS, and while torch works with one thread here: the threads of a pool do not survive a fork.
    """

    def _execute_child(self, *args: Any) -> None:
        given = SIGNATURE.bind(self, *args).arguments
        words = given["args"]
        if isinstance(words, str) or str(words[0]) != sys.executable:
            return super()._execute_child(*args)
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        self.pid = os.fork()
        if self.pid == 0:
            _be_child(given, [str(word) for word in words[1:]])
        self._child_created = True
        pipes = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
        self._close_pipe_fds(*(given[name] for name in pipes))


def start(script: str, *words: Any, folder: Path, env: dict[str, str] | None = None) -> Popen:
    """`python script words`; what it prints goes to out.txt and err.txt in `folder`."""
    with open(folder / "out.txt", "w") as out, open(folder / "err.txt", "w") as err:
        return Popen([sys.executable, REPO / script, *words], stdout=out, stderr=err, env=env)


def run(script: str, *words: Any, cwd: Path | None = None, env: dict[str, str] | None = None) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of `python script words`."""
    command, pipe = [sys.executable, REPO / script, *words], subprocess.PIPE
    with Popen(command, stdout=pipe, stderr=pipe, text=True, cwd=cwd, env=env) as process:
        out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def _be_child(given: dict[str, Any], words: list[str]) -> None:
    """What a new process would be given: streams, folder, environment, signals; then the program. Never returns."""
    code = 1
    gc.freeze()  # looking through what the test process has made would copy its pages
    try:
        for number, name in enumerate(("p2cread", "c2pwrite", "errwrite")):
            if given[name] != -1:
                os.dup2(given[name], number)
        for name in ("p2cwrite", "c2pread", "errread"):  # the ends of the pipes that this test holds
            if given[name] != -1:
                os.close(given[name])
        sys.stdin = open(0, closefd=False)  # noqa: SIM115
        sys.stdout, sys.stderr = (open(number, "w", buffering=1, closefd=False) for number in (1, 2))  # noqa: SIM115
        if given["start_new_session"]:
            os.setsid()
        if given["preexec_fn"]:
            given["preexec_fn"]()
        if given["cwd"]:
            os.chdir(given["cwd"])
        if given["env"] is not None:
            os.environ.clear()
            os.environ.update(given["env"])
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 1)))
        _forget_the_test()
        code = _exit_code(lambda: _run(words))
        code = _exit_code(multiprocessing.util._exit_function) or code  # ends its own child processes
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _forget_the_test() -> None:
    """Signals, log handlers and child processes are those of a new interpreter."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    logging.basicConfig(level=logging.WARNING, handlers=[logging.StreamHandler(sys.stderr)], force=True)
    multiprocessing.process._children = set()
    multiprocessing.util._finalizer_registry.clear()
    multiprocessing.util._run_after_forkers()


def _run(words: list[str]) -> None:
    """The program, as the interpreter's command line says it."""
    if words[0] == "-c":
        sys.argv = ["-c", *words[2:]]
        exec(compile(words[1], "<string>", "exec"), {"__name__": "__main__"})
    elif words[0] == "-m":
        sys.argv = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = words
        runpy.run_path(words[0], run_name="__main__")


def _exit_code(call: Callable[[], Any]) -> int:
    """Of an interpreter in which the call is all that happens; what it fails with is printed."""
    try:
        call()
    except SystemExit as e:
        if isinstance(e.code, str):
            print(e.code, file=sys.stderr)
        return int(e.code is not None) if not isinstance(e.code, int) else e.code & 255
    except KeyboardInterrupt:
        traceback.print_exc()
        sys.stderr.flush()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)  # as Python ends itself
    except BaseException:
        traceback.print_exc()
        return 1
    return 0
