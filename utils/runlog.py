"""The run folder: console, metrics.csv and TensorBoard under one set of names; only rank 0 writes."""

import csv
import json
import logging
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.utils.tensorboard import SummaryWriter

from utils.env import REPO
from utils.errors import UserError

log = logging.getLogger(__name__)
PACKAGES = (
    "torch", "torchvision", "ultralytics", "albumentations", "numpy", "opencv-python-headless", "faster-coco-eval",
)  # fmt: skip
FLUSH_EVERY = 10  # batches between two transfers of losses from the device


def configure_console(rank: int = 0) -> None:
    """Plain lines on standard output; ranks other than 0 say only what is wrong."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logging.basicConfig(level=logging.INFO if rank == 0 else logging.ERROR, handlers=[handler], force=True)
    for name in ("ultralytics", "matplotlib", "PIL", "fontTools", "albumentations", "tensorboard"):
        logging.getLogger(name).setLevel(logging.ERROR)


def make_run_folder(project: str, name: str, exist_ok: bool) -> Path:
    """project/name, or project/name2, name3, ... when taken; UserError when it cannot be written."""
    folder, number = Path(project) / name, 2
    while folder.exists() and not exist_ok:
        folder, number = Path(project) / f"{name}{number}", number + 1
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as e:
        raise UserError(f"cannot write to {folder}: {e.strerror}. Choose another --project.") from e
    return folder


def write_run_json(folder: Path, extra: dict[str, Any]) -> None:
    """Command, versions, git revision, device and threads: what is needed to explain a result later."""
    content = {
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "started": time.strftime("%Y-%m-%d %H:%M:%S"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": package_versions(),
        "git": git_revision(),
        "threads": torch.get_num_threads(),
        **extra,
    }
    file = folder / "run.json"
    if extra.get("resumed") and file.is_file():  # the first start explains the run; later ones are listed in it
        first = json.loads(file.read_text(encoding="utf-8"))
        content = first | {"resumes": [*first.get("resumes", []), content]}
    file.write_text(json.dumps(content, indent=2), encoding="utf-8")


def package_versions() -> dict[str, str]:
    """Of the libraries that a result depends on."""
    from importlib.metadata import version

    return {name: version(name) for name in PACKAGES}


def git_revision() -> str | None:
    """Commit of the repo, with '+changes' when the tree differs from it; None outside git."""
    try:
        options = {"cwd": REPO, "capture_output": True, "text": True, "timeout": 5, "check": True}
        commit = subprocess.run(["git", "rev-parse", "HEAD"], **options).stdout.strip()
        changed = subprocess.run(["git", "status", "--porcelain", "-uno"], **options).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
    return commit + ("+changes" if changed else "")


class RunLog:
    """metrics.csv and TensorBoard of one run. Scalars of a batch may live on the device until they are written."""

    def __init__(self, folder: Path, start_epoch: int = 0, start_ni: int = 0) -> None:
        self.folder, self.csv_path = folder, folder / "metrics.csv"
        self.rows = [row for row in read_metrics(self.csv_path) if row["epoch"] <= start_epoch] if start_ni else []
        self.writer = SummaryWriter(str(folder), purge_step=start_ni or None)
        self.pending: list[tuple[str, int, torch.Tensor]] = []
        self.over_batches: set[str] = set()  # tags whose x axis is ni

    def batch(self, ni: int, values: dict[str, float], tensors: dict[str, torch.Tensor]) -> None:
        """Scalars of batch `ni`: plain values at once, 0-dim tensors at the next flush (one device sync for all)."""
        for tag, value in values.items():
            self.writer.add_scalar(tag, value, ni)
        self.pending += [(tag, ni, tensor.detach()) for tag, tensor in tensors.items()]
        self.over_batches |= values.keys() | tensors.keys()
        if ni % FLUSH_EVERY == FLUSH_EVERY - 1:
            self.flush()

    def flush(self) -> None:
        """Write the scalars that wait on the device."""
        if self.pending:
            values = torch.stack([t.float() for _, _, t in self.pending]).tolist()
            for (tag, ni, _), value in zip(self.pending, values, strict=True):
                self.writer.add_scalar(tag, value, ni)
            self.pending.clear()

    def epoch(self, epoch: int, ni: int, values: dict[str, float]) -> None:
        """One row of metrics.csv, and the metrics in TensorBoard over epochs; epoch 0 is before the first batch."""
        self.flush()
        self.rows.append({"epoch": epoch, "ni": ni, **values})
        for tag, value in values.items():
            if tag not in self.over_batches:
                self.writer.add_scalar(tag, value, epoch)
        columns = list(dict.fromkeys(key for row in self.rows for key in row))
        beside = self.csv_path.with_name(f".metrics.{os.getpid()}")
        with open(beside, "w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, columns)
            table.writeheader()
            table.writerows(self.rows)
        os.replace(beside, self.csv_path)
        self.writer.flush()

    def picture(self, tag: str, image: Any, step: int) -> None:
        """An (h, w, 3) uint8 picture in TensorBoard."""
        self.writer.add_image(tag, image, step, dataformats="HWC")

    def close(self) -> None:
        """Flush and close the event file."""
        self.flush()
        self.writer.close()


def read_metrics(path: Path) -> list[dict[str, float]]:
    """Rows of a metrics.csv as numbers; empty cells are left out; no file, no rows."""
    if not path.is_file():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return [{k: float(v) for k, v in row.items() if v not in ("", None)} for row in csv.DictReader(file)]


def read_scalars(folder: Path, prefixes: tuple[str, ...], most: int = 5000) -> dict[str, list[float]]:
    """Scalars of a run's event files over `ni`: {"ni": [...], tag: [...]}, `most` points of each at most (0: all)."""
    from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={SCALARS: most})
    events.Reload()
    tags = [tag for tag in events.Tags()[SCALARS] if tag.startswith(prefixes)]
    points = {tag: {e.step: e.value for e in events.Scalars(tag)} for tag in tags}
    steps = sorted(set.intersection(*(set(p) for p in points.values()))) if points else []
    return {"ni": steps, **{tag: [points[tag][s] for s in steps] for tag in tags}} if steps else {}


def weight_rates(row: Mapping[str, float]) -> str:
    """The learning rate of the weights as text: 1.00e-02, or by part: backbone 1.00e-03 head 1.00e-02."""
    rates = {key.removeprefix("lr/"): lr for key, lr in row.items() if key.startswith("lr/") and key.endswith("weight")}
    return " ".join(f"{name.removesuffix('weight').replace('.', ' ')}{lr:.2e}" for name, lr in rates.items())


def epoch_line(epoch: int, epochs: int, row: dict[str, float]) -> str:
    """The console line of an epoch."""
    parts = [f"epoch {epoch}/{epochs}"]
    losses = [(k.removeprefix("train/"), v) for k, v in row.items() if k in ("train/box", "train/cls", "train/dfl")]
    parts += [f"{name} {value:.3f}" for name, value in losses]
    if rates := weight_rates(row):
        parts.append(f"lr {rates}")
    if "val/mAP50-95" in row:
        parts.append(f"mAP50-95 {row['val/mAP50-95']:.3f}  mAP50 {row['val/mAP50']:.3f}")
    if "raw/mAP50-95" in row:
        parts.append(f"(raw weights {row['raw/mAP50-95']:.3f})")
    if "time/images_per_s" in row:
        parts.append(f"{row['time/images_per_s']:.1f} img/s, data {row['time/data']:.0%}")
    return "  ".join(parts)
