"""Pictures of the pairs of a comparison: every difference with their mean, and every score."""

import numpy as np

from utils.compare.report.facts import Facts
from utils.compare.report.figure import DARK, beside, colour, frame_rows, short
from utils.compare.report.words import interval, points, score
from utils.drawing.figure import GREY, SHADE, new_figure, panel
from utils.drawing.page import Picture, to_picture


def draw_differences(facts: Facts, arm: str) -> Picture | None:
    """Every pair of an arm as a row of its own, then their mean with its 95 % interval; None without a pair."""
    pairs = facts.pairs(arm)
    if not pairs:
        return None
    own = colour(facts.arms.index(arm))
    verdict = facts.record.verdicts.get(arm)
    d = [100 * (run.counted - reference.counted) for reference, run in pairs]
    n, rows = len(d), len(d) + (1.6 if verdict else 0)
    fig = new_figure(5.4, 1.1 + 0.27 * rows)
    ax = panel(fig.subplots(), "", f"{short(arm)} minus {short(facts.reference)}, points of {facts.metric}", "")
    ax.xaxis.label.set_parse_math(False)
    ax.axvspan(-100 * facts.margin, 100 * facts.margin, color=SHADE, zorder=0)
    ax.axvline(0, color=DARK, linewidth=1, zorder=1)
    ax.grid(False)
    ends = [*d, -100 * facts.margin, 100 * facts.margin]
    for row, ((reference, run), x) in enumerate(zip(pairs, d, strict=True)):
        lost = reference.score is None or run.score is None
        ax.plot([0, x], [row, row], color=own, linewidth=1, alpha=0.4)
        ax.plot(x, row, "X" if lost else "o", color=own, markersize=8 if lost else 6.5, zorder=3)
        beside(ax, row, f"{x:+.2f}" + (" diverged" if lost else ""))
    ticks, labels = list(range(n)), [facts.record.pair(run.seed) for _, run in pairs]
    if verdict:
        mean, low, high = (100 * getattr(verdict, key) for key in ("mean", "low", "high"))
        at = n + 0.5
        ax.axhline(n - 0.15, color=GREY, linewidth=0.8)
        ax.plot([low, high], [at, at], color="black", linewidth=3, solid_capstyle="butt", zorder=3)
        ax.plot(mean, at, "D", color="black", markersize=8, zorder=4)
        beside(ax, at, f"{mean:+.2f}", weight="bold")
        ticks, labels, ends = [*ticks, at], [*labels, "mean, 95 %"], [*ends, low, high]
    ax.set_yticks(ticks, labels, fontsize=10 if n <= 40 else 7)
    frame_rows(ax, rows - 0.4, ends)
    said = f"; mean {points(verdict.mean)}, 95 % interval {interval(verdict.low, verdict.high)}" if verdict else ""
    listed = ", ".join(f"{facts.record.pair(run.seed)} {x:+.2f}" for (_, run), x in zip(pairs, d, strict=True))
    return to_picture(fig, f"Difference {arm} minus {facts.reference} in points: {listed}{said}.")


def draw_scores(facts: Facts) -> Picture | None:
    """The score of every run, the runs of one seed joined by a line; the means beside them."""
    by_seed = {seed: [r.counted for r in facts.runs if r.seed == seed] for seed in facts.record.seeds}
    if not any(v is not None for scores in by_seed.values() for v in scores):
        return None
    fig = new_figure(5.4, 3.6)
    ax = panel(fig.subplots(), "", "", facts.metric)
    arms = facts.arms
    for scores in by_seed.values():
        ax.plot(range(len(arms)), [np.nan if v is None else v for v in scores], color=GREY, linewidth=1.2, zorder=1)
    words = []
    for k, arm in enumerate(arms):
        runs = [run for run in facts.of(arm) if run.counted is not None]
        for run in runs:
            ax.plot(k, run.counted, "o" if run.score is not None else "X", color=colour(k), markersize=6, zorder=2)
        if runs:
            mean = float(np.mean([run.counted for run in runs]))
            ax.plot([k - 0.12, k + 0.12], [mean, mean], color="black", linewidth=3, zorder=3)
            ax.annotate(f"{mean:.3f}", (k + 0.12, mean), (4, 0), textcoords="offset points", va="center", fontsize=9,
                bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.5},
            )  # fmt: skip
            words.append(f"{arm} {score(mean)} over {len(runs)} runs")
    ax.set_xticks(range(len(arms)), [short(arm) for arm in arms], parse_math=False)
    ax.set_xlim(-0.4, len(arms) - 0.4)
    return to_picture(fig, f"Scores of every run; mean of {'; '.join(words)}.")
