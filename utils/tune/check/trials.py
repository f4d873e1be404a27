"""The runs of a check: processes of train.py that fit into a budget, made once and read again."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from utils.compare.launch.local import Child, Job, run_all
from utils.compare.runs import train_words
from utils.compare.scores import final_score
from utils.config.schema import Hyp, save_hyp
from utils.run.folder import drop_states
from utils.tune.check.lab import Lab, OutOfTime
from utils.tune.check.lecture import Trial

METRIC = "val/mAP50-95"
START = 15.0  # seconds that a run takes beside its batches
FACTORS = (0.3, 1.0, 3.0)  # of the rate, in the grid
DECAYS = (1.0, 10.0)  # of weight_decay
MOST = 5  # epochs of the grid


def seconds_of(epochs: int, epoch: float, runs: int, slots: int) -> float:
    """How long runs take, a batch of so many slots after the other; epoch: seconds of one, evaluated."""
    return -(-runs // slots) * (START + epochs * epoch)


def plan_grid(hyp: Hyp, rate: float, left: float, epoch: float, slots: int) -> tuple[list[tuple[float, float]], int]:
    """Rates and weight decays, and the epochs of each run, that fit into `left` seconds; ([], 0): none does."""
    wide = [(float(f"{rate * f:.2g}"), hyp.weight_decay * d) for f in FACTORS for d in DECAYS]
    if not hyp.weight_decay:
        wide = [(lr, 0.0) for lr, _ in wide[::2]]
    for points in (wide, wide[::2] if hyp.weight_decay else wide):
        for epochs in range(min(MOST, hyp.epochs), 0, -1):
            if seconds_of(epochs, epoch, len(points), slots) <= left:
                return points, epochs
    return [], 0


def plan_longer(hyp: Hyp, least: int, left: float, epoch: float, slots: int) -> tuple[int, int]:
    """How many of the best are trained on, and for how many epochs; (0, 0) where `least` epochs do not fit."""
    for runs in (3, 2, 1):
        epochs = int((left / -(-runs // slots) - START) / epoch)
        if epochs >= 2 * least or runs == 1:
            return (runs, min(epochs, max(hyp.epochs, 2 * least))) if epochs >= 2 * least else (0, 0)
    return 0, 0


def make_trials(lab: Lab, points: Sequence[tuple[float, float]], epochs: int) -> tuple[list[Trial], list[Path]]:
    """A run for each (lr0, weight_decay) that has not ended yet; raises OutOfTime when the minutes are over.

    Returns them and their folders. Runs that came to an end are kept, whatever ends the others.
    """
    hyp, settings = lab.bench.hyp, lab.folder / "hyp.yaml"
    save_hyp(settings, hyp)
    shared = ["--epochs", str(epochs), "--noplots", "true", *(["--decay", "constant"] * (hyp.recipe == "preheat"))]
    jobs, places = [], []
    for lr0, decay in points:
        place = lab.folder / "runs" / f"lr0={lr0:g}-weight_decay={decay:g}-epochs={epochs}"
        places.append(place)
        if ended(place) is None:
            own = ["--lr0", str(lr0), "--weight-decay", str(decay), *shared]
            words = train_words(place, settings, own, hyp.workers, lab.threads, lab.bench.command)
            jobs.append(Job("", 0, place, words))

    def watch(_: list[Child]) -> None:
        if time.monotonic() > lab.until:
            raise OutOfTime

    for child, code in run_all(jobs, lab.slots, lab.threads, lambda: None, watch):
        (child.job.folder / "exit").write_text(str(code))
        if code in (0, 3):  # only an interrupted run is gone on with
            drop_states(child.job.folder)
    found = [
        (Trial(lr0, decay, final_score(place, METRIC)), place)
        for (lr0, decay), place in zip(points, places, strict=True)
        if ended(place) in (0, 3)
    ]
    return [trial for trial, _ in found], [place for _, place in found]


def ended(place: Path) -> int | None:
    """The exit code of a run that ended, with a score or by divergence; None for one that is to be made."""
    try:
        code = int((place / "exit").read_text())
    except (OSError, ValueError):
        return None
    return code if code in (0, 3) else None


def first_complaint(folder: Path, lines: Callable[[Path], str]) -> str:
    """The last lines of a run that failed, in a folder of runs; empty where none did."""
    for place in sorted(folder.glob("lr0=*")):
        if (place / "exit").is_file() and ended(place) is None:
            return lines(place / "console.txt")
    return ""


def as_plain(trials: Sequence[Trial]) -> list[dict[str, Any]]:
    """Trials as JSON has them."""
    return [vars(trial) | {} for trial in trials]
