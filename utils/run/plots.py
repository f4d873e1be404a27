"""Pictures of a run: rates, losses and scores over the batches and epochs; labels of the training pictures."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from utils.drawing.figure import COLOURS, DASHES, FEW, GREY, _nothing, new_figure, panel, plain, save

Table = Mapping[str, Sequence[float]]


def to_table(rows: Sequence[Mapping[str, float]]) -> dict[str, np.ndarray]:
    """Rows of a metrics.csv -> columns of equal length; a cell that a row lacks is nan."""
    keys = dict.fromkeys(key for row in rows for key in row)
    return {key: np.array([row.get(key, np.nan) for row in rows], dtype=float) for key in keys}


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
        ax.ticklabel_format(useOffset=False)
        if np.ptp(values) <= 1e-9 * np.abs(values).max(initial=0):  # else the axis magnifies rounding
            ax.set_ylim(0, 1.25 * np.abs(values).max(initial=0) or 1)
        elif ylabel == "learning rate":
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
    """Mean loss per epoch, of training and of validation, a panel for each part: their scales differ."""
    titles = {"box": "Box loss", "cls": "Class loss", "dfl": "Distribution focal loss", "obj": "Objectness loss"}
    parts = [part for part in titles if f"train/{part}" in table]
    fig = new_figure(max(3.6 * len(parts), 3.6), 3.2)
    for ax, part in zip(fig.subplots(1, max(len(parts), 1), squeeze=False)[0], parts, strict=False):
        panel(ax, titles[part], "epoch", "loss, mean per picture" if part == parts[0] else "")
        for style, (key, label) in enumerate({f"train/{part}": "train", f"val/{part}": "val (EMA)"}.items()):
            if key in table:
                _line(ax, table["epoch"], table[key], label, style)
        _over_epochs(ax, np.asarray(table["epoch"]))
        if len(ax.lines) > 1:
            ax.legend(frameon=False)
    save(fig, path)


def plot_map(table: Table, path: Path) -> None:
    """mAP50-95, mAP50 and mAP75 of the evaluated weights per epoch, on both sets; epoch 0 is before training."""
    fig = new_figure(7, 4)
    ax = panel(fig.subplots(), "Validation", "epoch", "average precision, mean over classes")
    lines = {f"val/{name}": name for name in ("mAP50-95", "mAP50", "mAP75")}
    lines |= {f"also/{name}": f"{name} of val_also" for name in ("mAP50-95", "mAP50")}
    for style, (key, label) in enumerate(lines.items()):
        if key in table:
            _line(ax, table["epoch"], table[key], label, style)
    ax.set_ylim(0, 1)
    _over_epochs(ax, np.asarray(table["epoch"]))
    if any(len(line.get_xdata()) for line in ax.lines):
        ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    else:
        _nothing(ax, "never evaluated")
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
    ax.set_xticks(
        range(len(names)), [plain(name) for name in names], rotation=90 if many else 0, fontsize=10 if not many else 7
    )
    ax.tick_params(axis="x", length=0)
    ax.set_xlim(-0.6, max(len(names), 3) - 0.4)
    ax.set_ylim(0, max(1.1 * counts.max(), 1))
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    if len(names) <= 30:
        for k, count in enumerate(counts):
            ax.annotate(f"{count:,}", (k, count), (0, 2), textcoords="offset points", ha="center", fontsize=9)
