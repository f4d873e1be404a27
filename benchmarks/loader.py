"""Pictures per second of our training loader and of ultralytics', on the same dataset, in the same run, A B A B.

    python benchmarks/loader.py --data bccd.yaml --imgsz 640 320 --rounds 5

Both make mosaics (1.0) with hsv, scale 0.5, translate 0.1 and flips, batches of 16, albumentations off, one OpenCV and
one torch thread a process; collated batches arrive in the main process and every one is read there (one byte a
page). `workers 0` is one process, and with it one core. A measurement takes `--batches` batches after as many as a
loader may have made ahead; the table has the medians of the rounds and ratios to ultralytics with the same cache.
Boxes per picture, mean and standard deviation of the pixels come from the same loaders.
"""

import argparse
import contextlib
import io
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import cv2
import numpy as np
import torch
from ultralytics.cfg import get_cfg
from ultralytics.data.build import build_dataloader
from ultralytics.data.dataset import YOLODataset
from ultralytics.utils import LOGGER

import utils.env  # noqa: F401  first: it sets the environment of the libraries
from data.definition.dataset_yaml import load_dataset_yaml
from data.index.index import build_index
from data.loading.loader import build_train_loader
from utils.config.schema import Hyp

AHEAD = 12  # batches that a loader may have made ahead
BATCH = 16


def ours(args: argparse.Namespace, imgsz: int, workers: int, cache: str, **changes: object) -> Iterator[dict]:
    """Batches of our loader, epoch after epoch."""
    index = build_index(load_dataset_yaml(args.data), "train")
    hyp = Hyp(imgsz=imgsz, epochs=10**6, close_mosaic=0, cache=cache, **changes)
    loader = build_train_loader(index, hyp, batch=BATCH, workers=workers)
    return (batch for epoch in range(10**6) for batch in loader.epoch(epoch))


def theirs(args: argparse.Namespace, imgsz: int, workers: int, cache: str) -> Iterator[dict]:
    """Batches of ultralytics' loader, on a copy of the labels: it writes beside them."""
    config = load_dataset_yaml(args.data)
    source = config.train[0]
    images = args.scratch / "images/train"
    if not images.exists():
        images.parent.mkdir(parents=True)
        images.symlink_to(source)
        shutil.copytree(str(source).replace("images", "labels"), args.scratch / "labels/train")
    cfg = get_cfg(overrides={"imgsz": imgsz, "cache": cache == "ram"})
    cfg.augmentations = []
    dataset = YOLODataset(
        img_path=str(images), imgsz=imgsz, augment=True, hyp=cfg, rect=False, stride=32, batch_size=BATCH,
        cache="ram" if cache == "ram" else None,
        data={"names": dict(enumerate(config.names)), "nc": len(config.names), "channels": 3},
    )  # fmt: skip
    loader = build_dataloader(dataset, BATCH, workers, shuffle=True, rank=-1, device="cpu")
    return (batch for _ in range(10**6) for batch in loader)


class Contender:
    """A loader under measurement."""

    def __init__(self, name: str, batches: Iterator[dict]):
        self.name, self.batches = name, batches
        self.speeds: list[float] = []  # pictures per second of each round
        self.pictures = self.boxes = 0
        self.levels = np.zeros(2)  # sums of the pictures' means and standard deviations
        self.looked = 0

    def measure(self, batches: int) -> None:
        """One round; the pixels are looked at before the clock runs."""
        for _ in range(AHEAD):
            img = next(self.batches)["img"][:, :, ::4, ::4].float()
            self.levels += img.mean((1, 2, 3)).sum().item(), img.flatten(1).std(1).sum().item()
            self.looked += len(img)
        began, pictures = time.perf_counter(), 0
        for _ in range(batches):
            batch = next(self.batches)
            batch["img"].view(-1)[::4096].sum()  # every page has arrived
            pictures += len(batch["img"])
            self.boxes += len(batch["cls"])
        self.speeds.append(pictures / (time.perf_counter() - began))
        self.pictures += pictures

    def row(self, peer: "Contender") -> str:
        """Line of the table."""
        speed, theirs = statistics.median(self.speeds), statistics.median(peer.speeds)
        rounds = sorted(a / b for a, b in zip(self.speeds, peer.speeds, strict=True))
        mean, std = self.levels / self.looked
        return (
            f"| {self.name} | {speed:.0f} | {speed / theirs:.2f} | {rounds[0]:.2f}-{rounds[-1]:.2f} "
            f"| {self.boxes / self.pictures:.2f} | {mean:.1f} | {std:.1f} |"
        )


def compare(args: argparse.Namespace, imgsz: int, workers: int) -> Iterator[str]:
    """Rows of the table: every loader in turn, `rounds` times, one group a cache."""
    groups = {"ram": ("exact", "matrix"), "off": ("exact",)}
    for cache, modes in groups.items():
        text = {"ram": "pictures in memory", "off": "no cache"}[cache]
        peer = Contender(f"ultralytics, {text}", theirs(args, imgsz, workers, cache))
        contenders = [peer]
        for mode in modes:
            name = f"preheat, {text}" + (", colour matrix" if mode == "matrix" else "")
            contenders.append(Contender(name, ours(args, imgsz, workers, cache, hsv_mode=mode)))
        if cache == "ram" and workers:
            made = ours(args, imgsz, workers, cache, loader="torch")
            contenders.append(Contender("preheat, pictures in memory, --loader torch", made))
        for _ in range(args.rounds):
            for contender in contenders:
                time.sleep(1.5 if workers else 0)  # the one before makes its batches ahead
                contender.measure(args.batches)
        yield from (contender.row(peer) for contender in contenders)


def main() -> None:
    """Print one table a size and number of workers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="dataset yaml whose train is a folder images/...")
    parser.add_argument("--imgsz", type=int, nargs="+", default=[640, 320])
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, default=38)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    LOGGER.setLevel("ERROR")
    print(f"{os.cpu_count()} cores, OpenCV {cv2.__version__}, torch {torch.__version__}")
    with tempfile.TemporaryDirectory() as scratch:
        args.scratch = Path(scratch)
        for imgsz in args.imgsz:
            for workers in args.workers:
                print(f"\nimgsz {imgsz}, {f'{workers} workers' if workers else 'one process'}\n")
                print("| loader | pictures/s | ratio | of the rounds | boxes a picture | mean | std |")
                print("| --- | --- | --- | --- | --- | --- | --- |")
                with contextlib.redirect_stdout(io.StringIO()):  # their progress bars
                    rows = list(compare(args, imgsz, workers))
                print("\n".join(rows), flush=True)


if __name__ == "__main__":
    main()
