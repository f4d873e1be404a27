"""The pictures of a training run: what was learned from, what was found, and how the figures moved."""

import logging
from pathlib import Path
from typing import Any

from utils.drawing.sheet import batch_sheet, save_sheet
from utils.evaluation.evaluate import Evaluation
from utils.evaluation.output import truth_and_found
from utils.evaluation.plots import plot_evaluation
from utils.files import save_whole
from utils.run.log import RunLog, read_metrics, read_scalars
from utils.run.plots import plot_labels, plot_losses, plot_map, plot_rates, to_table

log = logging.getLogger(__name__)
SHOWN = 9  # pictures on a sheet


def keep_batch(folder: Path, batch: dict[str, Any]) -> None:
    """Keep the batch that a run was lost from for inspection: diverged.pt (tensors, files) and diverged.jpg."""
    save_whole(folder / "diverged.pt", batch)
    save_sheet(batch_sheet(batch, batch["names"]), folder / "diverged.jpg")
    first = ", ".join(files[0] for files in batch["files"][:3])
    log.info(
        f"lost from batch {batch['batch'] + 1} of epoch {batch['epoch'] + 1}: its pictures, boxes and the names of the "
        f"files are in {folder / 'diverged.pt'}, drawn in diverged.jpg ({first}{', ...' * (len(batch['files']) > 3)})"
    )


def plot_run(folder: Path, result: Evaluation, index: Any, nw: int) -> None:
    """Rates as the optimizer held them, losses, mAP, and the curves of the final evaluation, as PNG files."""
    table = to_table(read_metrics(folder / "metrics.csv"))
    rates = read_scalars(folder, ("lr/", "momentum", "accumulate"))
    if rates:
        plot_rates(rates, folder / "rates.png", nw)
    plot_losses(table, folder / "losses.png")
    plot_map(table, folder / "mAP.png")
    plot_evaluation(folder, result, index.names)


def show_training(folder: Path, runlog: RunLog, index: Any, batch: dict[str, Any]) -> None:
    """Label statistics and a sheet of one augmented training batch, as files and in TensorBoard."""
    plot_labels(index.classes, index.boxes, index.names, folder / "labels.png")
    save_sheet(batch_sheet(batch, index.names, SHOWN), folder / "train_batch.jpg")
    runlog.picture("train/batch", folder / "train_batch.jpg", 0)


def show_validation(
    folder: Path, runlog: RunLog, result: Evaluation, batch: dict[str, Any], index: Any, epoch: int
) -> None:
    """Truth beside what the network finds on the first evaluation pictures, as a file and in TensorBoard."""
    shown = zip((int(row) for row in batch["index"]), batch["img"], batch["letterbox"], strict=True)
    save_sheet(truth_and_found(shown, index, result.detections), folder / "val_predictions.jpg")
    runlog.picture("val/predictions", folder / "val_predictions.jpg", epoch)
