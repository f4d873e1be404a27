"""Pictures of the runs of a comparison: the metric over epochs, and what the first batches did."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from utils.plots import new_figure, panel
from utils.report_facts import Curve, Facts
from utils.report_figure import DARK, SHADE, Picture, add_legend, colour, dashes, short, to_picture
from utils.report_text import score

LOG_FROM = 30  # largest / smallest value from which an axis is logarithmic


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
    each = np.array([[curve.get(k, np.nan) for k in x] for curve in kept if curve])
    return Spread(np.array(x), each.reshape(-1, len(x)))


def draw_curves(facts: Facts) -> Picture | None:
    """The declared metric over epochs: each seed thin, the mean thick, the band from the lowest to the highest seed."""
    spreads = {arm: spread([run.epochs for run in facts.of(arm)]) for arm in facts.arms}
    if not any(len(s.x) for s in spreads.values()):
        return None
    fig = new_figure(5.4, 3.6)
    ax = panel(fig.subplots(), "", "epoch", facts.metric)
    words = []
    for k, (arm, s) in enumerate(spreads.items()):
        if len(s.x):
            _band(ax, s, k, facts.arms, thin=True)
            words.append(f"{arm} ends at a mean of {score(float(s.over('nanmean')[-1]))}")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    add_legend(ax)
    return to_picture(fig, f"{facts.metric} over epochs: {'; '.join(words)}.")


def draw_gaps(facts: Facts) -> Picture | None:
    """The arms' metric minus the reference's at the same seed over epochs, in points: mean and band."""
    spreads = {}
    for arm in facts.arms[1:]:
        pairs = [(reference.epochs, run.epochs) for reference, run in facts.pairs(arm)]
        spreads[arm] = spread([{e: 100 * (run[e] - ref[e]) for e in run if e in ref} for ref, run in pairs])
    if not any(len(s.x) for s in spreads.values()):
        return None
    fig = new_figure(5.4, 3.6)
    ax = panel(fig.subplots(), "", "epoch", f"arm minus {short(facts.reference)}, points")
    ax.yaxis.label.set_parse_math(False)
    ax.axhspan(-100 * facts.margin, 100 * facts.margin, color=SHADE, zorder=0)
    ax.axhline(0, color=DARK, linewidth=1, zorder=1)
    words = []
    for k, (arm, s) in enumerate(spreads.items(), start=1):
        if len(s.x):
            _band(ax, s, k, facts.arms, thin=True)
            words.append(f"{arm} from {s.over('nanmean')[0]:+.2f} to {s.over('nanmean')[-1]:+.2f}")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    add_legend(ax)
    return to_picture(fig, f"Mean difference from {facts.reference} over epochs in points: {'; '.join(words)}.")


def draw_first_batches(facts: Facts) -> list[tuple[str, Picture]]:
    """(title, picture) of learning rates, momentum, loss and gradient norm over the first batches of each arm."""
    tags = {arm: _gather([run.batches for run in facts.of(arm)]) for arm in facts.arms}
    drawn, far = [], 1.5 * facts.told["window"]
    for title, ylabel, key in _panels(tags):
        spreads = {arm: spread(curves.get(key, [])) for arm, curves in tags.items()}
        if not any(len(s.x) for s in spreads.values()):
            continue
        fig = new_figure(5.4, 3.3)
        ax = panel(fig.subplots(), "", "batches since the run began (ni)", ylabel)
        words = []
        for k, (arm, s) in enumerate(spreads.items()):
            if len(s.x):
                _band(ax, s, k, facts.arms)
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


def _band(ax: Axes, s: Spread, k: int, arms: Sequence[str], thin: bool = False) -> None:
    """Mean line and lowest-to-highest band of arm number k, its curves thin; later arms have thinner lines.

    So equal means are all seen, as in the plan's picture. Few points are seen as points.
    """
    look = {"color": colour(k), "linestyle": dashes(k), "marker": "o" if len(s.x) <= 12 else None, "markersize": 3.5}
    look["linewidth"] = 1.4 + min(1.3, 3 / len(arms)) * (len(arms) - 1 - k)
    for y in s.each if thin else ():
        there = np.isfinite(y)
        ax.plot(s.x[there], y[there], color=colour(k), linewidth=0.6, alpha=0.6)
    ax.fill_between(s.x, s.over("nanmin"), s.over("nanmax"), color=colour(k), alpha=0.15, linewidth=0)
    ax.plot(s.x, s.over("nanmean"), **look, label=" " + short(arms[k]))


def _mark_warmups(ax: Axes, facts: Facts) -> None:
    """A vertical line where warm-ups end, in the colour of the arm if it is only one's."""
    ends: dict[int, list[int]] = {}
    for k, arm in enumerate(facts.told["arms"]):
        if arm["nw"]:
            ends.setdefault(arm["nw"], []).append(k)
    for nw, owners in ends.items():
        own = colour(owners[0]) if len(owners) == 1 else DARK
        ax.axvline(nw, color=own, linewidth=1, linestyle=dashes(1))
        ax.annotate(
            "warm-up ends", (nw, 0.4), (3, 0), xycoords=ax.get_xaxis_transform(), textcoords="offset points",
            rotation=90, ha="left", va="center", fontsize=8, color=own,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 0.5},
        )  # fmt: skip
