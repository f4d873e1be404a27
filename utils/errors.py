"""What ends a script early, and the exit code that goes with it."""

import difflib
import errno
import json
import logging
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from utils.env import end_at_once

log = logging.getLogger(__name__)
FULL = {getattr(errno, name, None) for name in ("ENOSPC", "EDQUOT", "EFBIG", "EROFS")}  # nothing can be written
LOOKALIKE = str.maketrans("oli", "011")  # lro is lr0


class UserError(Exception):
    """What happened, where (file, line, value) and what to do; scripts print it without a traceback and exit with 2."""


class Diverged(Exception):
    """The loss, or twenty gradients in a row, are NaN or infinite; scripts exit with 3.

    batch: the first of its epoch, counted from 0, that the loss or the gradients are lost from; None: not known.
    """

    def __init__(self, message: str, batch: int | None = None) -> None:
        super().__init__(message)
        self.batch = batch


class SomeFailed(Exception):
    """Some runs of a comparison failed, and the others are kept; scripts exit with 1."""


class LeftAlone(Exception):
    """Another rank has ended, and the last word on why is its; scripts exit with 1."""


class StoppedBySignal(BaseException):  # no Exception: a library's `except Exception` must not swallow it
    """SIGINT or SIGTERM arrived; scripts exit with 128 + its number."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


_arrived: list[int] = []  # signals so far
_stopped_at = 0.0  # when the last of them came
TOGETHER = 1.0  # seconds within which another one is the same word
_held = 0  # blocks of `held` that are being run
_asked = False  # whether SIGUSR1 has asked for the state
PATIENCE = 5.0  # seconds in which the first rank of a machine meets an error that all of them have
FULL = {errno.ENOSPC, errno.EFBIG, errno.EROFS, getattr(errno, "EDQUOT", errno.ENOSPC)}  # more room would mend them
POLL = 0.05  # seconds between two looks at what it says


def _stop(number: int, frame: Any) -> None:
    """The first signal stops the script in order, a second one at once; but what comes with the first is the same word:
    Slurm, systemd and terminals tell every process of a job, and torchrun and compare.py tell theirs once more.
    """
    global _stopped_at
    if _arrived and time.monotonic() - _stopped_at < TOGETHER:
        return
    if number in _arrived:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    _stopped_at = time.monotonic()
    _arrived.append(number)
    if not _held:
        raise StoppedBySignal(number)


@contextmanager
def held() -> Iterator[None]:
    """While it lasts a signal raises nothing: what is inside happens whole. `stop_if_signalled` raises it later."""
    global _held
    _held += 1
    try:
        yield
    finally:
        _held -= 1


@contextmanager
def room_to_write(kept: str) -> Iterator[None]:
    """UserError in place of an OSError where nothing more can be written; kept: what is not lost, in words."""
    try:
        yield
    except OSError as e:
        if e.errno not in FULL:
            raise
        where = e.filename or "what was found"
        raise UserError(f"cannot write {where}: {e.strerror}. Make room, and repeat the command: {kept}.") from e


def stop_if_signalled() -> None:
    """Raise what `held` put off, or what was raised inside a destructor, where Python drops it."""
    if _arrived:
        raise StoppedBySignal(_arrived[0])


def signal_so_far() -> int:
    """Number of the first signal that is to end this script; 0: none has come."""
    return _arrived[0] if _arrived else 0


def listen_for_save() -> None:
    """Let SIGUSR1, which Slurm sends before it takes a machine away, ask for the state; there is none on Windows."""
    if hasattr(signal, "SIGUSR1"):
        signal.signal(signal.SIGUSR1, _ask)


def _ask(number: int, frame: Any) -> None:
    global _asked
    _asked = True


def asked_to_save() -> bool:
    """Whether SIGUSR1 has come since the last time that this was asked."""
    global _asked
    asked, _asked = _asked, False
    return asked


def tell(message: str) -> None:
    """Say what ended a script; a rank of torchrun leaves it to torchrun's report, which would bury what is printed.

    What all ranks of a machine meet is told once, by the first one.
    """
    report = os.environ.get("TORCHELASTIC_ERROR_FILE")
    content = {"message": {"message": message, "extraInfo": {"timestamp": str(int(time.time()))}}}
    try:
        if report and _first_tells(message, Path(report)):
            return
        if report:
            Path(report).write_text(json.dumps(content), encoding="utf-8")
            return
    except (OSError, StoppedBySignal):  # too late for the report
        pass
    print(message, file=sys.stderr)


def _first_tells(message: str, report: Path) -> bool:
    """Whether the first rank of this machine, whose report lies beside, says the same within PATIENCE seconds."""
    rank, until = int(os.environ.get("LOCAL_RANK", 0)), time.monotonic() + PATIENCE
    first = report.parent.parent / "0" / report.name

    def says() -> bool:
        return first.is_file() and json.dumps(message) in first.read_text(encoding="utf-8")

    try:
        while rank and time.monotonic() < until and not says():
            time.sleep(POLL)
    except StoppedBySignal:  # torchrun ends the others when one has ended
        if not says():
            raise
    return bool(rank) and says()


def let_reader_go(output: TextIO) -> bool:
    """Whether nobody reads `output` any more, as after `| head`; what is still written to it then goes nowhere."""
    if not hasattr(select, "poll"):  # Windows
        return False
    poll = select.poll()
    poll.register(output.fileno(), 0)  # whatever is asked for, a pipe without a reader answers POLLERR
    if not any(event & select.POLLERR for _, event in poll.poll(0)):
        return False
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, output.fileno())
    os.close(nowhere)
    return True


def run_script(main: Callable[[], Any]) -> int:
    """Call `main` and turn how it ended into an exit code: 0, 1, 2, 3, 130, 141, 143; a bug keeps its traceback."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    try:
        main()
        sys.stdout.flush()
    except BrokenPipeError:
        if not let_reader_go(sys.stdout):
            raise  # another pipe than the output: a bug
        return 128 + 13  # SIGPIPE
    except UserError as e:
        tell(f"error: {e}")
        return 2
    except SomeFailed as e:
        tell(f"failed: {e}")
        return 1
    except LeftAlone as e:
        print(f"ended: {e}", file=sys.stderr)  # not in torchrun's report, where the cause is to stand
        return 1
    except Diverged as e:
        tell(f"diverged: {e}")
        return 3
    except StoppedBySignal as e:
        print(f"stopped by {e}", file=sys.stderr)
        return 128 + e.number
    except OSError as e:
        if e.errno not in FULL:
            raise
        tell(f"error: {about_disk(e)}")
        return 2
    except RuntimeError as e:
        if type(e).__name__ != "OutOfMemoryError":  # of torch, which is not imported for --help
            raise
        tell(f"error: the GPU's memory is full ({str(e).splitlines()[0]}). Use a smaller --batch or --imgsz.")
        return 2
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, end_at_once)  # while more is imported, or the program ends
    return 0


def about_disk(error: OSError) -> str:
    """What to do where nothing can be written any more, which may happen to every file of every script."""
    where = f" while {error.filename} was written" if error.filename else ""
    return f"{error.strerror}{where}. Make room, or choose another --project (results) or PREHEAT_CACHE (caches)."


def answer_first(answer: Callable[[], bool]) -> None:
    """Exit when `answer` is True (it was all that the command line asks for) or ends in an error.

    Scripts call it before they import torch: --help and a mistyped option should not take seconds.
    """
    answers: list[bool] = []
    code = run_script(lambda: answers.append(answer()))
    if code or answers[0]:
        sys.exit(code)


def suggest(word: str, known: list[str]) -> str:
    """' Did you mean x?' or an empty string."""
    alike = [name for name in known if name.translate(LOOKALIKE) == word.lower().translate(LOOKALIKE)]
    close = alike or difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f" Did you mean '{close[0]}'?" if close else ""
