"""What a user should know of a plan before spending the time on it: PURE."""

from utils.config.schema import Hyp
from utils.schedule.plan import Plan, reference_lr
from utils.schedule.rates import Schedule


def of_batch(given: int, used: int) -> list[str]:
    """A batch that is larger than the data."""
    if used == given:
        return []
    return [f"batch {given} is more than there are training pictures: a batch has {used}, and the run is planned so"]


def warnings(plan: Plan, schedule: Schedule, hyp: Hyp) -> list[str]:
    """One sentence for everything that is probably not meant."""
    return [
        *_of_warmup(schedule, hyp),
        *_of_lr(plan, schedule, hyp),
        *_of_steps(plan, schedule, hyp),
        *_of_ema(plan, hyp),
        *_of_epochs(schedule, hyp),
    ]


def _of_warmup(schedule: Schedule, hyp: Hyp) -> list[str]:
    """Length of the warm-up against what was asked for, and against the run."""
    nw, total, found = schedule.nw, schedule.total, []
    wanted = hyp.warmup_iters if hyp.warmup_iters is not None else round(hyp.warmup_epochs * schedule.nb)
    wanted = 0 if hyp.warmup == "none" else wanted
    if nw < wanted and hyp.recipe != "yolov3-spp":
        by = f"warmup_max {hyp.warmup_max:g} of the run" if hyp.recipe == "preheat" else f"recipe {hyp.recipe}"
        short = f"no warm-up: the run of {total} batches is too short for one (more epochs, or a larger warmup_max)"
        found.append(f"warm-up is cut from {wanted} to {nw} batches: {by}" if nw else short)
    if nw > wanted and hyp.recipe != "yolov3-spp":
        found.append(f"warm-up takes {nw} batches and not {wanted}: recipe {hyp.recipe}")
    if nw >= total:
        found.append(f"the run ends after {total} batches, before its warm-up of {nw}")
    elif nw > total / 3:
        found.append(f"warm-up takes {nw / total:.0%} of the run; a third is much")
    return found


def _of_lr(plan: Plan, schedule: Schedule, hyp: Hyp) -> list[str]:
    """The biases' first lr, and a peak that is not reached."""
    found = []
    first = schedule(0).lr
    times = {name: lr / reference_lr(name, hyp) for name, lr in first.items() if name.endswith("bias")}
    name = max(times, key=lambda n: (times[n], first[n]), default="")
    if name and times[name] >= 10 * (1 - 1e-9) and str(hyp.weights).endswith(".pt"):
        found.append(
            f"biases of pretrained weights start at lr {first[name]:g}, {times[name]:.3g} x lr0 "
            "(warmup_bias_lr=null: like the others)"
        )
    low = {name: lr for name, lr in plan.peak_lr.items() if lr < 0.9 * reference_lr(name, hyp)}
    if low:
        name = min(low, key=lambda n: low[n] / max(reference_lr(n, hyp), 1e-30))
        found.append(
            f"lr never gets beyond {low[name]:.4g} ({name}), {low[name] / reference_lr(name, hyp):.0%} of lr0 "
            f"{reference_lr(name, hyp):g}: warm-up ends where the decay is under way"
        )
    return found


def _of_steps(plan: Plan, schedule: Schedule, hyp: Hyp) -> list[str]:
    """Steps that take longer than an epoch, gradients that are lost, batches beyond the nominal size."""
    found = []
    if not plan.windows:
        found.append("this run never takes an optimizer step: nothing is learned")
    if schedule.nominal > schedule.nb:
        found.append(
            f"a step takes {schedule.nominal} batches and an epoch has {schedule.nb}: fewer than one step an epoch"
        )
    if plan.dropped > schedule.nominal:
        share = plan.dropped / schedule.total
        found.append(f"{plan.dropped} of {schedule.total} batches ({share:.0%}) are in no step: recipe {hyp.recipe}")
    if hyp.batch > hyp.nbs and hyp.optimizer == "sgd" and hyp.recipe != "yolov3-spp":
        found.append(
            f"batch {hyp.batch} is {hyp.batch / hyp.nbs:g} x nbs {hyp.nbs}: "
            "the summed loss makes each step that much longer"
        )
    return found


def _of_ema(plan: Plan, hyp: Hyp) -> list[str]:
    """An average over next to nothing, or over too much."""
    found, advice = [], " (ema_tau=auto picks a tau)"
    if hyp.ema_tau == "auto":
        return found  # the best that the length of the run allows: nothing to act on
    if plan.ema_span < min(5.0, 1 / (1 - hyp.ema_decay)) - 1e-6:
        found.append(f"the EMA spans {plan.ema_span:.1f} steps at the end: it averages nothing{advice}")
    if plan.ema_span > max(plan.n_steps / 3, 1.0):
        found.append(
            f"the EMA spans {plan.ema_span:.1f} of {plan.n_steps} steps: early weights still count at the end{advice}"
        )
    return found


def _of_epochs(schedule: Schedule, hyp: Hyp) -> list[str]:
    """What is counted in epochs and falls into the warm-up."""
    nw, nb, found = schedule.nw, schedule.nb, []
    epochs = f"warm-up ({nw / nb:.3g} epochs)"
    if 0 < hyp.patience * nb < nw:
        found.append(f"patience {hyp.patience} is shorter than the {epochs}: it counts from the end of the warm-up")
    first_plain = max(hyp.epochs - hyp.close_mosaic, 0)  # epochs from here on have no mosaic and no mixup
    if hyp.close_mosaic and hyp.mosaic + hyp.mixup > 0 and first_plain * nb < nw:
        left = f"leaves mosaic to {first_plain} of {hyp.epochs} epochs"
        found.append(f"close_mosaic {hyp.close_mosaic} {left}: it begins inside the {epochs}")
    return found
