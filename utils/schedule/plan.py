"""What a run is going to do, said before its first batch: PURE, from the schedule alone."""

from dataclasses import dataclass

from utils.config.schema import Hyp
from utils.schedule.rates import Schedule, auto_ema_tau, ema_span, group_factor, scaled_weight_decay, steps

GRID = 2000  # batches of a long run at which its curves are read


@dataclass(frozen=True)
class Plan:
    """The figures of a run that follow from its schedule."""

    windows: list[tuple[int, int]]  # (ni, batches whose gradient is in it) of every optimizer step
    dropped: int  # batches whose gradient is in no step
    ema_tau: float
    ema_span: float  # steps that the average spans at the end of the run
    weight_decay: float  # scaled to batch and accumulate, where the recipe does so
    peak_lr: dict[str, float]  # highest lr of each group
    peak_ni: dict[str, int]  # and the batch that has it

    @property
    def n_steps(self) -> int:
        """Optimizer steps of the run."""
        return len(self.windows)

    @property
    def last_window(self) -> int:
        """Batches in the last step."""
        return self.windows[-1][1] if self.windows else 0


def make_plan(schedule: Schedule, hyp: Hyp) -> Plan:
    """Every step of the schedule, and its highest rates."""
    windows = list(steps(schedule))
    tau = 1.0 if hyp.ema_tau == "auto" else float(hyp.ema_tau)
    if hyp.ema_tau == "auto" and hyp.ema_decay > 0:  # 0: no average at all
        tau = auto_ema_tau(max(len(windows), 1), hyp.ema_decay)
    span = ema_span(len(windows), hyp.ema_decay, tau)
    decay = scaled_weight_decay(hyp, hyp.batch) if schedule.scales_weight_decay else hyp.weight_decay
    peak = {name: _peak(schedule, name) for name in schedule(0).lr}
    lr, ni = {k: v for k, (v, _) in peak.items()}, {k: at for k, (_, at) in peak.items()}
    return Plan(windows, schedule.total - sum(n for _, n in windows), tau, span, decay, lr, ni)


def group_names(hyp: Hyp) -> tuple[str, ...]:
    """Groups of the run: roles, or part and role where backbone and head have rates of their own.

    Under `musgd` the class branch has groups of its own, too: cls.weight.
    """
    roles = ("bias", "norm", "weight")
    of_classes = tuple(f"cls.{role}" for role in roles) if hyp.optimizer == "musgd" else ()
    own_warmup = hyp.warmup_epochs_backbone is not None or hyp.warmup_epochs_head is not None
    by_part = own_warmup or (hyp.lr_backbone, hyp.lr_head) != (1.0, 1.0)
    if not by_part:
        return roles + of_classes
    return tuple(f"backbone.{role}" for role in roles) + tuple(f"head.{role}" for role in roles + of_classes)


def grid(schedule: Schedule, n: int = GRID) -> list[int]:
    """Batches at which to read the curves: all of a short run; else evenly spread, the warm-up and epochs' ends too."""
    total, nb = schedule.total, schedule.nb
    if total <= 2 * n:
        return list(range(total))
    points = {round(i * (total - 1) / n) for i in range(n + 1)}
    points |= {round(i * schedule.nw / (n // 4)) for i in range(n // 4 + 1)} | {schedule.nw - 1, schedule.nw + 1}
    if total // nb <= n // 4:
        points |= {ni for epoch in range(total // nb) for ni in (epoch * nb, epoch * nb + nb - 1)}
    return sorted(ni for ni in points if 0 <= ni < total)


def _peak(schedule: Schedule, name: str) -> tuple[float, int]:
    """Highest lr of a group and its first batch; between the points of a long run's grid looked at closely."""
    points = grid(schedule)
    values = [schedule(ni).lr[name] for ni in points]
    k = values.index(max(values))
    around = range(points[max(k - 1, 0)], points[min(k + 1, len(points) - 1)] + 1)
    best = max(around, key=lambda ni: schedule(ni).lr[name])  # the first of equals
    return schedule(best).lr[name], best


def reference_lr(name: str, hyp: Hyp) -> float:
    """lr0 of a group: with scale_lr's factor and those of the parts that its name has ('head.bias')."""
    return hyp.lr0 * group_factor(name, hyp, hyp.batch)


def warmup_lengths(schedule: Schedule) -> dict[str, int]:
    """nw by part of the network, in batches; by '' alone where no part has its own."""
    lengths = {name.rpartition(".")[0]: int(curve.nw) for name, curve in schedule.lr.items()}
    return lengths if len(set(lengths.values())) > 1 else {"": next(iter(lengths.values()))}
