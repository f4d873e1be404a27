"""Figures of a run, from plain data to PNG; matplotlib's global state is not touched and no display is needed."""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

# Okabe and Ito's colours, told apart by colour-blind readers too
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
GREY = "#B5B5B5"
DASHES = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (5, 1.5, 1, 1.5)))
FEW = len(COLOURS)  # up to here every class has a colour of its own; beyond, classes are thin grey lines


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


def _nothing(ax: Axes, why: str) -> None:
    """Say in an empty panel why it is empty."""
    ax.text(0.5, 0.5, why, ha="center", va="center", color="#606060", transform=ax.transAxes)


SHADE = "#F1EBDD"  # behind a warm-up
