"""Pictures over all cells: the effect in each as a forest plot, and the scores over a sweep."""

import numpy as np
from matplotlib.axes import Axes

from utils.compare.cells.family import Answer, Family
from utils.compare.report.facts import Facts
from utils.compare.report.figure import DARK, add_legend, beside, colour, dashes, frame_rows, short
from utils.compare.report.words import margin_words, score
from utils.compare.statistics.sweep import usable_height
from utils.drawing.figure import GREY, SHADE, new_figure, panel
from utils.drawing.page import Picture, to_picture

OF = {
    "score": "points of {metric}",
    "best": "points of {metric}, at its best {key}",
    "range": "decades of usable {key}",
}


def draw_forest(family: Family, told: Answer, k: int) -> Picture | None:
    """The effect of arm number k in every group with its 95 % interval, then the mean of all and a new data set."""
    if not told.effects:
        return None
    scale = 100 if told.unit == "points" else 1
    pooled = told.pooled
    n = len(told.effects)
    rows = n + (2.2 if pooled else 0)
    fig = new_figure(6.4, 1.2 + 0.32 * rows)
    what = OF[told.question].format(metric=family.promise.metric, key=family.key)
    ax = panel(fig.subplots(), "", f"{short(told.arm)} minus {short(family.promise.reference)}, {what}", "")
    ax.xaxis.label.set_parse_math(False)
    ax.grid(False)
    margin = 100 * family.promise.margin if scale == 100 else 0.0
    if margin:
        ax.axvspan(-margin, margin, color=SHADE, zorder=0)
    ax.axvline(0, color=DARK, linewidth=1, zorder=1)
    labels, places, ends = [], [], [-margin, margin]
    for row, effect in enumerate(told.effects):
        ends += _row(ax, row, (effect.mean, effect.low, effect.high), scale, colour(k), "o")
        labels.append(short(effect.group or "all"))
        places.append(float(row))
    if pooled:
        ax.axhline(n - 0.2, color=GREY, linewidth=0.8)
        for at, name, low, high, style in (
            (n + 0.4, "mean, 95 %", pooled.low, pooled.high, "D"),
            (n + 1.4, "a new data set, 95 %", pooled.new_low, pooled.new_high, "|"),
        ):
            ends += _row(ax, at, (pooled.mean, low, high), scale, "black", style)
            labels.append(name)
            places.append(at)
    ax.set_yticks(places, labels, parse_math=False, fontsize=10 if n <= 30 else 7)
    frame_rows(ax, rows - 0.3, ends)
    listed = ", ".join(f"{effect.group or 'all'} {scale * effect.mean:+.2f}" for effect in told.effects)
    return to_picture(fig, f"{told.sentence} Each: {listed}.")


def _row(ax: Axes, at: float, values: tuple[float, float | None, float | None], scale: float, own: str, mark: str):
    """An interval and its middle on a row, the number beside it; returns the ends."""
    mean, low, high = (None if v is None else scale * v for v in values)
    if low is not None and high is not None:
        ax.plot([low, high], [at, at], color=own, linewidth=2.5, solid_capstyle="butt", zorder=3, alpha=0.8)
    ax.plot(mean, at, mark, color=own, markersize=8, zorder=4, markeredgewidth=2 if mark == "|" else 0)
    beside(ax, at, f"{mean:+.2f}")
    return [v for v in (mean, low, high) if v is not None]


def draw_sweep(family: Family, facts: dict[str, Facts], group: str) -> Picture | None:
    """Score over the swept value in one group: every seed thin, the mean thick; a cross is a run that diverged."""
    cells = [cell for cell in family.cells if cell.group == group]
    numbers = all(isinstance(cell.value, int | float) and not isinstance(cell.value, bool) for cell in cells)
    cells = sorted(cells, key=lambda cell: cell.value) if numbers else cells
    log_scale = numbers and all(cell.value > 0 for cell in cells)
    x = np.array([cell.value for cell in cells], float) if numbers else np.arange(len(cells), dtype=float)
    fig = new_figure(6.4, 4.0)
    ax = panel(fig.subplots(), "", str(family.key), family.promise.metric)
    ax.xaxis.label.set_parse_math(False)
    words, arms, height = [], facts[cells[0].name].arms, 0.0
    for k, arm in enumerate(arms):
        runs = [facts[cell.name].of(arm) for cell in cells]
        each = np.array([[np.nan if run.counted is None else run.counted for run in column] for column in runs]).T
        if np.isnan(each).all():
            continue
        for y in each:
            ax.plot(x, y, color=colour(k), linewidth=0.6, alpha=0.6)
        for place, column in zip(x, runs, strict=True):
            lost = sum(run.status == "diverged" for run in column)
            ax.plot([place] * lost, [0.0] * lost, "X", color=colour(k), markersize=7)
        mean = np.nanmean(each, axis=0)
        height = float(usable_height(np.nan_to_num(mean)[None], family.promise.within)) if k == 0 else height
        ax.plot(x, mean, color=colour(k), linestyle=dashes(k), marker="o", linewidth=2, label=" " + short(arm))
        listed = ", ".join(f"{cell.value} {score(float(m))}" for cell, m in zip(cells, mean, strict=True))
        words.append(f"{arm}: {listed}")
    if log_scale and words:
        ax.set_xscale("log")
        ax.axhline(height, color=DARK, linewidth=0.9, linestyle=":")
        ax.annotate(
            f"usable: within {margin_words(family.promise.within)}", (0.01, height), (0, 3),
            xycoords=ax.get_yaxis_transform(), textcoords="offset points", fontsize=8, color=DARK,
        )  # fmt: skip
    ax.set_xticks(x, [f"{cell.value}" for cell in cells], parse_math=False)
    ax.minorticks_off()
    add_legend(ax)
    return to_picture(fig, f"{family.promise.metric} over {family.key}: {'; '.join(words)}.") if words else None
