"""What a run prints."""

import logging
import sys
from collections.abc import Iterable, Mapping

from tqdm import tqdm


def progress_bar(batches: Iterable, total: int, title: str, show: bool) -> Iterable:
    """A tqdm bar of `total` batches on a terminal; elsewhere the batches as they are: a log wants one line an epoch."""
    if not (show and sys.stdout.isatty()):
        return batches
    return tqdm(batches, title, total, leave=False, dynamic_ncols=True)


def configure_console(rank: int = 0) -> None:
    """Plain lines on standard output; ranks other than 0 say only what is wrong."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logging.basicConfig(level=logging.INFO if rank == 0 else logging.ERROR, handlers=[handler], force=True)
    for name in ("ultralytics", "matplotlib", "PIL", "fontTools", "albumentations", "tensorboard"):
        logging.getLogger(name).setLevel(logging.ERROR)


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
