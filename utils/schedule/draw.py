"""Pictures of schedules: the plan of one or several runs."""

import utils.env  # noqa: F401, I001  (first: sets the environment that matplotlib reads on import)

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from utils.config.schema import Hyp
from utils.drawing.figure import COLOURS, DASHES, SHADE, panel, plain, save
from utils.schedule.plan import Plan, grid, warmup_lengths
from utils.schedule.rates import Schedule, ema_span


@dataclass(frozen=True)
class Drawn:
    """A plan under the name that the legend gives it."""

    name: str
    schedule: Schedule
    plan: Plan
    hyp: Hyp


@dataclass(frozen=True)
class _Lines:
    """What is drawn of one plan."""

    ni: np.ndarray  # (k,)
    x: np.ndarray  # (k,) what stands on the axis: ni, or epochs
    values: dict[str, np.ndarray]  # (k,) each
    stride: float  # batches per unit of x


def plot_plan(drawn: Sequence[Drawn], path: Path) -> None:
    """A row per quantity, a colour per plan; groups of one and the same curve share a row.

    A warm-up that is short beside the run is seen larger on the right. The x axis counts batches, or epochs where plans
    differ in batches per epoch.
    """
    in_epochs = len({d.schedule.nb for d in drawn}) > 1
    lines = [_read(d, in_epochs) for d in drawn]
    panels = _panels(lines)
    longest = [max(warmup_lengths(d.schedule).values()) for d in drawn]
    near = 1.5 * max(nw / line.stride for nw, line in zip(longest, lines, strict=True))  # 0: no warm-up at all
    columns = 2 if 0 < near < 0.4 * max(float(line.x[-1]) for line in lines) else 1
    legend = 0.45 + 0.25 * -(-len(drawn) // 4)  # inches, as all that follow
    width, height = 8 + 3.5 * (columns - 1), 0.8 + legend + 1.7 * len(panels)
    fig = Figure(figsize=(width, height))  # margins by hand: the automatic layout takes as long as all the rest
    axes = fig.subplots(len(panels), columns, sharex="col", sharey="row", squeeze=False, width_ratios=(2, 1)[:columns])
    below = 0.6 if in_epochs else 1.05
    fig.subplots_adjust(0.95 / width, below / height, 1 - 0.2 / width, 1 - legend / height, wspace=0.06, hspace=0.4)
    for row, (title, keys) in zip(axes, panels, strict=True):
        kind = keys[0].split("/")[0]
        for ax in row:
            panel(ax, "", "", "")
            _panel_of(ax, keys[0], lines, drawn)
            _mark_warmups(ax, keys[0], lines, drawn)
        row[0].set_title(title, loc="left", fontsize=11)
        if kind in ("lr", "momentum"):
            row[0].set_ylabel({"lr": "learning rate", "momentum": "momentum"}[kind])
    for ax in axes[-1]:
        _x_axis(ax, None if in_epochs else drawn[0].schedule.nb)
    if columns == 2:
        axes[0, 1].set_xlim(-0.02 * near, near)
        axes[0, 1].set_title("around the warm-up", loc="left", fontsize=11)
    named = {text: line for row in axes for line, text in zip(*row[0].get_legend_handles_labels(), strict=True)}
    if named:
        fig.legend(list(named.values()), list(named), loc="upper left", frameon=False, ncols=4)
    save(fig, path)


def _x_axis(ax: Axes, nb: int | None) -> None:
    """Epochs (nb: None), or batches with the epochs below."""
    ax.set_xlabel("batches since the run began (ni)" if nb else "epoch")
    if nb:
        below = ax.secondary_xaxis(-0.46, functions=(lambda ni: ni / nb, lambda epoch: epoch * nb))
        below.set_xlabel("epoch")
        below.xaxis.set_major_locator(MaxNLocator(6))
        below.spines[:].set_visible(False)


def _read(d: Drawn, in_epochs: bool) -> _Lines:
    """The curves of a plan at the points of its grid."""
    ni = np.array(grid(d.schedule))
    rates = [d.schedule(int(k)) for k in ni]
    values = {f"lr/{name}": np.array([r.lr[name] for r in rates]) for name in rates[0].lr}
    values["momentum"] = np.array([r.momentum for r in rates])
    values["accumulate"] = np.array([r.accumulate for r in rates], dtype=float)
    taken = np.searchsorted([at for at, _ in d.plan.windows], ni, side="right")  # optimizer steps up to each batch
    values["EMA"] = np.array([ema_span(int(n), d.hyp.ema_decay, d.plan.ema_tau) for n in taken])
    stride = d.schedule.nb if in_epochs else 1
    return _Lines(ni, ni / stride, values, stride)


def _panels(lines: Sequence[_Lines]) -> list[tuple[str, list[str]]]:
    """Title and quantities of every panel."""
    shared: list[list[str]] = []
    for key in dict.fromkeys(k for line in lines for k in line.values if k.startswith("lr/")):
        same = (keys for keys in shared if all(_equal(line, keys[0], key) for line in lines))
        keys = next(same, None)
        if keys is None:
            shared.append([key])
        else:
            keys.append(key)
    rates = [(f"Learning rate: {', '.join(k.removeprefix('lr/') for k in keys)}", keys) for keys in shared]
    steps = "Batches in each optimizer step (dots) and accumulate (line)"
    return [
        *rates,
        ("Momentum (beta1 of Adam)", ["momentum"]),
        (steps, ["accumulate"]),
        ("Optimizer steps that the EMA spans", ["EMA"]),
    ]


def _equal(line: _Lines, a: str, b: str) -> bool:
    if a not in line.values or b not in line.values:
        return a not in line.values and b not in line.values
    return np.array_equal(line.values[a], line.values[b])


def _panel_of(ax: Axes, key: str, lines: Sequence[_Lines], drawn: Sequence[Drawn]) -> None:
    """The curves of one quantity; later plans are thinner, so that equal ones are all seen."""
    top = 0.0
    for k, (line, d) in enumerate(zip(lines, drawn, strict=True)):
        if key not in line.values:
            continue
        look = {"color": COLOURS[k % len(COLOURS)], "label": plain(d.name) if len(drawn) > 1 else None}
        look["linewidth"] = 1.4 + min(1.3, 3 / len(drawn)) * (len(drawn) - 1 - k)
        y = line.values[key]
        top = max(top, float(y.max()))
        if key == "accumulate":
            look |= {"drawstyle": "steps-post", "alpha": 0.5}
            top = max(top, _dots(ax, line, d, look["color"]))
        ax.plot(line.x, y, **look)
    if key.startswith("lr/"):
        _lr_axis(ax, key, lines, drawn, top)
    if key == "accumulate":
        ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    if key in ("accumulate", "EMA"):
        ax.set_ylim(0, max(1.12 * top, 1.5))


def _dots(ax: Axes, line: _Lines, d: Drawn, colour: str) -> float:
    """A dot for every optimizer step (of a long run, for some) at the number of batches in it; returns the largest."""
    if not d.plan.windows:
        return 0.0
    at, held = np.array(d.plan.windows).T
    few = slice(None, None, max(len(at) // 1000, 1))
    ax.plot(at[few] / line.stride, held[few], ".", color=colour, markersize=5, markeredgewidth=0)
    return float(held.max())


def _lr_axis(ax: Axes, key: str, lines: Sequence[_Lines], drawn: Sequence[Drawn], top: float) -> None:
    """From 0; logarithmic where a warm-up begins so far above the rest that the rest would lie flat."""
    after = [line.values[key][line.ni >= min(d.schedule.nw, line.ni[-1])] for line, d in zip(lines, drawn, strict=True)
             if key in line.values]  # fmt: skip
    least = min((float(y[y > 0].min()) for y in after if y.any()), default=0.0)
    if least > 0 and top > 4 * max(float(y.max()) for y in after):
        ax.set_yscale("log")
        ax.yaxis.set_minor_locator(NullLocator())
        ax.set_ylim(max(0.7 * least, 1e-4 * top), 1.4 * top)
    else:
        ax.set_ylim(0, 1.06 * top)
        ax.yaxis.set_major_formatter(lambda value, place: f"{value:g}")  # else a small lr's power of 10 is in the title


def _mark_warmups(ax: Axes, key: str, lines: Sequence[_Lines], drawn: Sequence[Drawn]) -> None:
    """The warm-up of a single plan as a shade, of several as thin lines at their ends."""
    for k, (line, d) in enumerate(zip(lines, drawn, strict=True)):
        curve = d.schedule.lr.get(key.removeprefix("lr/"))
        nw = curve.nw if curve else d.schedule.nw
        end = min(nw, d.schedule.total - 1) / line.stride
        if nw and len(drawn) == 1:
            ax.axvspan(0, end, color=SHADE, linewidth=0, zorder=0, label=f"warm-up: {_lengths(d)}")
        elif nw:
            ax.axvline(end, color=COLOURS[k % len(COLOURS)], linewidth=0.9, linestyle=DASHES[1])


def _lengths(d: Drawn) -> str:
    """Length of the warm-up, of each part where they differ."""
    nb, total = d.schedule.nb, d.schedule.total
    return ", ".join(
        f"{part} {nw} batches, {nw / nb:.3g} epochs, {nw / total:.0%} of the run".strip()
        for part, nw in warmup_lengths(d.schedule).items()
    )
