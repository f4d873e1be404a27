"""Pictures of the first batches of a comparison: learning rates, momentum, loss and gradient norm of each arm."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from utils.compare.report.facts import Curve, Facts
from utils.compare.report.figure import DARK, add_legend, colour, dashes, draw_band, spread
from utils.drawing.figure import new_figure, panel
from utils.drawing.page import Picture, to_picture

LOG_FROM = 30  # largest / smallest value from which an axis is logarithmic


def draw_first_batches(facts: Facts) -> list[tuple[str, Picture]]:
    """(title, picture) of learning rates, momentum, loss and gradient norm over the first batches of each arm."""
    tags = {arm: _gather([run.batches for run in facts.of(arm)]) for arm in facts.arms}
    drawn, far = [], 1.5 * facts.record.window
    for title, ylabel, key in _panels(tags):
        spreads = {arm: spread(curves.get(key, [])) for arm, curves in tags.items()}
        if not any(len(s.x) for s in spreads.values()):
            continue
        fig = new_figure(5.4, 3.3)
        ax = panel(fig.subplots(), "", "batches since the run began (ni)", ylabel)
        words = []
        for k, (arm, s) in enumerate(spreads.items()):
            if len(s.x):
                draw_band(ax, s, k, facts.arms)
                mean = s.over("nanmean")
                words.append(f"{arm} from {mean[0]:.3g} to {mean[-1]:.3g}, highest {np.max(mean):.3g}")
        _mark_warmups(ax, facts)
        values = np.concatenate([s.each.ravel() for s in spreads.values()])
        values = values[np.isfinite(values)]
        if key in ("loss", "train/grad_norm") and values.min() > 0 and values.max() > LOG_FROM * values.min():
            ax.set_yscale("log")
        elif key.startswith("lr/"):
            ax.set_ylim(bottom=0)
        ax.set_xlim(-0.02 * far, 1.02 * far)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        add_legend(ax)
        drawn.append((title, to_picture(fig, f"{title} over the first batches: {'; '.join(words)}.")))
    return drawn


def _gather(runs: Sequence[Mapping[str, Curve]]) -> dict[str, list[Curve]]:
    """Curves of the runs of an arm by tag; `loss` is the sum of the parts that all belong to."""
    curves: dict[str, list[Curve]] = {}
    for batches in runs:
        for tag, curve in batches.items():
            curves.setdefault(tag, []).append(curve)
        parts = [c for tag, c in batches.items() if tag.startswith("train/") and tag != "train/grad_norm"]
        if parts:
            shared = sorted(set.intersection(*(set(part) for part in parts)))
            curves.setdefault("loss", []).append({ni: sum(part[ni] for part in parts) for ni in shared})
    return curves


def _panels(tags: Mapping[str, Mapping[str, list[Curve]]]) -> list[tuple[str, str, str]]:
    """(title, label of the y axis, key) of each panel; groups with one and the same learning rate share one."""
    groups: list[list[str]] = []
    for key in dict.fromkeys(tag for curves in tags.values() for tag in curves if tag.startswith("lr/")):
        same = (g for g in groups if all(curves.get(g[0]) == curves.get(key) for curves in tags.values()))
        group = next(same, None)
        groups += [[key]] if group is None else []
        if group is not None:
            group.append(key)
    rates = [(f"Learning rate: {', '.join(k.removeprefix('lr/') for k in g)}", "learning rate", g[0]) for g in groups]
    return [
        *rates,
        ("Momentum", "momentum", "momentum"),
        ("Loss, sum of its parts", "loss, mean per picture", "loss"),
        ("Gradient norm before clipping", "norm at each step", "train/grad_norm"),
    ]


def _mark_warmups(ax: Axes, facts: Facts) -> None:
    """A vertical line where warm-ups end, in the colour of the arm if it is only one's."""
    ends: dict[int, list[int]] = {}
    for k, arm in enumerate(facts.record.arms):
        if arm.nw:
            ends.setdefault(arm.nw, []).append(k)
    for nw, owners in ends.items():
        own = colour(owners[0]) if len(owners) == 1 else DARK
        ax.axvline(nw, color=own, linewidth=1, linestyle=dashes(1))
        ax.annotate(
            "warm-up ends", (nw, 0.4), (3, 0), xycoords=ax.get_xaxis_transform(), textcoords="offset points",
            rotation=90, ha="left", va="center", fontsize=8, color=own,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 0.5},
        )  # fmt: skip
