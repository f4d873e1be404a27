"""Figures of a dataset: classes, where boxes lie, how large they are, how many a picture has; a sheet of pictures."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import SubFigure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from data.index.index import Index
from data.pictures.decode import load_picture
from data.report.counts import TINY, Counts
from data.report.text import shorten
from utils.boxes import xywhn_to_xyxy
from utils.drawing.figure import COLOURS, DASHES, new_figure, panel, plain, save
from utils.drawing.sheet import picture_sheet, save_sheet
from utils.errors import UserError

NAMED = 100  # classes that have their names below the bars
LETTERS = 22  # of a class name below a bar
LINES = (TINY, 32, 96)  # pixels
PICTURES, CELL = 12, 400  # on the sheet, and pixels of the long side of each


def plot_boxes(splits: dict[str, Counts], names: Sequence[str], imgsz: int, path: Path) -> None:
    """Boxes per class, box centres, box sizes at imgsz, boxes per picture."""
    fig = new_figure(14, 9)
    top, bottom = fig.subfigures(2, 1, height_ratios=(1, 1.05))
    _classes(top.subplots(), splits, names)
    where, sizes, numbers = bottom.subplots(1, 3, width_ratios=(1, 1.1, 1))
    xywhn = np.concatenate([c.xywhn for c in splits.values()])
    pixels = np.concatenate([c.at(imgsz) for c in splits.values()])
    _centres(bottom, where, xywhn)
    _sizes(bottom, sizes, pixels, imgsz)
    _per_picture(numbers, splits)
    save(fig, path)


def _classes(ax: Axes, splits: dict[str, Counts], names: Sequence[str]) -> None:
    """A bar for each class and split; beyond NAMED classes curves, each split's most frequent class first."""
    boxes = np.array([c.class_boxes for c in splits.values()])  # (splits, nc)
    total = ", ".join(f"{c.boxes:,} in {split}" for split, c in splits.items())
    panel(ax, f"Boxes of {len(names)} class{'es' if len(names) > 1 else ''}: {total}", "", "boxes")
    n, width = len(names), 0.8 / len(splits)
    for s, split in enumerate(splits):
        if n > NAMED:
            ax.plot(range(n), np.sort(boxes[s])[::-1], color=COLOURS[s], label=split, linewidth=1.3)
            continue
        x = np.arange(n) + (s - (len(splits) - 1) / 2) * width
        bars = ax.bar(x, boxes[s], width, color=COLOURS[s], label=split)
        if n * len(splits) <= 24:
            ax.bar_label(bars, [f"{count:,}" for count in boxes[s]], padding=2, fontsize=9)
    there = boxes[boxes > 0]
    if len(there) and there.max() > 50 * there.min():
        ax.set_yscale("log")
        ax.set(ylabel="boxes, logarithmic", ylim=(0.5, 2 * there.max()))
    else:
        ax.set_ylim(0, 1.15 * max(boxes.max(), 1))
        ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:,.0f}"))
    if n > NAMED:
        ax.set_xlabel("classes, the most frequent of each split first")
    else:
        shown = [plain(shorten(name, LETTERS)) for name in names]
        upright = n > 12 or sum(map(len, shown)) > 110
        ax.set_xticks(range(n), shown, rotation=90 if upright else 0, fontsize=9 if n <= 50 else 7)
        ax.tick_params(axis="x", length=0)
        ax.set_xlim(-0.6 - max(4 - n, 0) / 2, n - 0.4 + max(4 - n, 0) / 2)
    if len(splits) > 1:
        ax.legend(frameon=False, ncols=len(splits), loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0)


def _centres(fig: SubFigure, ax: Axes, xywhn: np.ndarray) -> None:
    """How often a box's centre lies in each part of the picture."""
    bins = 32 if len(xywhn) > 10_000 else 16
    heat, _, _ = np.histogram2d(xywhn[:, 1], xywhn[:, 0], bins=bins, range=((0, 1), (0, 1)))  # (bins y, bins x)
    look = {"cmap": "cividis", "interpolation": "nearest", "aspect": "auto"}
    image = ax.imshow(heat, extent=(0, 1, 1, 0), vmin=0, vmax=max(heat.max(), 1), **look)
    _scale(fig, ax, image)
    ax.set_title("Box centres", loc="left", fontsize=11)
    ax.set(xlabel="x, share of the width", ylabel="y, share of the height")


def _scale(fig: SubFigure, ax: Axes, image: ScalarMappable) -> None:
    """What the colours mean: numbers of boxes."""
    bar = fig.colorbar(image, ax=ax, ticks=MaxNLocator(integer=True))
    bar.ax.set_title("boxes", fontsize=9, loc="left")
    bar.outline.set_visible(False)


def _sizes(fig: SubFigure, ax: Axes, pixels: np.ndarray, imgsz: int) -> None:
    """Widths and heights, logarithmic, with the borders of what is tiny, small and large."""
    panel(ax, f"Box sizes at imgsz {imgsz}", "width, pixels", "height, pixels")
    low = min(max(float(pixels.min(initial=TINY)), 1) / 1.3, TINY / 2)
    edges = np.geomspace(low, 1.1 * imgsz, 49)
    heat, _, _ = np.histogram2d(*pixels.clip(low, 1.1 * imgsz).T, bins=(edges, edges))  # (48 w, 48 h)
    image = ax.pcolormesh(edges, edges, np.where(heat > 0, heat, np.nan).T, cmap="viridis_r", vmin=0, rasterized=True)
    _scale(fig, ax, image)
    for side in LINES:
        ax.plot([side, side, low], [low, side, side], color="#808080", linewidth=0.9, linestyle="--", zorder=3)
        ax.annotate(f"{side} px", (side, low), (2, 2), textcoords="offset points", fontsize=8, color="#606060")
    ax.set(xscale="log", yscale="log", xlim=(low, 1.1 * imgsz), ylim=(low, 1.1 * imgsz))
    ticks = [t for t in (2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096) if low <= t <= 1.1 * imgsz]
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_ticks(ticks, list(map(str, ticks)), fontsize=8)
        axis.set_minor_formatter(NullFormatter())
        axis.set_ticks([], minor=True)


def _per_picture(ax: Axes, splits: dict[str, Counts]) -> None:
    """The share of pictures with 0, 1, 2 ... boxes, in steps of more than one where there are many."""
    panel(ax, "Boxes per picture", "boxes", "share of the split's pictures")
    most = max(int(c.per_picture.max()) for c in splits.values())
    step = max(1, -(-(most + 1) // 40))
    edges = np.arange(0, most + step + 1, step) - 0.5
    for s, c in enumerate(splits.values()):
        share = np.histogram(c.per_picture, edges)[0] / max(c.pictures, 1)
        ax.stairs(share, edges, color=COLOURS[s], linewidth=1.8, linestyle=DASHES[s], fill=len(splits) == 1)
    ax.set_xlim(-0.5, edges[-1])
    ax.set_ylim(bottom=0)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{100 * v:g}%"))


def write_sheet(indexes: dict[str, Index], path: Path, white: float | None = None) -> None:
    """Some pictures with their boxes, spread evenly over the first split: those with boxes, if there are enough."""
    split, index = next(iter(indexes.items()))
    rows = np.flatnonzero(np.diff(index.offsets))
    images, boxes, classes, captions = [], [], [], []
    for row in rows[np.linspace(0, len(rows) - 1, min(PICTURES, len(rows))).round().astype(int)]:
        try:
            bgr = load_picture(index.paths[int(row)], tuple(index.shapes[row].tolist()), CELL, True, white)
        except UserError:  # damaged in the middle: found when it is decoded; a sheet does without
            continue
        h, w = bgr.shape[:2]
        images.append(bgr[:, :, ::-1].transpose(2, 0, 1))
        boxes.append(xywhn_to_xyxy(np.asarray(index.boxes[index.rows(int(row))]), w, h))
        classes.append(np.asarray(index.classes[index.rows(int(row))]))
        captions.append(f"{split}: {Path(index.paths[int(row)]).name}")
    save_sheet(picture_sheet(images, boxes, classes, index.names, captions=captions, columns=4, cell=CELL), path)
