"""A plan in words and as a table: PURE."""

from collections import Counter
from collections.abc import Sequence

from utils.config.schema import SUMS, Hyp
from utils.schedule.plan import Plan, warmup_lengths
from utils.schedule.rates import Schedule, lr_scale

WIDE = 125  # characters in a line


def describe(plan: Plan, schedule: Schedule, hyp: Hyp) -> list[str]:
    """Lines for the console."""
    stuck = " while the metric never falls behind" if hyp.decay == "plateau" else ""
    return [
        f"run       {hyp.epochs} epochs x {schedule.nb} batches of {hyp.batch} = {schedule.total} batches, "
        + hyp.optimizer
        + ("" if hyp.recipe == "preheat" else f", timing of {hyp.recipe}"),
        *_fitted("warm-up", _warmup(schedule, hyp)),
        *_fitted("lr", [_peaks(plan), f"{hyp.decay} to {_shared(schedule(schedule.total - 1).lr)}{stuck}"]),
        *_scale(schedule, hyp),
        f"steps     {_windows(plan, schedule)}" + ("; fp16 may skip a few" if hyp.amp == "fp16" else ""),
        f"decay     weight decay {plan.weight_decay:g} (given as {hyp.weight_decay:g})",
        f"EMA       {_ema(plan, hyp)}",
    ]


def _fitted(title: str, texts: list[str]) -> list[str]:
    """One line, or a line for each text where they are too long together."""
    line = f"{title:<10}{'; '.join(texts)}"
    return [line] if len(line) <= WIDE else [f"{'' if i else title:<10}{text}" for i, text in enumerate(texts)]


def _warmup(schedule: Schedule, hyp: Hyp) -> list[str]:
    """Length and shape of the warm-up, by part where they have their own."""
    lengths = warmup_lengths(schedule)
    if hyp.decay == "one_cycle_torch":
        return [f"none but the rise of one_cycle_torch, {hyp.pct_start:.0%} of the run"]
    if not any(lengths.values()):
        return ["none"]
    nb, total = schedule.nb, schedule.total
    texts = [
        f"{part + ' ' if part else ''}{nw} batches ({nw / nb:.2f} epochs, {nw / total:.0%} of the run)"
        for part, nw in lengths.items()
    ]
    return [f"{', '.join(texts)}, {hyp.warmup}", f"lr at ni = 0: {_shared(schedule(0).lr)}"]


def _ema(plan: Plan, hyp: Hyp) -> str:
    """How far the average of weights reaches."""
    if not hyp.ema_decay:
        return "none (ema_decay 0)"
    chosen = ", chosen" if hyp.ema_tau == "auto" else ""
    return f"spans {plan.ema_span:.1f} steps at the end (decay {hyp.ema_decay:g}, tau {plan.ema_tau:.4g}{chosen})"


def _scale(schedule: Schedule, hyp: Hyp) -> list[str]:
    """How much longer a step is than one of nbs pictures, and who made it so."""
    ratio = hyp.batch * schedule.nominal / hyp.nbs
    if ratio == 1.0 or not schedule.scales_weight_decay:
        return []
    summed = hyp.optimizer in SUMS
    kind = "the summed loss" if summed else f"scale_lr {hyp.scale_lr}"
    kind += " (in the half of musgd that is SGD)" if hyp.optimizer == "musgd" else ""
    factor = ratio if summed else lr_scale(hyp, hyp.batch)
    pictures = f"{hyp.batch * schedule.nominal} pictures in a step, {ratio:.3g} x nbs {hyp.nbs}"
    if f"{factor:.3g}" == "1":
        moves = f"scale     {pictures}: lr stays as it is given (scale_lr: sqrt or linear moves it)"
        return [] if summed else [moves]
    return [f"scale     {pictures}: {kind} makes lr {factor:.3g} times as large in effect"]


def _shared(values: dict[str, float]) -> str:
    """'bias 0.1, norm and weight 0': groups with the same number together; the number alone where all have it."""
    names: dict[str, list[str]] = {}
    for name, value in values.items():
        names.setdefault(f"{value:.4g}", []).append(name)
    if len(names) == 1:
        return next(iter(names))
    return ", ".join(f"{_and(group)} {text}" for text, group in names.items())


def _and(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _peaks(plan: Plan) -> str:
    """Highest lr really reached, and when."""
    groups: dict[tuple[str, int], list[str]] = {}
    for name, lr in plan.peak_lr.items():
        groups.setdefault((f"{lr:.4g}", plan.peak_ni[name]), []).append(name)
    return "highest: " + ", ".join(f"{_and(names)} {lr} at ni {ni}" for (lr, ni), names in groups.items())


def _windows(plan: Plan, schedule: Schedule) -> str:
    """How many steps, how many batches they hold, and how many batches are in none."""
    sizes = Counter(n for _, n in plan.windows)
    if not sizes:
        return f"no optimizer step at all in {schedule.total} batches"
    low, high = min(sizes), max(sizes)
    text = f"{plan.n_steps} optimizer steps of {low}" + (f" to {high} batches" if high > low else "")
    if high == low:
        text += f" batch{'es' if low > 1 else ''} each"
    else:
        most = [f"{count} of {n}" for n, count in sizes.most_common(5)]
        text += f" ({', '.join(most)}{', ...' if len(sizes) > 5 else ''}; the last of {plan.last_window})"
    return text + (f"; {plan.dropped} of {schedule.total} batches in no step" if plan.dropped else "")


def moments(schedule: Schedule) -> list[tuple[str, int]]:
    """Name and batch of the rows of the table; a warm-up that outlasts the run has no row for its end."""
    last, rows = schedule.total - 1, [("start", 0)]
    for part, nw in warmup_lengths(schedule).items():
        rows += [(f"{part} {label}".strip(), ni) for label, ni in (("nw/2", nw // 2), ("nw", nw)) if nw and ni <= last]
    rows += [(f"{percent} %", round(percent / 100 * last)) for percent in (25, 50, 75, 100)]
    return sorted(rows, key=lambda row: row[1])


def table(schedule: Schedule) -> list[str]:
    """The rates at the moments that matter, as aligned lines."""
    rows = [["at", "ni", "epoch", *(f"lr/{name}" for name in schedule(0).lr), "momentum", "accumulate"]]
    for label, ni in moments(schedule):
        rates = schedule(ni)
        lrs = [f"{lr:.4g}" for lr in rates.lr.values()]
        rows.append([label, str(ni), f"{ni / schedule.nb:.2f}", *lrs, f"{rates.momentum:.4g}", f"{rates.accumulate:g}"])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)) for row in rows]
