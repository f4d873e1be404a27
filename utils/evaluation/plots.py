"""Pictures of an evaluation: precision and recall, F1, the confusion matrix."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from utils.drawing.figure import COLOURS, DASHES, FEW, GREY, _nothing, new_figure, panel, plain, save
from utils.evaluation.evaluate import Evaluation


def _class_lines(ax: Axes, x: np.ndarray, curves: np.ndarray, labels: Sequence[str]) -> None:
    """One line per class: coloured and named while there are few, thin and grey when there are many."""
    few = len(curves) <= FEW
    for k, (y, label) in enumerate(zip(curves, labels, strict=True)):
        if few:
            ax.plot(x, y, color=COLOURS[k], linestyle=DASHES[k % len(DASHES)], linewidth=1.3, label=label)
        else:
            ax.plot(x, y, color=GREY, linewidth=0.6, label=f"each of {len(curves)} classes" if k == 0 else None)


def _finish_unit_square(ax: Axes) -> None:
    """Both axes from 0 to 1, the legend outside."""
    ax.set(xlim=(0, 1), ylim=(0, 1.02))
    if ax.lines:
        ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1), fontsize=9)
    else:
        _nothing(ax, "no boxes to find")


def plot_pr(precision: np.ndarray, names: Sequence[str], path: Path) -> None:
    """Precision against recall at IoU 0.5: precision (101, nc) at recall 0, 0.01 ... 1; nan: class without boxes."""
    there = np.flatnonzero(np.isfinite(precision).all(0))
    curves = precision[:, there].T  # (k, 101)
    fig = new_figure(8, 5)
    ax = panel(fig.subplots(), "Precision and recall at IoU 0.5", "recall", "precision")
    recall = np.linspace(0, 1, 101)
    _class_lines(ax, recall, curves, [f"{plain(names[c])}: AP {curves[k].mean():.3f}" for k, c in enumerate(there)])
    if len(there) > 1:
        ax.plot(recall, curves.mean(0), color="black", linewidth=2.5, label=f"all classes: mAP50 {curves.mean():.3f}")
    _finish_unit_square(ax)
    save(fig, path)


def plot_f1(confidence: np.ndarray, f1: np.ndarray, labels: Sequence[str], path: Path, best: int = 0) -> None:
    """F1 at IoU 0.5 against the score threshold (1000,): f1 (k, 1000), a row per label; `best`: peak of the mean."""
    fig = new_figure(8, 5)
    ax = panel(fig.subplots(), "F1 at IoU 0.5", "score threshold", "F1")
    _class_lines(ax, confidence, f1, [plain(label) for label in labels])
    if len(f1):
        mean = f1.mean(0)
        if len(f1) > 1:
            ax.plot(confidence, mean, color="black", linewidth=2.5, label="mean of the classes")
        note = f"best mean: {mean[best]:.3f} at {confidence[best]:.3f}"
        ax.plot(confidence[best], mean[best], "o", color="black", markersize=7, label=note, clip_on=False)
    _finish_unit_square(ax)
    save(fig, path)


def plot_confusion(counts: np.ndarray, names: Sequence[str], path: Path) -> None:
    """Confusion counts (nc + 1, nc + 1), row predicted, column true, coloured by the share of the column.

    The last row holds true boxes that were missed, the last column detections where there is nothing.
    """
    n = len(counts)
    share = counts / counts.sum(0, keepdims=True).clip(1)
    side = min(max(4.5, 1.8 + 0.5 * n), 13)  # inches
    fig = new_figure(side + 0.8, side)
    ax = fig.subplots()
    image = ax.imshow(np.where(counts > 0, share, np.nan), cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    size = min(9, 0.75 * 72 * (side - 1.8) / n)  # points: three quarters of a row's height
    ax.set_xticks(range(n), [*map(plain, names), "nothing there"], rotation=90, fontsize=size)
    ax.set_yticks(range(n), [*map(plain, names), "missed"], fontsize=size)
    ax.set_xticks(np.arange(n - 1) + 0.5, minor=True)
    ax.set_yticks(np.arange(n - 1) + 0.5, minor=True)
    ax.grid(which="minor", color="#EBEBEB", linewidth=0.5)
    ax.tick_params(which="both", length=0)
    ax.spines[:].set_color("#808080")
    ax.set(xlabel="true class", ylabel="predicted class")
    ax.set_title("Confusion at score ≥ 0.25, IoU ≥ 0.45", loc="left", fontsize=11)
    if n <= 20:  # beyond, numbers would not be readable
        for i, j in zip(*np.nonzero(counts), strict=True):
            ax.text(j, i, counts[i, j], ha="center", va="center", fontsize=9, color="w" if share[i, j] > 0.5 else "k")
    bar = fig.colorbar(image, ax=ax, shrink=0.6, aspect=25, pad=0.02, label="share of the column")
    bar.outline.set_visible(False)
    save(fig, path)


def plot_evaluation(folder: Path, result: Evaluation, names: list[str]) -> None:
    """Precision-recall, F1 and confusion of one evaluation."""
    curves = result.f1
    plot_pr(result.precision50, names, folder / "PR_curve.png")
    labels = [names[c] for c in curves.classes]
    plot_f1(curves.confidence, curves.f1, labels, folder / "F1_curve.png", curves.best)
    plot_confusion(result.confusion, names, folder / "confusion.png")
