"""The page of a check: every step with its verdict, its evidence, and what to do."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.ticker import MaxNLocator

from utils.drawing.figure import COLOURS, new_figure, panel
from utils.drawing.page import Table, render, to_picture
from utils.run.log import read_metrics
from utils.tune.check.lecture import BAD, GOOD, LOOK, Finding

WORDS = {GOOD: "as it should be", LOOK: "look at it", BAD: "not as it should be"}


def check_page(name: str, findings: Sequence[Finding], numbers: Mapping[str, Any], told: Mapping[str, Any]) -> str:
    """HTML; numbers: what the steps left, as check.json has them; told: case, commands, command, minutes."""
    pictures, tables = {}, {}
    if "rates" in numbers:
        caption = "The loss of each optimizer step, at rates that are held."
        pictures[3] = [{"picture": draw_losses(numbers["rates"]), "caption": caption}]
    for step in (4, 5):
        if numbers.get(f"trials{step}"):
            tables[step] = [trials_table(numbers[f"trials{step}"])]
    if numbers.get("best"):
        drawn = draw_run(read_metrics(Path(numbers["best"]) / "metrics.csv"))
        pictures[6] = [{"picture": drawn, "caption": "Score, and the losses of train and val, over the epochs."}]
    view = {"name": name, "findings": findings, "words": WORDS, "pictures": pictures, "tables": tables, **told}
    return render(Path(__file__).with_name("check.html.jinja"), view)


def draw_losses(rates: Mapping[str, Sequence[float]]) -> Any:
    """Loss over the batches, a line a rate."""
    fig = new_figure(6.4, 3.6)
    ax = panel(fig.subplots(), "", "optimizer step", "loss")
    for k, (lr, losses) in enumerate(rates.items()):
        ax.plot(losses, color=COLOURS[k % len(COLOURS)], linewidth=1.2, label=f"lr {float(lr):.2g}")
    first = max((losses[0] for losses in rates.values()), default=1.0)
    ax.set_ylim(0, 1.5 * first)
    ax.legend(frameon=False, fontsize=9)
    words = "; ".join(f"lr {float(lr):.2g}: {v[0]:.2f} to {v[-1]:.2f}" for lr, v in rates.items())
    return to_picture(fig, f"Loss over the steps: {words}.")


def draw_run(rows: Sequence[Mapping[str, float]]) -> Any:
    """Score and losses of a run over its epochs."""
    fig = new_figure(9.0, 3.4)
    left, right = fig.subplots(1, 2)
    panel(left, "", "epoch", "mAP50-95")
    panel(right, "", "epoch", "loss: box + cls + dfl")
    for ax in (left, right):
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    scored = [row for row in rows if "val/mAP50-95" in row]
    left.plot([r["epoch"] for r in scored], [r["val/mAP50-95"] for r in scored], marker="o", color=COLOURS[0])
    for k, part in enumerate(("train", "val")):
        keys = [f"{part}/{name}" for name in ("box", "cls", "dfl")]
        own = [row for row in rows if all(key in row for key in keys)]
        line = [sum(row[key] for key in keys) for row in own]
        right.plot([r["epoch"] for r in own], line, color=COLOURS[k], label=part)
    right.legend(frameon=False)
    last = scored[-1]["val/mAP50-95"] if scored else float("nan")
    return to_picture(fig, f"mAP50-95 over {len(scored)} evaluated epochs, {last:.3f} in the end, and the losses.")


def trials_table(trials: Sequence[Mapping[str, Any]]) -> Table:
    """The runs of a step, best first."""
    order = sorted(trials, key=lambda t: -1.0 if t["score"] is None else t["score"], reverse=True)
    rows = [
        [f"{t['lr0']:.3g}", f"{t['weight_decay']:.3g}", "diverged" if t["score"] is None else f"{t['score']:.4f}"]
        for t in order
    ]
    return Table("Runs, best first", ("lr0", "weight_decay", "mAP50-95"), rows)
