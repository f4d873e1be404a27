"""Between two batches, or two epochs: states are saved and signals end the run, on all ranks at the same one."""

from models.training.run import Run, save_inside
from models.training.state import Training
from utils.device.ranks import Ranks
from utils.device.together import largest_of
from utils.errors import StoppedBySignal, signal_so_far
from utils.run.log import RunLog

ASKED = 2  # a state is wanted by SIGUSR1, and not only due by the clock


def between_batches(training: Training, run: Run, runlog: RunLog | None) -> None:
    """Save where that is due, and end the run where a signal has come: on all ranks at once, whichever it came to."""
    due, ni = training.due, training.progress.ni
    number, wish = training.agreed.hear(signal_so_far(), due.at(ni) + due.asked)
    wish = max(wish, due.stable == ni)  # which no rank has to be told
    if number or wish:
        training.share(run.ranks)
    due.asked = wish == ASKED and runlog is not None  # rank 0 says when it is done
    if number:
        raise StoppedBySignal(number)  # which saves the state
    if wish and runlog:
        save_inside(training, run, runlog)


def stop_together(ranks: Ranks) -> None:
    """End the run on all ranks where a signal has come to one of them, between two epochs."""
    if number := int(largest_of(signal_so_far(), ranks)):
        raise StoppedBySignal(number)
