"""What a run is going to do, said before its first batch: PURE, from the schedule alone."""

from dataclasses import dataclass

from utils.config import Hyp
from utils.schedules import Schedule, auto_ema_tau, ema_span, scaled_weight_decay, steps


@dataclass(frozen=True)
class Plan:
    """The figures of a run that follow from its schedule."""

    n_steps: int  # optimizer steps
    last_window: int  # batches in the last step
    ema_tau: float
    ema_span: float  # steps that the average spans at the end of the run
    weight_decay: float  # scaled to batch and accumulate
    peak_lr: dict[str, float]  # highest lr of each group, and of the weights after warm-up began to matter


def make_plan(schedule: Schedule, hyp: Hyp, batch: int) -> Plan:
    """Walk through the schedule once."""
    windows = list(steps(schedule))
    tau = auto_ema_tau(len(windows), hyp.ema_decay) if hyp.ema_tau == "auto" else float(hyp.ema_tau)
    peak = {name: 0.0 for name in schedule.lr}
    for ni in range(schedule.total):
        for name, lr in schedule(ni).lr.items():
            peak[name] = max(peak[name], lr)
    span = ema_span(len(windows), hyp.ema_decay, tau)
    return Plan(len(windows), windows[-1][1], tau, span, scaled_weight_decay(hyp, batch), peak)


def describe(plan: Plan, schedule: Schedule, hyp: Hyp, nb: int, batch: int) -> list[str]:
    """Lines for the console."""
    if schedule.nw:
        bias = "like the others" if hyp.warmup_bias_lr is None else f"{hyp.warmup_bias_lr:g} -> lr0"
        warmup = (
            f"{schedule.nw} batches ({schedule.nw / nb:.2f} epochs, {schedule.nw / schedule.total:.0%} of the run), "
            f"{hyp.warmup}; lr {hyp.warmup_start * hyp.lr0:g} -> lr0, bias {bias}"
        )
    else:
        warmup = "none"
    tail = "" if plan.last_window == schedule.nominal else f", the last of {plan.last_window}"
    peaks = ", ".join(f"{name} {lr:.4g}" for name, lr in plan.peak_lr.items())
    return [
        f"run       {hyp.epochs} epochs x {nb} batches of {batch} = {schedule.total} batches, {hyp.optimizer}",
        f"warm-up   {warmup}",
        f"lr        highest: {peaks}; {hyp.decay} to {hyp.lr0 * hyp.lrf:.3g}",
        f"steps     {plan.n_steps} optimizer steps, up to {schedule.nominal} batches each{tail}",
        f"decay     weight decay {plan.weight_decay:g} (scaled from {hyp.weight_decay:g})",
        f"EMA       spans {plan.ema_span:.1f} steps at the end (decay {hyp.ema_decay:g}, tau {plan.ema_tau:.4g}"
        f"{', chosen' if hyp.ema_tau == 'auto' else ''})",
    ]


def warnings(plan: Plan, schedule: Schedule, hyp: Hyp, nb: int, batch: int) -> list[str]:
    """What a user should know before spending the time."""
    found = []
    wanted = round(hyp.warmup_epochs * nb) if hyp.warmup != "none" else 0
    if schedule.nw < wanted:
        found.append(f"warm-up is cut from {wanted} to {schedule.nw} batches: warmup_max {hyp.warmup_max:g} of the run")
    if plan.ema_span < min(5.0, 1 / (1 - hyp.ema_decay)) - 1e-6:
        found.append(
            f"the EMA spans {plan.ema_span:.1f} steps at the end: it averages nothing (ema_tau=auto picks a tau)"
        )
    if plan.ema_span > plan.n_steps / 3:
        found.append(
            f"the EMA spans {plan.ema_span:.1f} of {plan.n_steps} steps: early weights still count at the end"
            " (ema_tau=auto picks a tau)"
        )
    if schedule.nominal > nb:
        found.append(f"a step takes {schedule.nominal} batches and an epoch has {nb}: fewer than one step an epoch")
    if batch > hyp.nbs:
        found.append(
            f"batch {batch} is {batch / hyp.nbs:g} x nbs {hyp.nbs}: the summed loss makes each step that much longer"
        )
    return found
