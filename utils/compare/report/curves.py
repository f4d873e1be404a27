"""Pictures of a comparison over epochs: the declared metric of each arm, and the arms minus the reference."""

from matplotlib.ticker import MaxNLocator

from utils.compare.report.facts import Facts
from utils.compare.report.figure import DARK, add_legend, colour, draw_band, short, spread
from utils.compare.report.words import score
from utils.drawing.figure import SHADE, new_figure, panel
from utils.drawing.page import Picture, to_picture


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
            draw_band(ax, s, k, facts.arms, thin=True)
            lost = [max(run.epochs.items()) for run in facts.of(arm) if run.status == "diverged" and run.epochs]
            ax.plot([x for x, _ in lost], [y for _, y in lost], "X", color=colour(k), markersize=7)
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
            draw_band(ax, s, k, facts.arms, thin=True)
            words.append(f"{arm} from {s.over('nanmean')[0]:+.2f} to {s.over('nanmean')[-1]:+.2f}")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    add_legend(ax)
    return to_picture(fig, f"Mean difference from {facts.reference} over epochs in points: {'; '.join(words)}.")
