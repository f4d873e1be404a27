"""What a run keeps of its stable part, for a longer one that goes on from it: weights/stable.pt and weights/stable/.

Both are second names of files that are only ever replaced whole, so they cost nothing while those are there, too.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from utils.files import keep_as
from utils.run.folder import LAST, STABLE, STABLE_BEST, cannot_write


def keep_best(weights: Path) -> None:
    """Keep what a run has found best so far, in its folder weights/; done once, for a later try may see later files."""
    if (weights / STABLE_BEST).exists():
        return
    beside = weights / f"{STABLE_BEST}.new"
    with told(weights):
        beside.mkdir(exist_ok=True)
        for path in (*weights.glob("best*.pt"), *weights.glob("snapshot*.pt")):
            keep_as(path, beside / path.name)
        os.replace(beside, weights / STABLE_BEST)


def keep_last(weights: Path) -> None:
    """Keep the state that has just been saved as that of the stable part."""
    with told(weights):
        keep_as(weights / LAST, weights / STABLE)


@contextmanager
def told(folder: Path) -> Iterator[None]:
    """UserError for what the system refuses: where files have one name only, they are copied."""
    try:
        yield
    except OSError as e:
        raise cannot_write(folder, e) from e


def forget(weights: Path) -> None:
    """Remove what an earlier run kept in a folder that is written into again."""
    (weights / STABLE).unlink(missing_ok=True)
    for left in (STABLE_BEST, f"{STABLE_BEST}.new"):
        shutil.rmtree(weights / left, ignore_errors=True)


def take_over(old: Path, new: Path, epoch: int) -> None:
    """Give the folder weights/ of a longer run what the shorter one, after so many epochs, had in its own."""
    periodic = [path for k in range(1, epoch + 1) if (path := old / f"epoch{k}.pt").is_file()]  # by save_period
    with told(new):
        for path in (*(old / STABLE_BEST).glob("*.pt"), *periodic):
            keep_as(path, new / path.name)
