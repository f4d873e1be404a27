"""Training against ultralytics' trainer: the same work and threads, end to end, in turns, A B A B.

    python benchmarks/train.py --weights yolov8n.pt --data bccd.yaml --imgsz 224 --amp off bf16

Both fine-tune the weights for `--epochs` with AdamW at 0.001, mosaics to the end, an evaluation after every epoch and
one of best.pt, without plots. End to end is the call that trains, imports not counted. An epoch is its training part; a
step is that divided by its batches, waiting for data included. Ratios are ultralytics' seconds divided by ours, above 1
is faster here. On a CPU it has no bf16: there bf16 is set against its fp32, on a GPU against its fp16. Peak memory is
that of the process, on a GPU what torch allocated there. On a GPU, for instance:

    python benchmarks/train.py --weights yolo11n.pt yolo11s.pt yolo11m.pt --data coco128.yaml --amp fp16 bf16
"""

import argparse
import contextlib
import io
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks.turns import Contender, copy_dataset, head, machine, quiet, take_turns  # isort: skip

import torch
from ultralytics import YOLO

from data.definition.dataset_yaml import load_dataset_yaml
from utils.device.ranks import DTYPES
from utils.run.meter import bound_by

RATES = {"lr0": 0.001, "momentum": 0.9, "nbs": 16, "warmup_epochs": 1, "close_mosaic": 0, "seed": 0}  # of both


class Clock:
    """Seconds of the training part of each epoch, and the share of them spent waiting for batches."""

    def __init__(self) -> None:
        self.epochs: list[tuple[float, float]] = []  # wall, CPU of this process
        self.waits: list[float] = []
        self.batches = 0
        self.began = (0.0, 0.0)
        self.since: float | None = None
        self.waited = 0.0

    def start(self) -> None:
        self.began, self.waited, self.batches = (time.perf_counter(), time.process_time()), 0.0, 0
        self.since = self.began[0]

    def got_batch(self) -> None:
        self.waited += time.perf_counter() - self.since
        self.batches += 1

    def done_with_batch(self) -> None:
        self.since = time.perf_counter()

    def stop(self) -> None:
        wall, cpu = time.perf_counter() - self.began[0], time.process_time() - self.began[1]
        self.epochs.append((wall, cpu))
        self.waits.append(self.waited / wall)

    def figures(self) -> dict[str, float]:
        """Medians of the epochs, without the first one where there are more: it allocates everything."""
        epochs, waits = self.epochs[1:] or self.epochs, self.waits[1:] or self.waits
        wall, cpu = (statistics.median(e[k] for e in epochs) for k in (0, 1))
        return {"epoch": wall, "step": wall / self.batches, "step_cpu": cpu / self.batches, "wait": max(waits)}


def peak_memory() -> float:
    """MiB."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


class Ours:
    """A run of train.py in this process."""

    def __init__(self, args: argparse.Namespace, weights: str, amp: str, scratch: str):
        quiet(args.threads)
        import train  # as ultralytics' trainer has been imported by now, too

        self.train = train
        shared = {"imgsz": args.imgsz, "batch": args.batch, "epochs": args.epochs, "workers": args.workers} | RATES
        self.argv = [f"{key}={value}" for key, value in shared.items()]
        self.argv += ["--weights", weights, "--data", args.data, "--amp", amp, "--cache", args.cache]
        self.argv += ["--device", args.device, "--noplots", "--exist-ok", "--project", scratch, "--name", "ours"]

    def __call__(self) -> dict[str, float]:
        train, clock = self.train, Clock()
        one_epoch = train.train_one_epoch

        def timed(training: Any, forward: Any, batches: Any, *more: Any) -> Any:
            clock.start()
            result = one_epoch(training, forward, self._watched(batches, clock), *more)
            clock.stop()
            return result

        train.train_one_epoch = timed
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                metrics = train.main(["--hyp", "finetune", *self.argv])
        finally:
            train.train_one_epoch = one_epoch
        return clock.figures() | {"memory": peak_memory(), "map": metrics["best/mAP50-95"]}

    @staticmethod
    def _watched(batches: Any, clock: Clock) -> Any:
        for batch in batches:
            clock.got_batch()
            yield batch
            clock.done_with_batch()


class Theirs:
    """A run of ultralytics' trainer in this process."""

    def __init__(self, args: argparse.Namespace, weights: str, amp: str, scratch: str):
        quiet(args.threads)
        config = load_dataset_yaml(args.data)
        self.weights = weights
        folders = {"train": config.train[0], "val": config.val[0]}
        self.told = RATES | {
            "data": str(copy_dataset(Path(scratch), config.names, folders)), "imgsz": args.imgsz, "batch": args.batch,
            "epochs": args.epochs, "workers": args.workers, "device": args.device, "plots": False, "verbose": False,
            "cache": args.cache if args.cache != "off" else False, "amp": amp != "off", "optimizer": "AdamW",
            "project": scratch, "name": "theirs", "exist_ok": True,
        }  # fmt: skip

    def __call__(self) -> dict[str, float]:
        clock, yolo = Clock(), YOLO(self.weights)
        events: dict[str, Callable[[], None]] = {
            "on_train_epoch_start": clock.start, "on_train_batch_start": clock.got_batch,
            "on_train_batch_end": clock.done_with_batch, "on_train_epoch_end": clock.stop,
        }  # fmt: skip
        for event, function in events.items():
            yolo.add_callback(event, lambda _, function=function: function())
        with contextlib.redirect_stdout(io.StringIO()):
            metrics = yolo.train(**self.told)
        return clock.figures() | {"memory": peak_memory(), "map": float(metrics.box.map)}


def cells(contender: Contender, peer: Contender) -> list[str]:
    """What the row says beside end to end."""
    step, cpu = contender.median("step"), contender.median("step_cpu")
    return [
        f"{contender.median('epoch'):.2f}", f"{1000 * step:.0f}", f"{peer.median('step') / step:.2f}",
        f"{peer.median('step_cpu') / cpu:.2f}", f"{contender.median('wait'):.0%}, {bound_by(contender.median('wait'))}",
        f"{contender.median('memory'):.0f}", f"{contender.median('map'):.3f}",
    ]  # fmt: skip


def compare(args: argparse.Namespace, weights: str, amp: str) -> None:
    """The rows of one network and precision."""
    theirs = "off" if args.device == "cpu" else amp.replace("bf16", "fp16")
    with tempfile.TemporaryDirectory() as scratch:
        peer = Contender(f"ultralytics, {Path(weights).stem}, amp {theirs}", Theirs, args, weights, amp, scratch)
        ours = Contender(f"preheat, {Path(weights).stem}, amp {amp}", Ours, args, weights, amp, scratch)
        take_turns([peer, ours], args.rounds, warm=args.warm)
        for contender in (peer, ours):
            print(contender.row(peer, *cells(contender, peer)), flush=True)


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    gpu = torch.cuda.is_available()
    parser.add_argument("--weights", nargs="+", required=True)
    parser.add_argument("--data", required=True, help="dataset yaml whose train and val are folders images/...")
    parser.add_argument("--imgsz", type=int, default=640)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--workers", type=int, default=8 if gpu else 0)
    parser.add_argument("--threads", type=int, default=1, help="of torch, on a CPU")
    parser.add_argument("--cache", choices=["off", "ram", "disk"], default="ram")
    parser.add_argument("--amp", nargs="+", choices=list(DTYPES), default=["fp16", "bf16"] if gpu else ["off", "bf16"])
    parser.add_argument("--device", default="0" if gpu else "cpu")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--warm", type=int, default=1, help="rounds before, which do not count")
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(args.threads)  # of the processes that are started from here on
    shape = f"imgsz {args.imgsz}, batch {args.batch}, {args.epochs} epochs, {args.workers} workers, cache {args.cache}"
    print(f"{machine(args)}; {shape}; medians of {args.rounds} rounds in turns\n")
    print(head("end to end", "epoch s", "step ms", "ratio, wall", "ratio, CPU", "waiting", "peak MiB", "mAP50-95"))
    for weights in args.weights:
        for amp in args.amp:
            compare(args, weights, amp)


if __name__ == "__main__":
    main()
