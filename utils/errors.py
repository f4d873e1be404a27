"""What ends a script early, and the exit code that goes with it."""

import difflib
import logging
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

log = logging.getLogger(__name__)
LOOKALIKE = str.maketrans("oli", "011")  # lro is lr0


class UserError(Exception):
    """What happened, where (file, line, value) and what to do; scripts print it without a traceback and exit with 2."""


class Diverged(Exception):
    """The loss, or twenty gradients in a row, are NaN or infinite; scripts exit with 3."""


class SomeFailed(Exception):
    """Some runs of a comparison failed, and the others are kept; scripts exit with 1."""


class StoppedBySignal(BaseException):  # no Exception: a library's `except Exception` must not swallow it
    """SIGINT or SIGTERM arrived; scripts exit with 128 + its number."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


_arrived: list[int] = []  # signals so far
_alike = [True]  # whether every rank of a machine has met the same errors so far
PATIENCE = 5.0  # seconds in which torchrun ends the other ranks when one has ended


def _stop(number: int, frame: Any) -> None:
    signal.signal(number, signal.SIG_DFL)  # a second one ends the program at once
    _arrived.append(number)
    raise StoppedBySignal(number)


def stop_if_signalled() -> None:
    """Raise again what was raised inside a destructor, where Python drops it; the training loop asks at each batch."""
    if _arrived:
        raise StoppedBySignal(_arrived[0])


def ranks_differ() -> None:
    """Called when the ranks have met: until then each one sees what the others see, and one message is enough."""
    _alike[0] = False


def leave_it_to_first() -> None:
    """Of an error that every rank of a machine meets, the first one tells; the others wait to be ended by torchrun.

    A rank that nobody ends has met it alone, and tells it, too.
    """
    if _alike[0] and int(os.environ.get("LOCAL_RANK", 0)):
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        time.sleep(PATIENCE)


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
        leave_it_to_first()
        print(f"error: {e}", file=sys.stderr)
        return 2
    except SomeFailed as e:
        print(f"failed: {e}", file=sys.stderr)
        return 1
    except Diverged as e:
        print(f"diverged: {e}", file=sys.stderr)
        return 3
    except StoppedBySignal as e:
        print(f"stopped by {e}", file=sys.stderr)
        return 128 + e.number
    return 0


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
