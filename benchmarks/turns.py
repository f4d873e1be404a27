"""What benchmarks against ultralytics share: contenders in processes of their own that take turns, and a table."""

import argparse
import multiprocessing
import os
import shutil
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import torch
import yaml
from ultralytics.utils import LOGGER, SETTINGS, torch_utils

import utils.env  # noqa: F401  (first: sets the environment that the libraries read on import)

REPO = Path(__file__).resolve().parent.parent
Round = dict[str, float]  # wall and cpu, in seconds, and whatever else a contender measures
_work: Callable[[], dict[str, float] | None]  # of this process


class Contender:
    """Something to be measured, in a process of its own: what one sets for memory or threads is not the other's."""

    def __init__(self, name: str, make: Callable[..., Any], *args: Any):
        """make(*args) is called in the process, and what it returns is called in every round."""
        self.name, self.rounds = name, []
        self.pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _start, (make, args))

    def measure(self, keep: bool) -> None:
        """One round."""
        taken = self.pool.submit(_round).result()
        if keep:
            self.rounds.append(taken)

    def ask(self, method: str) -> Any:
        """What a method of the contender returns."""
        return self.pool.submit(_ask, method).result()

    def median(self, key: str) -> float:
        return statistics.median(r[key] for r in self.rounds)

    def row(self, peer: "Contender", *more: str) -> str:
        """A line of the table; ratios are the peer's seconds divided by these, above 1 is faster."""
        rounds = sorted(b["cpu"] / a["cpu"] for a, b in zip(self.rounds, peer.rounds, strict=True))
        cells = [self.name, f"{self.median('wall'):.1f}", f"{self.median('cpu'):.1f}"]
        cells += [f"{peer.median(key) / self.median(key):.2f}" for key in ("wall", "cpu")]
        return f"| {' | '.join([*cells, f'{rounds[0]:.2f}-{rounds[-1]:.2f}', *more])} |"


COLUMNS = ["wall s", "CPU s", "ratio, wall", "ratio, CPU", "of the rounds"]


def head(first: str, *more: str) -> str:
    """The two lines above the rows."""
    cells = [first, *COLUMNS, *more]
    return f"| {' | '.join(cells)} |\n|{' --- |' * len(cells)}"


def _start(make: Callable[..., Any], args: tuple[Any, ...]) -> None:
    global _work
    _work = make(*args)


def _round() -> Round:
    before = os.times()
    more = _work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    after = os.times()
    return {"wall": after.elapsed - before.elapsed, "cpu": sum(after[:4]) - sum(before[:4])} | (more or {})


def _ask(method: str) -> Any:
    return getattr(_work, method)()


def take_turns(contenders: list[Contender], rounds: int, warm: int = 1) -> None:
    """A B A B, after `warm` rounds that do not count."""
    for k in range(rounds + warm):
        for contender in contenders:
            contender.measure(keep=k >= warm)


def quiet(threads: int) -> None:
    """ultralytics with as many threads as it is told, without messages and telemetry."""
    torch.set_num_threads(threads)
    torch_utils.NUM_THREADS = threads  # it sets this number itself
    LOGGER.setLevel("ERROR")
    SETTINGS.update({"sync": False, "tensorboard": False})


def copy_dataset(scratch: Path, names: list[str], folders: dict[str, Path]) -> Path:
    """The yaml of a dataset of links to folders of pictures `.../images/...` and copies of their labels.

    ultralytics writes beside the labels.
    """
    for part, source in folders.items():
        (scratch / "images").mkdir(parents=True, exist_ok=True)
        (scratch / "images" / part).symlink_to(source)
        shutil.copytree(str(source).replace("images", "labels"), scratch / "labels" / part)
    places = {"train": "images/val"} | {part: f"images/{part}" for part in folders}
    file = scratch / "data.yaml"
    file.write_text(yaml.safe_dump({"path": str(scratch), **places, "names": dict(enumerate(names))}))
    return file


def machine(args: argparse.Namespace) -> str:
    """Where and when this runs."""
    name = torch.cuda.get_device_name() if args.device != "cpu" else f"CPU, {args.threads} of {os.cpu_count()} cores"
    return f"{name}, torch {torch.__version__}, {time.strftime('%Y-%m-%d')}"
