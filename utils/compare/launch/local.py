"""Runs as processes, several at once: started when a slot is free, watched, stopped together."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from utils.device.ranks import pick_device
from utils.env import REPO, cores

PATIENCE = 20.0  # seconds that a run has to save its state before it is killed
POLL = 0.2  # seconds until the processes are asked again whether they have ended


@dataclass(frozen=True)
class Job:
    """One run to be made."""

    arm: str
    seed: int
    folder: Path  # of the run
    words: list[str]  # of train.py, but for where it runs
    cell: str = ""  # in which the arms meet; empty when there is only one


@dataclass
class Child:
    """A run that is being made."""

    job: Job
    device: str
    process: subprocess.Popen | None = None  # none where an engine makes it
    console: TextIO | None = None
    began: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """Since it was started."""
        return time.monotonic() - self.began


def device_slots(devices: str, jobs: int | None) -> list[str]:
    """The device of each slot, as many as runs go on at once: `jobs`, else one per device, two on a CPU.

    devices: names, comma-separated.
    """
    found = [pick_device(word.strip()) for word in devices.split(",")]
    jobs = jobs or (min(2, cores()) if found[0].type == "cpu" else len(found))
    names = ["cpu" if device.type == "cpu" else str(device.index) for device in found]
    return [names[k % len(names)] for k in range(max(jobs, 1))]


def run_all(
    jobs: Iterable[Job],
    slots: Sequence[str],
    threads: int,
    before: Callable[[], None],
    show: Callable[[list[Child]], None],
) -> Iterator[tuple[Child, int]]:
    """Make every run, as many at once as there are slots (a device each, perhaps several times); yields each that ends
    with its exit code.

    jobs: each is asked for when a slot is free, so that it may depend on what earlier ones came to.
    before: called before each start; what it raises ends everything. show: called now and then with the runs under way.
    Whatever ends this, Ctrl-C too, stops all runs first.
    """
    todo, running, job = iter(jobs), [], None
    try:
        while running or (job := next(todo, None)):
            while len(running) < len(slots) and (job := job or next(todo, None)):
                before()
                taken = [child.device for child in running]
                free = list(slots)
                for device in taken:
                    free.remove(device)
                running.append(start(job, free[0], threads))
                job = None
            show(running)
            time.sleep(POLL)
            for child in [c for c in running if c.process.poll() is not None]:
                running.remove(child)
                child.console.close()
                yield child, child.process.returncode
    finally:
        _stop(running)


def start(job: Job, device: str, threads: int) -> Child:
    """A process of train.py; what it prints goes to console.txt in its run folder."""
    job.folder.mkdir(parents=True, exist_ok=True)
    words = [*job.words, "--device", device]
    console = open(job.folder / "console.txt", "a", encoding="utf-8")  # noqa: SIM115  (closed when the process ends)
    process = subprocess.Popen(
        [sys.executable, str(REPO / "train.py"), *words],
        stdin=subprocess.DEVNULL,
        stdout=console,
        stderr=subprocess.STDOUT,
        env=os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1"},
        start_new_session=True,  # Ctrl-C reaches this program alone, which then stops its runs in order
        preexec_fn=_end_with_parent if sys.platform == "linux" else None,
    )
    return Child(job, device, process, console)


def _end_with_parent() -> None:
    """Ask Linux for SIGTERM when this program is killed: no run may go on without it."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def _kill(process: subprocess.Popen) -> None:
    """End a run that does not end, and its loader workers; Windows knows no groups of processes."""
    if hasattr(os, "killpg"):
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()


def _stop(running: list[Child]) -> None:
    """SIGTERM to every run, and SIGKILL to what is left of it after a while."""
    for child in running:
        with suppress(ProcessLookupError):
            child.process.terminate()
    end = time.monotonic() + PATIENCE
    for child in running:
        with suppress(subprocess.TimeoutExpired):
            child.process.wait(max(end - time.monotonic(), 0.1))
        with suppress(ProcessLookupError, PermissionError):
            _kill(child.process)
        child.console.close()
