"""Figures of a run, from plain data to PNG; matplotlib's global state is not touched and no display is needed."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

# Okabe and Ito's colours, told apart by colour-blind readers too
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
GREY = "#B5B5B5"
DASHES = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (5, 1.5, 1, 1.5)))
FEW = len(COLOURS)  # up to here every class has a colour of its own; beyond, classes are thin grey lines
Table = Mapping[str, Sequence[float]]


def to_table(rows: Sequence[Mapping[str, float]]) -> dict[str, np.ndarray]:
    """Rows of a metrics.csv -> columns of equal length; a cell that a row lacks is nan."""
    keys = dict.fromkeys(key for row in rows for key in row)
    return {key: np.array([row.get(key, np.nan) for row in rows], dtype=float) for key in keys}


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of that many inches."""
    return Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1))


def panel(ax: Axes, title: str, xlabel: str, ylabel: str) -> Axes:
    """The common look of a panel of lines."""
    ax.set_title(title, loc="left", fontsize=11)
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis="y", color="#E5E5E5", linewidth=0.8)
    ax.set_axisbelow(True)
    return ax


def save(fig: Figure, path: Path) -> None:
    """Write the figure as PNG."""
    fig.savefig(path, dpi=130)


def plot_rates(table: Table, path: Path, nw: int = 0) -> None:
    """Learning rate per group, momentum and accumulate against `ni`; groups with one and the same curve share a panel.

    `nw`: length of the warm-up in batches, marked where above 0.
    """
    ni = np.asarray(table["ni"])
    groups: list[tuple[list[str], np.ndarray]] = []
    for key in (k for k in table if k.startswith("lr/")):
        values = np.asarray(table[key], dtype=float)
        same = next((names for names, v in groups if np.array_equal(v, values, equal_nan=True)), None)
        if same is not None:
            same.append(key.removeprefix("lr/"))
        else:
            groups.append(([key.removeprefix("lr/")], values))
    curves = [(f"Learning rate: {', '.join(names)}", "learning rate", values) for names, values in groups]
    curves += [("Momentum", "momentum", np.asarray(table["momentum"]))] if "momentum" in table else []
    accumulate = ("Batches per optimizer step", "batches", np.asarray(table.get("accumulate", ())))
    curves += [accumulate] if "accumulate" in table else []
    fig = new_figure(7.5, 0.5 + 1.9 * len(curves))
    axes = fig.subplots(len(curves), 1, sharex=True, squeeze=False)[:, 0]
    for ax, (title, ylabel, values) in zip(axes, curves, strict=True):
        panel(ax, title, "", ylabel)
        ax.plot(ni, values, color=COLOURS[0], drawstyle="steps-post" if ylabel == "batches" else "default")
        if ylabel == "learning rate":
            ax.set_ylim(bottom=0)
        if ylabel == "batches":
            ax.yaxis.set_major_locator(MaxNLocator(integer=True))
        if nw:
            ax.axvline(nw, color=GREY, linewidth=1, linestyle=DASHES[1])
    if nw:
        axes[0].annotate(
            "warm-up ends", (nw, 1), (4, -2), xycoords=axes[0].get_xaxis_transform(),
            textcoords="offset points", va="top", fontsize=9, color="#606060",
        )  # fmt: skip
    axes[-1].set_xlabel("batches since the run began (ni)")
    save(fig, path)


def _line(ax: Axes, x: np.ndarray, y: np.ndarray, label: str, style: int) -> None:
    """A line over epochs; points without a value are skipped, single points are seen."""
    y = np.asarray(y, dtype=float)
    there = np.isfinite(y)
    marker = "o" if there.sum() <= 30 else None
    ax.plot(
        np.asarray(x)[there], y[there], label=label, color=COLOURS[style % FEW], linestyle=DASHES[style % len(DASHES)],
        marker=marker, markersize=4, linewidth=1.8,
    )  # fmt: skip


def _over_epochs(ax: Axes, epochs: np.ndarray) -> None:
    """Whole numbers on the x axis, also for a run of a single epoch."""
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    if len(epochs) and np.min(epochs) == np.max(epochs):
        ax.set_xlim(epochs[0] - 1, epochs[0] + 1)


def plot_losses(table: Table, path: Path) -> None:
    """Mean training loss per epoch, a panel for each part (box, cls, dfl): their scales differ."""
    keys = [k for k in ("train/box", "train/cls", "train/dfl") if k in table]
    titles = {"train/box": "Box loss", "train/cls": "Class loss", "train/dfl": "Distribution focal loss"}
    fig = new_figure(max(3.6 * len(keys), 3.6), 3.2)
    for ax, key in zip(fig.subplots(1, max(len(keys), 1), squeeze=False)[0], keys, strict=False):
        panel(ax, titles[key], "epoch", "loss, mean per picture" if key == keys[0] else "")
        _line(ax, table["epoch"], table[key], key, 0)
        _over_epochs(ax, np.asarray(table["epoch"]))
    save(fig, path)


def plot_map(table: Table, path: Path) -> None:
    """mAP50-95, mAP50 and mAP75 of the evaluated weights per epoch; epoch 0 is before training."""
    fig = new_figure(7, 4)
    ax = panel(fig.subplots(), "Validation", "epoch", "average precision, mean over classes")
    for style, name in enumerate(("mAP50-95", "mAP50", "mAP75")):
        if f"val/{name}" in table:
            _line(ax, table["epoch"], table[f"val/{name}"], name, style)
    ax.set_ylim(0, 1)
    _over_epochs(ax, np.asarray(table["epoch"]))
    if any(len(line.get_xdata()) for line in ax.lines):
        ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    else:
        _nothing(ax, "never evaluated")
    save(fig, path)


def _nothing(ax: Axes, why: str) -> None:
    """Say in an empty panel why it is empty."""
    ax.text(0.5, 0.5, why, ha="center", va="center", color="#606060", transform=ax.transAxes)


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
    _class_lines(ax, recall, curves, [f"{names[c]}: AP {curves[k].mean():.3f}" for k, c in enumerate(there)])
    if len(there) > 1:
        ax.plot(recall, curves.mean(0), color="black", linewidth=2.5, label=f"all classes: mAP50 {curves.mean():.3f}")
    _finish_unit_square(ax)
    save(fig, path)


def plot_f1(confidence: np.ndarray, f1: np.ndarray, labels: Sequence[str], path: Path, best: int = 0) -> None:
    """F1 at IoU 0.5 against the score threshold (1000,): f1 (k, 1000), a row per label; `best`: peak of the mean."""
    fig = new_figure(8, 5)
    ax = panel(fig.subplots(), "F1 at IoU 0.5", "score threshold", "F1")
    _class_lines(ax, confidence, f1, labels)
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
    ax.set_xticks(range(n), [*names, "nothing there"], rotation=90, fontsize=size)
    ax.set_yticks(range(n), [*names, "missed"], fontsize=size)
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


def plot_labels(classes: np.ndarray, boxes: np.ndarray, names: Sequence[str], path: Path) -> None:
    """Boxes per class, where box centres lie and how large boxes are: classes (m,), boxes (m, 4) xywh in 0..1."""
    fig = new_figure(10, 7.5)
    top, bottom = fig.subfigures(2, 1, height_ratios=(1, 1.25))
    _class_bars(top.subplots(), np.bincount(classes.astype(int), minlength=len(names)), names)
    where, sizes = bottom.subplots(1, 2)
    heat, _, _ = np.histogram2d(boxes[:, 1], boxes[:, 0], bins=32, range=((0, 1), (0, 1)))  # (32 y, 32 x)
    look = {"cmap": "cividis", "interpolation": "nearest", "aspect": "auto"}
    image = where.imshow(heat, extent=(0, 1, 1, 0), vmin=0, vmax=max(heat.max(), 1), **look)
    bar = bottom.colorbar(image, ax=where, label="boxes", ticks=MaxNLocator(integer=True))
    bar.outline.set_visible(False)
    where.set_title("Box centres", loc="left", fontsize=11)
    where.set(xlabel="x, share of the width", ylabel="y, share of the height")
    panel(sizes, "Box sizes", "width, share of the picture's", "height, share of the picture's")
    alpha = float(np.clip(300 / max(len(boxes), 1), 0.03, 0.6))
    sizes.scatter(boxes[:, 2], boxes[:, 3], s=6, color=COLOURS[0], alpha=alpha, linewidths=0)
    sizes.set(xlim=(0, 1), ylim=(0, 1))
    save(fig, path)


def _class_bars(ax: Axes, counts: np.ndarray, names: Sequence[str]) -> None:
    """Number of boxes of each class, in the order of the names."""
    panel(ax, f"{counts.sum():,} boxes in {len(names)} classes", "", "boxes")
    ax.bar(range(len(names)), counts, color=COLOURS[0], width=0.8 if len(names) > 3 else 0.4)
    many = len(names) > 12
    ax.set_xticks(range(len(names)), names, rotation=90 if many else 0, fontsize=10 if not many else 7)
    ax.tick_params(axis="x", length=0)
    ax.set_xlim(-0.6, max(len(names), 3) - 0.4)
    ax.set_ylim(0, max(1.1 * counts.max(), 1))
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    if len(names) <= 30:
        for k, count in enumerate(counts):
            ax.annotate(f"{count:,}", (k, count), (0, 2), textcoords="offset points", ha="center", fontsize=9)
