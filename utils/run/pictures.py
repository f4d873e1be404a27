"""The pictures of a training run: what was learned from, what was found, and how the figures moved."""

from pathlib import Path
from typing import Any

import numpy as np

from utils.evaluation.evaluate import Evaluation
from utils.evaluation.plots import plot_evaluation
from utils.run.log import RunLog, read_metrics, read_scalars
from utils.run.plots import plot_labels, plot_losses, plot_map, plot_rates, to_table
from utils.sheet import batch_sheet, picture_sheet, save_sheet

SHOWN = 9  # pictures on a sheet
SHOWN_SCORE = 0.25  # smallest score drawn


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
    sheet = batch_sheet(batch, index.names, SHOWN)
    save_sheet(sheet, folder / "train_batch.jpg")
    runlog.picture("train/batch", sheet, 0)


def show_validation(
    folder: Path, runlog: RunLog, result: Evaluation, batch: dict[str, Any], names: list[str], epoch: int
) -> None:
    """What the network finds on the first evaluation pictures (scores above 0.25), as a file and in TensorBoard."""
    boxes, classes, scores = [], [], []
    for row, letterbox in zip(batch["index"][:SHOWN], batch["letterbox"][:SHOWN], strict=True):
        found = result.detections.get(int(row), np.zeros((0, 6)))
        found = found[found[:, 4] >= SHOWN_SCORE]  # (n, 6) xyxy in pixels of the original, score, class
        boxes.append(letterbox.apply(found[:, :4]))
        classes.append(found[:, 5].astype(int))
        scores.append(found[:, 4])
    sheet = picture_sheet(batch["img"][:SHOWN], boxes, classes, names, scores)
    save_sheet(sheet, folder / "val_predictions.jpg")
    runlog.picture("val/predictions", sheet, epoch)
