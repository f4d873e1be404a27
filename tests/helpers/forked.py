"""A script in a forked child of the test process, which has imported everything: a start costs no seconds.

`Popen` takes what launch.py and the tests give subprocess.Popen for `python script.py words`; `run` waits.
"""

import importlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TextIO

import torch

from utils.errors import run_script


class Popen:
    """The child: pid, returncode, poll, wait, terminate, kill, send_signal as subprocess.Popen has them."""

    def __init__(
        self,
        args: Sequence[Any],
        *,
        stdin: Any = None,
        stdout: TextIO | None = None,
        stderr: Any = subprocess.STDOUT,
        env: dict[str, str] | None = None,
        start_new_session: bool = False,
        preexec_fn: Callable[[], None] | None = None,
    ) -> None:
        script, words = Path(args[1]).stem, [str(word) for word in args[2:]]
        module = importlib.import_module(script)  # before the fork: once for all children
        self.args, self.returncode = args, None
        self.pid = os.fork()
        if self.pid:
            return
        code = 70
        try:
            if start_new_session:
                os.setsid()
            if preexec_fn:
                preexec_fn()
            os.dup2(stdout.fileno(), 1)
            os.dup2(stdout.fileno() if stderr == subprocess.STDOUT else stderr.fileno(), 2)
            sys.stdout, sys.stderr = (open(fd, "w", buffering=1, closefd=False, encoding="utf-8") for fd in (1, 2))
            sys.argv = [f"{script}.py", *words]
            if env is not None:
                os.environ.clear()
                os.environ.update(env)
            torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 1)))
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_DFL)
            code = run_script(module.main)
        except BaseException:
            import traceback

            traceback.print_exc()
            code = 1
        finally:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            os._exit(code)

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float = 300) -> int:
        end = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired(self.args, timeout)
            time.sleep(0.01)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def start(script: str, *words: Any, folder: Path, env: dict[str, str] | None = None) -> Popen:
    """`script words` whose output goes to out.txt and err.txt in `folder`."""
    with open(folder / "out.txt", "w") as out, open(folder / "err.txt", "w") as err:
        env = dict(os.environ) if env is None else env
        return Popen([sys.executable, script, *words], stdout=out, stderr=err, env=env)


def run(script: str, *words: Any, env: dict[str, str] | None = None) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of `script words`."""
    with tempfile.TemporaryDirectory() as folder:
        process = start(script, *words, folder=Path(folder), env=env)
        code = process.wait()
        return code, (Path(folder) / "out.txt").read_text(), (Path(folder) / "err.txt").read_text()
