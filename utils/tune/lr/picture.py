"""The range test as a picture: every seed's losses over the rate, and what they suggest."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from utils.drawing.figure import COLOURS, DASHES, GREY, new_figure, panel
from utils.tune.lr.ramp import Ramp, Suggestion


def draw_ramps(ramps: Sequence[Ramp], suggestions: Mapping[str, Suggestion], group: str) -> Figure:
    """Losses as they were thin, smoothed thick; a suggestion is a line at the median of the seeds, its range shaded."""
    fig = new_figure(7.2, 4.4)
    what = "of all groups" if group == "all" else f"of the group {group}, the others at lr0"
    ax = panel(fig.subplots(), "", f"learning rate {what}", "loss of a step: box + cls + dfl, with gains")
    ax.set_xscale("log")
    highest = 0.0
    for k, ramp in enumerate(ramps):
        colour, smooth = COLOURS[k % len(COLOURS)], ramp.smooth
        ax.plot(ramp.lr, ramp.loss, color=colour, linewidth=0.6, alpha=0.35)
        ax.plot(ramp.lr, smooth, color=colour, linewidth=1.8, label=f"seed {ramp.seed}")
        if ramp.diverged:
            ax.plot(ramp.lr[-1], smooth[-1], "X", color=colour, markersize=8)
        before = smooth[: int(smooth.argmin()) + 1]
        highest = max(highest, float(before.max()) + 0.5 * float(np.ptp(before)))
    for k, found in enumerate(suggestions.values()):
        ax.axvspan(min(found.each), max(found.each), color=GREY, alpha=0.25, linewidth=0)
        ax.axvline(found.lr, color="black", linestyle=DASHES[k % len(DASHES)], label=f"{found.name}: {found.lr:.2g}")
    lowest = min((float(ramp.smooth.min()) for ramp in ramps), default=0.0)
    if highest > lowest:
        ax.set_ylim(lowest - 0.15 * (highest - lowest), highest)  # what diverges leaves the picture at its top
    ax.legend(frameon=False, fontsize=9)
    return fig
