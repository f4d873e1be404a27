"""Every warm-up and decay in one picture: python -m utils.schedule.gallery FILE.png"""

import sys
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from utils.config.kinds import DECAYS, WARMUPS
from utils.config.schema import Hyp
from utils.drawing.figure import COLOURS, SHADE, new_figure, panel, save
from utils.schedule.rates import build_schedule

KINDS = {"epochs": 100, "lr0": 1.0, "lrf": 0.02, "warmup_epochs": 10, "warmup_bias_lr": None, "nbs": 64}
OF_WARMUP = {f"warmup: {kind.label(name)}": {"warmup": name, **kind.example} for name, kind in WARMUPS.items()} | {
    "warmup_bias_lr: 2 (biases only)": {"warmup_bias_lr": 2.0},
    "decay_from: warmup": {"decay_from": "warmup"},
    "clock: epoch": {"clock": "epoch", "epochs": 12, "warmup_epochs": 2},
    "warmup_clock: epoch": {"warmup_clock": "epoch", "epochs": 12, "warmup_epochs": 3},
}
OF_DECAY = {f"decay: {kind.label(name)}": {"decay": name, **kind.example} for name, kind in DECAYS.items()}
NB = 20  # batches per epoch in the picture of all kinds
SCORES = [min(0.02 * epoch, 0.3) for epoch in range(100)]  # made up: what the plateau looks at; stuck from epoch 15 on


def plot_kinds(path: Path) -> None:
    """Every warm-up and every decay as the schedule really computes it: a small panel each, warm-up shaded."""
    kinds = OF_WARMUP | OF_DECAY
    columns = 4
    fig = new_figure(12, 0.4 + 1.95 * -(-len(kinds) // columns))
    axes = fig.subplots(-(-len(kinds) // columns), columns, squeeze=False).flat
    for ax in axes[len(kinds) :]:
        ax.remove()
    for ax, (title, keys) in zip(axes, kinds.items(), strict=False):
        _kind(ax, title, keys)
    handles = [Patch(color=SHADE, label="warm-up"), Line2D([], [], alpha=0, label="* with decay_from: warmup")]
    fig.legend(handles=handles, loc="outside upper left", frameon=False, ncols=2)
    save(fig, path)


def _kind(ax: Axes, title: str, keys: dict[str, object]) -> None:
    """One panel: lr as a multiple of lr0 over the run."""
    hyp = Hyp(**(KINDS | keys))
    schedule = build_schedule(hyp, NB, 64)
    ni = np.arange(schedule.total)
    group = "bias" if "warmup_bias_lr" in keys else "weight"
    lr = [schedule(int(k), SCORES[: k // NB]).lr[group] / hyp.lr0 for k in ni]
    panel(ax, "", "", "")
    ax.set_title(title, loc="left", fontsize=10)
    if schedule.nw:
        ax.axvspan(0, schedule.nw / schedule.total, color=SHADE, linewidth=0, zorder=0)
    ax.plot(ni / (schedule.total - 1), lr, color=COLOURS[0] if title in OF_WARMUP else COLOURS[1], linewidth=1.8)
    ax.set(xlim=(0, 1), ylim=(0, 1.08 * max(*lr, 1.0)), xticks=[0, 1], yticks=[0, 1])
    ax.set_xticklabels(["0", "end"])
    ax.set_yticklabels(["0", "lr0"])


if __name__ == "__main__":
    plot_kinds(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/pictures/schedules.png"))
