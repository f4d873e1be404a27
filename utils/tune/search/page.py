"""The search on a page: search.html, search.md, search.json and trials.csv."""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.ticker import MaxNLocator, NullFormatter

from utils.compare.report.markdown import bullets, fenced, plain, section
from utils.compare.report.words import points
from utils.drawing.figure import COLOURS, GREY, new_figure, panel
from utils.drawing.page import Picture, Table, render, to_picture
from utils.files import write_whole
from utils.tune.search.space import Axis
from utils.tune.search.study import Told, best_first
from utils.tune.search.trials import show
from utils.tune.search.verify import Verified, newest, sentence

SHOWN = 20  # trials in the table of the page


def write_search(folder: Path, view: Mapping[str, Any], trials: Sequence[Told], axes: Sequence[Axis]) -> Path:
    """Write page, Markdown and table into the folder of the search; returns the page. view: what `look` made."""
    rows = io.StringIO()
    table = csv.writer(rows, lineterminator="\n")
    keys = [axis.key for axis in axes]
    table.writerow(("trial", "state", "score", "epochs", *keys, "folder"))
    for t in trials:
        score = "" if t.value is None else repr(t.value)
        table.writerow((t.number, t.state, score, len(t.curve), *(t.params.get(key, "") for key in keys), t.folder))
    write_whole(folder / "trials.csv", rows.getvalue().encode())
    write_whole(folder / "search.md", markdown(view).encode())
    page = folder / "search.html"
    write_whole(page, render(Path(__file__).with_name("search.html.jinja"), view).encode())
    return page


def markdown(view: Mapping[str, Any]) -> str:
    """The same for a pull request or a page of docs: the facts without the pictures."""
    counts = ", ".join(f"{n} {state}" for state, n in view["counts"].items() if n)
    lines = [f"# {plain(view['name'])}: {plain(view['headline'])}", "", *bullets(view["sentences"])]
    lines += [f"Trials: {counts}. Space:", "", *fenced("\n".join(view["space"])), ""]
    lines += section(view["verified"].caption, view["verified"]) if view["verified"].rows else []
    lines += section(view["best"].caption, view["best"])
    return "\n".join([*lines, "## Again", "", *fenced(view["command"])]) + "\n"


def write_result(folder: Path, result: Mapping[str, Any]) -> None:
    """search.json, for programs."""
    write_whole(folder / "search.json", json.dumps(result, indent=1, allow_nan=False).encode())


def look(
    name: str,
    trials: Sequence[Told],
    axes: Sequence[Axis],
    metric: str,
    verified: Sequence[Verified],
    ended: str,
    command: str,
    seed: int,
    folder: Path | None = None,
) -> dict[str, Any]:
    """Everything that the template shows. ended: the sentence on what came of it; folder: of the search."""
    return {
        "name": name,
        "headline": headline(verified, trials),
        "kind": next((v.verdict.kind for v in verified if v.verdict.kind == "helps"), "none"),
        "sentences": [*(sentence(v, len(best_first(trials)), seed) for v in verified), ended],
        "space": [f"{axis.key}={axis.word}" for axis in axes],
        "history": draw_history(trials, metric),
        "axes": [draw_axis(axis, trials, metric) for axis in axes],
        "best": best_table(trials, axes, metric),
        "verified": verified_table(verified),
        "counts": {s: sum(t.state == s for t in trials) for s in ("complete", "pruned", "failed", "running")},
        "compared": f"{newest(folder).name}/report.html" if verified and folder else "",
        "command": command,
    }


def headline(verified: Sequence[Verified], trials: Sequence[Told]) -> str:
    """The outcome in a few words."""
    best = best_first(trials)
    if not verified:
        return f"Best so far: {best[0].value:.4f}, not verified" if best else "No trial has ended yet"
    helps = [v for v in verified if v.verdict.kind == "helps"]
    if helps:
        top = max(helps, key=lambda v: v.verdict.mean or 0)
        return f"Trial {top.trial.number} is better than the default, {points(top.verdict.mean)}"
    return "No trial is certainly better than the default"


def draw_history(trials: Sequence[Told], metric: str) -> Picture | None:
    """Every score by the number of its trial, and the best so far; a pruned trial at its last epoch's score."""
    ended = [t for t in trials if t.value is not None]
    if not ended:
        return None
    fig = new_figure(6.4, 3.4)
    ax = panel(fig.subplots(), "", "trial", metric)
    pruned = [t for t in trials if t.state == "pruned" and t.curve]
    ax.plot(
        [t.number for t in pruned],
        [t.curve[max(t.curve)] for t in pruned],
        "x",
        color=GREY,
        label=" pruned, at its end",
    )
    ax.plot([t.number for t in ended], [t.value for t in ended], "o", color=COLOURS[0], label=" complete")
    so_far, best = [], -math.inf
    for t in ended:
        best = max(best, t.value or 0.0)
        so_far.append(best)
    ax.step([t.number for t in ended], so_far, where="post", color=COLOURS[1], label=" best so far")
    default = next((t for t in ended if t.default), None)
    if default:
        ax.axhline(default.value or 0, color="black", linewidth=0.9, linestyle=":", label=" default")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(frameon=False, fontsize=8)
    return to_picture(
        fig, f"{metric} of {len(ended)} complete and {len(pruned)} pruned trials; the best has {best:.4f}."
    )


def draw_axis(axis: Axis, trials: Sequence[Told], metric: str) -> Picture:
    """Scores over one key."""
    fig = new_figure(4.6, 3.0)
    ax = panel(fig.subplots(), "", axis.key, metric)
    ended = [t for t in trials if t.value is not None and axis.key in t.params]
    pruned = [t for t in trials if t.state == "pruned" and t.curve and axis.key in t.params]
    place = (lambda v: axis.values.index(v)) if axis.values else (lambda v: v)
    ax.plot([place(t.params[axis.key]) for t in pruned], [t.curve[max(t.curve)] for t in pruned], "x", color=GREY)
    ax.plot([place(t.params[axis.key]) for t in ended], [t.value for t in ended], "o", color=COLOURS[0])
    if axis.values:
        ax.set_xticks(range(len(axis.values)), [str(v) for v in axis.values], parse_math=False)
        ax.set_xlim(-0.5, len(axis.values) - 0.5)
    elif axis.log:
        ax.set_xscale("log")
        ax.xaxis.set_minor_formatter(NullFormatter())
    return to_picture(fig, f"{metric} over {axis.key}, a dot for each complete trial, a cross for each pruned one.")


def best_table(trials: Sequence[Told], axes: Sequence[Axis], metric: str) -> Table:
    """The best trials."""
    keys = [axis.key for axis in axes]
    rows = [
        [f"{t.number}{' (default)' if t.default else ''}", f"{t.value:.4f}", *(show(t.params[key]) for key in keys)]
        for t in best_first(trials)[:SHOWN]
    ]
    return Table(f"The best trials by {metric}, one seed each", ("trial", "score", *keys), rows)


def verified_table(verified: Sequence[Verified]) -> Table:
    """What fresh seeds say."""
    rows = [
        [
            f"trial {v.trial.number}",
            points(v.found, unit=False) if v.found is not None else "not tried",
            points(v.verdict.mean, unit=False),
            points(v.verdict.low, unit=False),
            points(v.verdict.high, unit=False),
            points(v.luck, unit=False) if v.luck is not None else "",
            v.verdict.kind,
        ]
        for v in verified
    ]
    head = ("against the default, points", "in the search", "on fresh seeds", "95 % from", "to", "luck", "verdict")
    return Table("The search's gain, and what is left of it", head, rows)
