"""What the pictures of a comparison have in common: names, bands, legends, PNG inside the page."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from utils.compare.report.facts import Curve
from utils.drawing.figure import COLOURS, DASHES, readable
from utils.drawing.page import clean

DARK = "#404040"
LETTERS = 24  # of an arm's name in a picture


@dataclass(frozen=True)
class Spread:
    """Several curves at all their places together; nan where no curve has a value."""

    x: np.ndarray  # (k,)
    each: np.ndarray  # (curves, k)

    def over(self, function: str) -> np.ndarray:
        """nanmean, nanmin or nanmax over the curves, (k,)."""
        return getattr(np, function)(self.each, axis=0)


def spread(curves: Sequence[Curve]) -> Spread:
    """Curves of the runs of an arm, aligned; values that are not finite are left out."""
    kept = [{k: v for k, v in curve.items() if math.isfinite(v)} for curve in curves]
    x = sorted({k for curve in kept for k in curve})
    each = np.array([[curve.get(k, np.nan) for k in x] for curve in kept if curve])  # (0,) where there is nothing
    return Spread(np.array(x), each)


def colour(k: int) -> str:
    """Of the arm number k."""
    return COLOURS[k % len(COLOURS)]


def dashes(k: int) -> object:
    """Line style of the arm number k."""
    return DASHES[k % len(DASHES)]


def short(name: str) -> str:
    """An arm's name on one line of a picture."""
    name = readable(clean(name).replace("\n", " "))
    return name if len(name) <= LETTERS else f"{name[: LETTERS - 9]}…{name[-8:]}"


def draw_band(ax: Axes, s: Spread, k: int, arms: Sequence[str], thin: bool = False) -> None:
    """Mean line and lowest-to-highest band of arm number k, its curves thin; later arms have thinner lines.

    So equal means are all seen, as in the plan's picture. Few points are seen as points.
    """
    style = {"color": colour(k), "linestyle": dashes(k), "marker": "o" if len(s.x) <= 12 else None, "markersize": 3.5}
    style["linewidth"] = 1.4 + min(1.3, 3 / len(arms)) * (len(arms) - 1 - k)
    for y in s.each if thin else ():
        there = np.isfinite(y)
        ax.plot(s.x[there], y[there], color=colour(k), linewidth=0.6, alpha=0.6)
    ax.fill_between(s.x, s.over("nanmin"), s.over("nanmax"), color=colour(k), alpha=0.15, linewidth=0)
    ax.plot(s.x, s.over("nanmean"), **style, label=" " + short(arms[k]))


def add_legend(ax: Axes) -> None:
    """Names above the panel; a name is text, never a formula."""
    for text in ax.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=2, fontsize=9).get_texts():
        text.set_parse_math(False)


def frame_rows(ax: Axes, bottom: float, ends: Sequence[float]) -> None:
    """What is left to do for a panel of rows, the first on top: no left edge, round ticks, room around `ends`."""
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.set_ylim(bottom, -0.7)
    ax.xaxis.set_major_locator(MaxNLocator(6, steps=(1, 2, 5, 10)))
    pad = 0.06 * (max(ends) - min(ends)) or 1.0
    ax.set_xlim(min(ends) - pad, max(ends) + pad)


def beside(ax: Axes, row: float, text: str, weight: str = "normal") -> None:
    """A number at the right edge of a row."""
    ax.annotate(text, (1.02, row), xycoords=ax.get_yaxis_transform(), va="center", fontsize=9, weight=weight)
