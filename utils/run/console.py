"""What a run prints."""

import logging
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from utils.errors import let_reader_go
from utils.evaluation.truth import LIMIT, most_boxes
from utils.run.state.progress import LOSSES, Progress

log = logging.getLogger(__name__)
EVERY = 30.0  # seconds between two signs of life where the output is no terminal


def progress_bar(batches: Iterable, total: int, title: str, show: bool, done: int = 0) -> Iterable:
    """A tqdm bar of `total` batches on a terminal; elsewhere a line now and then; as they are unless `show`.

    done: how many of them were there before.
    """
    if not show:
        return batches
    if not sys.stdout.isatty():
        return signs_of_life(batches, total, title, done=done)
    return tqdm(batches, title, total, leave=False, dynamic_ncols=True, initial=done)


def signs_of_life(batches: Iterable, total: int, title: str, every: float = EVERY, done: int = 0) -> Iterator:
    """The batches, and a line where `every` seconds have passed since the last one."""
    since = time.monotonic()
    for number, batch in enumerate(batches, done + 1):
        yield batch
        if number < total and time.monotonic() - since >= every:
            log.info(f"{title}: {number} of {total}")
            since = time.monotonic()


class PictureBar:
    """Counts pictures: a bar with pictures per second on a terminal, elsewhere a line now and then."""

    def __init__(self, title: str, every: float = EVERY):
        self.title, self.every, self.total, self.done = title, every, 0, 0
        self.began = self.since = time.monotonic()
        bar = {"unit": f" {title}", "unit_scale": False, "leave": False, "dynamic_ncols": True}
        self.bar = tqdm(desc=title, total=0, **bar) if sys.stdout.isatty() else None

    def expect(self, n: int) -> None:
        """That many more are to come; 0: nobody knows."""
        self.total += n
        if self.bar is not None:
            self.bar.total = self.total or None

    def add(self, n: int) -> None:
        """That many more are done."""
        self.done += n
        now = time.monotonic()
        if self.bar is not None:
            self.bar.update(n)
        elif now - self.since >= self.every:
            rate = self.done / (now - self.began)
            log.info(f"{self.title}: {self.done} of {self.total or 'unknown'}, {rate:.1f} a second")
            self.since = now

    def close(self) -> None:
        """Take the bar away."""
        if self.bar is not None:
            self.bar.close()


class Lines(logging.StreamHandler):
    """Lines for a reader who may leave: a run goes on, in silence, when `| head` has closed the pipe."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Say what went wrong in writing a line, unless nobody reads it."""
        if not (isinstance(sys.exc_info()[1], BrokenPipeError) and let_reader_go(self.stream)):
            super().handleError(record)


def configure_console(rank: int = 0) -> None:
    """Plain lines on standard output; ranks other than 0 say only what is wrong."""
    handler = Lines(sys.stdout)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logging.basicConfig(level=logging.INFO if rank == 0 else logging.ERROR, handlers=[handler], force=True)
    for name in ("ultralytics", "matplotlib", "PIL", "fontTools", "albumentations", "tensorboard"):
        logging.getLogger(name).setLevel(logging.ERROR)


def data_lines(train: Any, val: Any) -> list[str]:
    """What the indexes of the training and the evaluation pictures hold, and a warning where they are the same."""
    boxes = f"{len(train.boxes)} + {len(val.boxes)} boxes"
    lines = [f"data      {len(train)} + {len(val)} pictures, {boxes}, {train.nc} classes"]
    if train.parts:
        each = zip(train.parts.drawn(), train.parts.sizes(), train.parts.names, strict=True)
        lines.append("          an epoch has " + ", ".join(f"{k} of the {n} of {name}" for k, n, name in each))
    empty = [int((index.offsets[1:] == index.offsets[:-1]).sum()) for index in (train, val)]
    if any(empty):
        lines.append(f"          {empty[0]} + {empty[1]} of the pictures have no box: background")
    if most_boxes(val) > LIMIT:
        lines.append("note: a val picture has more than 100 boxes of a class: detections up to max_det count, not 100")
    if train.paths == val.paths:
        lines.append("warning: train and val are the same pictures: the score says nothing about new ones")
    return lines


def model_lines(model: Any, frozen: int, transfer: Any) -> list[str]:
    """The size of a network, how many of its tensors are frozen, and what it took from a checkpoint, if from one."""
    parameters = sum(p.numel() for p in model.parameters())
    lines = [f"model     {parameters / 1e6:.2f} M parameters" + (f", {frozen} tensors frozen" if frozen else "")]
    return lines + ([f"weights   {transfer.summary()}"] if transfer else [])


def closing_lines(
    progress: Progress, best: Mapping[str, float], file: Path, intervals: list[str], data: str | None
) -> list[str]:
    """The last epoch's score and that of best.pt, as read back from disk, with lines on how sure the latter is.

    After the demo, how to train on own data.
    """
    last_too = progress.best_epoch == progress.epoch
    also = [f"  also {m['also/mAP50-95']:.4f}" if "also/mAP50-95" in m else "" for m in (progress.metrics, best)]
    lines = [] if last_too else [f"last epoch: mAP50-95 {progress.metrics['val/mAP50-95']:.4f}{also[0]} (EMA)"]
    lines.append(
        f"best {'and last ' if last_too else ''}epoch: mAP50-95 {best['val/mAP50-95']:.4f}  "
        f"mAP50 {best['val/mAP50']:.4f}{also[1]} (epoch {progress.best_epoch}, {file} as read back from disk)"
    )
    lines += intervals
    if progress.skipped:
        lines.append(f"{progress.skipped} optimizer steps were skipped: their gradient was NaN or infinite")
    if data and Path(data).stem == "toy-target":
        lines.append("your own: python train.py --weights yolo11n.pt --data your.yaml --hyp finetune --imgsz 640")
    return lines


def weight_rates(row: Mapping[str, float]) -> str:
    """The learning rate of the weights as text: 1.00e-02, or by part: backbone 1.00e-03 head 1.00e-02."""
    rates = {key.removeprefix("lr/"): lr for key, lr in row.items() if key.startswith("lr/") and key.endswith("weight")}
    return " ".join(f"{name.removesuffix('weight').replace('.', ' ')}{lr:.2e}" for name, lr in rates.items())


def epoch_line(epoch: int, epochs: int, row: dict[str, float]) -> str:
    """The console line of an epoch."""
    parts = [f"epoch {epoch}/{epochs}"]
    losses = [(part, row[f"train/{part}"]) for part in LOSSES if f"train/{part}" in row]
    parts += [f"{name} {value:.3f}" for name, value in losses]
    if rates := weight_rates(row):
        parts.append(f"lr {rates}")
    if "val/mAP50-95" in row:
        parts.append(f"mAP50-95 {row['val/mAP50-95']:.3f}  mAP50 {row['val/mAP50']:.3f}")
    if "also/mAP50-95" in row:
        parts.append(f"also mAP50-95 {row['also/mAP50-95']:.3f}")
    if "raw/mAP50-95" in row:
        parts.append(f"(raw weights {row['raw/mAP50-95']:.3f})")
    if row.get("train/skipped"):
        parts.append(f"{row['train/skipped']:.0f} steps skipped")
    if "time/images_per_s" in row:
        parts.append(f"{row['time/images_per_s']:.1f} img/s, data {row['time/data']:.0%}")
    return "  ".join(parts)
