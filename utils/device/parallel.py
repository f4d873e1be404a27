"""Jobs by all cores: forked processes, which see the memory of this one; threads where there is no fork."""

import contextlib
import logging
import multiprocessing
import os
import signal
import sys
import threading
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

from tqdm import tqdm

from utils.env import cores
from utils.errors import UserError

T = TypeVar("T")
R = TypeVar("R")
MOST = 1000  # jobs at once: their numbers, 4 bytes each, wait in a pipe, which may hold no more than 4096 bytes
SIGNALS = (signal.SIGINT, signal.SIGTERM)


def do_all(jobs: Sequence[Callable[[], R]], title: str = "", unit: int = 1, fork: bool = True) -> list[R]:
    """Results of the jobs (at most 1000), in their order; with a title, a bar on a terminal that counts units.

    fork: False where they are done sooner than a process has started.
    """
    quiet = not title or not sys.stdout.isatty() or not logging.getLogger(__name__).isEnabledFor(logging.INFO)
    results: list[Any] = [None] * len(jobs)
    done = 0
    with contextlib.closing(_done(jobs, fork)) as answers:
        bar = None
        for k, result in answers:
            if bar is None:  # after the fork: it starts a thread
                bar = tqdm(total=len(jobs) * unit, desc=title, disable=quiet, delay=1, leave=False, dynamic_ncols=True)
            results[k] = result
            done += 1
            bar.update(unit)
        if bar is not None:
            bar.close()
    if done < len(jobs):
        raise UserError("a process that read the dataset was ended from outside; is there enough memory? Start again.")
    return results


def _done(jobs: Sequence[Callable[[], R]], fork: bool) -> Iterator[tuple[int, R]]:
    """Number and result of every job, as they are done."""
    if not fork or len(jobs) < 2:
        yield from ((k, job()) for k, job in enumerate(jobs))
    elif sys.platform == "linux" and not multiprocessing.current_process().daemon:
        yield from _forked(jobs, min(max(2, cores()), len(jobs)))
    else:
        with ThreadPoolExecutor(min(8, cores())) as pool:
            yield from enumerate(pool.map(lambda job: job(), jobs))


def _forked(jobs: Sequence[Callable[[], R]], processes: int) -> Iterator[tuple[int, R]]:
    """Each process takes the next number from a pipe until it is empty, and sends back what came of it."""
    assert len(jobs) <= MOST
    numbers, put = os.pipe()
    os.write(put, b"".join(k.to_bytes(4, "little") for k in range(len(jobs))))
    os.close(put)
    started, answers = [], []
    try:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # a child must not run the handlers of this process
        try:
            for _ in range(processes):
                receive, send = multiprocessing.Pipe(duplex=False)
                answers.append(receive)
                args = (jobs, numbers, send, os.getpid())
                started.append(multiprocessing.get_context("fork").Process(target=_work, args=args, daemon=True))
                started[-1].start()
                send.close()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        while answers:
            for receive in wait(answers):
                try:
                    k, result, error = receive.recv()
                except EOFError:
                    answers.remove(receive)
                    continue
                if error is not None:
                    raise error
                yield k, result
    finally:
        os.close(numbers)
        for process in started:
            process.kill()  # SIGTERM is lost behind one from elsewhere that waits to be heard
            process.join()


def _work(jobs: Sequence[Callable[[], R]], numbers: int, send: Connection, parent: int) -> None:
    """What a process does; its parent ends it, and when the parent is gone it goes too."""
    leave_signals_to_parent()
    while os.getppid() == parent and (number := os.read(numbers, 4)):
        k = int.from_bytes(number, "little")
        result = error = None
        try:
            result = jobs[k]()
        except Exception as e:
            e.add_note(traceback.format_exc())
            error = e
        try:
            send.send((k, result, error))
        except OSError:
            return


def leave_signals_to_parent() -> None:
    """In a worker process: what comes to every process of a job is the main process's to handle, which needs its
    workers until it has saved. It ends them by SIGKILL; of SIGTERM only its own is heard, as torch sends it.

    A terminal sends Ctrl-C so, Slurm and systemd SIGTERM, and Slurm what `--signal` names.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "SIGUSR1"):
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # Linux; it tells the sender, which a handler is not told
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_when_told, args=(os.getppid(),), daemon=True).start()
    else:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _end_when_told(parent: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)


def ahead(function: Callable[[T], R], items: Iterable[T], threads: int, most: int) -> Iterator[R]:
    """function(item) of one item after the other, by threads that are at most `most` items ahead of who asks.

    What the function raises is raised where its result is asked for.
    """
    items, waiting = iter(items), deque()
    with ThreadPoolExecutor(max(threads, 1)) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > most:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def parallel(function: Callable[[T], R], items: list[T]) -> list[R]:
    """[function(item) for item in items], by threads: reading files waits for the disk more than for Python."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PIL warns about large pictures and odd EXIF; what is unusable is reported
        with ThreadPoolExecutor(min(8, cores())) as pool:
            return list(pool.map(function, items))
