"""What every batch of a run is trained with, as pure functions of the batch number: nothing to step or to checkpoint.

The value at batch `ni` depends on `ni` and on frozen dataclasses alone (decay `plateau`: also on the metrics so far),
so a resumed run, a plot drawn before the run and the run itself agree by construction.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from utils.config.kinds import ENDLESS, Curve, Shape
from utils.config.recipes import RECIPES, Recipe
from utils.config.schema import SUMS, Hyp
from utils.schedule.curves import value_at

BOOST = 3.0  # of the class branch under `musgd`, as ultralytics has it


@dataclass(frozen=True)
class Rates:
    """What one batch is trained with: lr by group name, momentum (beta1 of Adam), batches per optimizer step."""

    lr: dict[str, float]
    momentum: float
    accumulate: int


@dataclass(frozen=True)
class Schedule:
    """All curves of a run. `schedule(ni)` gives the rates of batch `ni`."""

    lr: dict[str, Curve]
    momentum: Curve
    nominal: int  # batches per step after warm-up, A
    nw: int  # warm-up length, batches; a part of the network may have its own, in its curves
    total: int  # batches in the run
    nb: int  # batches in an epoch
    ramp: str = "exact"  # accumulate in the warm-up: exact | interp | none | one
    ramp_end: int = 0  # batch from which accumulate is nominal
    ramp_target: float = 1.0
    recipe: Recipe = Recipe()

    def __call__(self, ni: int, history: Sequence[float] = ()) -> Rates:
        """Rates of batch `ni` (0-based, counted since the run began); `history`: the metric of every finished epoch."""
        lr = {name: value_at(ni, curve, history) for name, curve in self.lr.items()}
        return Rates(lr, value_at(ni, self.momentum), self.accumulate(ni))

    def accumulate(self, ni: int) -> int:
        """Batches per optimizer step at batch `ni`."""
        if ni >= self.ramp_end or self.ramp == "none":
            return self.nominal
        if self.ramp == "one":
            return 1
        return accumulate_at(ni, self.ramp_end, self.ramp_target, self.ramp)

    def is_step(self, ni: int, last_step: int) -> bool:
        """Whether the optimizer steps after batch `ni`, when it last did after `last_step` (-1: never)."""
        if self.recipe.steps_on_multiples:
            return ni % self.accumulate(ni) == 0
        return ni - last_step >= self.accumulate(ni) or (self.recipe.flushes and ni == self.total - 1)

    def drops_at(self, ni: int) -> bool:
        """Whether gradients of an open window are cleared before batch `ni`."""
        return self.recipe.drops and ni % self.nb == 0

    def loss_factor(self, ni: int, batch_size: int) -> float:
        """What the loss, a sum over `batch_size` pictures, is multiplied by."""
        return 1.0 / (batch_size * self.accumulate(ni)) if self.recipe.mean_loss else 1.0

    @property
    def scales_weight_decay(self) -> bool:
        """Whether weight decay is scaled by batch * nominal / nbs."""
        return self.recipe.scales_weight_decay

    @property
    def decays_all(self) -> bool:
        """Whether biases and norms have weight decay, too."""
        return self.recipe.decays_all


def accumulate_at(ni: int, nw: int, target: float, ramp: str = "exact") -> int:
    """Batches per step at batch `ni`: from 1 to `target` over the warm-up; rounds half to even, as Python and numpy."""
    if ni >= nw:
        return max(1, round(target))
    return max(1, round((target - 1) / nw * ni + 1 if ramp == "interp" else 1 + (target - 1) * ni / nw))


def fitting_batch(hyp: Hyp, n: int) -> int:
    """Pictures that a batch really has when `n` are trained on: under `preheat` never more than there are.

    Weight decay and the windows follow from it; the other recipes compute with what they are told, as their originals.
    """
    return min(hyp.batch, n) if hyp.recipe == "preheat" else hyp.batch


def nominal_accumulate(batch: int, nbs: int) -> int:
    """Batches of `batch` pictures that make up the nominal batch size `nbs`; at least 1."""
    return max(round(nbs / batch), 1)


def within_pictures(pictures: int, hyp: Hyp) -> tuple[Hyp, int, int]:
    """A run on the `fraction` of a split of so many pictures: with the batch that it really has, pictures, and nb.

    nb counts the batches of an epoch; the last one may be smaller.
    """
    n = max(round(pictures * hyp.fraction), 1)
    batch = fitting_batch(hyp, n)
    return hyp.model_copy(update={"batch": batch}), n, math.ceil(n / batch)


def warmup_batches(hyp: Hyp, nb: int, total: int, epochs: float | None = None) -> int:
    """nw: warmup_iters, or `epochs` or warmup_epochs in batches, within the limits of the recipe; 0: no warm-up."""
    recipe = RECIPES[hyp.recipe]
    if hyp.warmup == "none":
        return 0
    if recipe.first_epoch_only:
        return min(recipe.first_epoch_only, nb - 1)
    length = hyp.warmup_epochs if epochs is None else epochs
    if recipe.leaves_an_epoch:
        length = min(length, total // nb - 1)
    nw = round(length * nb) if hyp.warmup_iters is None or epochs is not None else hyp.warmup_iters
    nw = max(nw, recipe.shortest) if length > 0 or recipe.shortest_if_off else nw
    return min(nw, int(hyp.warmup_max * total)) if recipe.capped else nw


def lr_scale(hyp: Hyp, batch: int) -> float:
    """Factor of every learning rate from scale_lr: pictures per step over nbs, or its root."""
    ratio = batch * nominal_accumulate(batch, hyp.nbs) / hyp.nbs
    return {"none": 1.0, "sqrt": math.sqrt(ratio), "linear": ratio}[hyp.scale_lr]


def group_factor(group: str, hyp: Hyp, batch: int) -> float:
    """What every learning rate of a group is multiplied by: scale_lr, that of its part, and `musgd`'s for the classes.

    A group is named by its role, before which may stand a part (backbone, head) and `cls`: head.cls.weight.
    """
    parts = {"backbone": hyp.lr_backbone, "head": hyp.lr_head, "cls": BOOST}
    return lr_scale(hyp, batch) * math.prod(parts.get(part, 1.0) for part in group.split(".")[:-1])


def build_schedule(hyp: Hyp, nb: int, batch: int, groups: tuple[str, ...] = ("bias", "norm", "weight")) -> Schedule:
    """Schedule of a run of hyp.epochs epochs with `nb` batches of `batch` pictures each; one lr curve per group.

    A group is named by its role, or by part and role: `backbone.bias`.
    """
    recipe, total = RECIPES[hyp.recipe], nb * hyp.epochs
    nw, nominal = warmup_batches(hyp, nb, total), nominal_accumulate(batch, hyp.nbs)
    if recipe.nominal_fits_run:
        nominal = min(nominal, total)
    return Schedule(
        lr={name: _lr_curve(name, hyp, nb, batch) for name in groups},
        momentum=_momentum_curve(hyp, nw, nb),
        nominal=nominal,
        nw=nw,
        total=total,
        nb=nb,
        ramp=recipe.ramp if hyp.warmup_accumulate == "ramp" else hyp.warmup_accumulate,
        ramp_end=nb if recipe.first_epoch_only and hyp.warmup != "none" else nw,
        ramp_target=hyp.nbs / batch if recipe.ramp_to_fraction else nominal,
        recipe=recipe,
    )


def _lr_curve(group: str, hyp: Hyp, nb: int, batch: int) -> Curve:
    """The learning rate of one group."""
    recipe, total = RECIPES[hyp.recipe], nb * hyp.epochs
    *parts, role = group.split(".")
    factor = group_factor(group, hyp, batch)
    own = {"backbone": hyp.warmup_epochs_backbone, "head": hyp.warmup_epochs_head}.get(parts[0] if parts else "")
    nw = warmup_batches(hyp, nb, total, own)
    tick = nb if hyp.clock == "epoch" else 1
    start = hyp.warmup_start * hyp.lr0
    if role == "bias" and hyp.warmup_bias_lr is not None:
        start = hyp.warmup_bias_lr / (BOOST if "cls" in parts else 1.0)  # given for all biases alike
    final = hyp.min_lr if hyp.min_lr is not None else 0.0 if hyp.decay in ENDLESS else hyp.lr0 * hyp.lrf
    if hyp.decay == "one_cycle_torch":
        start = hyp.lr0 / hyp.div_factor
        final = start / hyp.final_div_factor
    curve = Curve(
        start=start * factor, peak=hyp.lr0 * factor, final=final * factor, nw=nw, total=total,
        warmup=hyp.warmup, decay=hyp.decay, begin=nw if hyp.decay_from == "warmup" else 0,
        end=total if recipe.arrives_after else total - tick, tick=tick, lag=recipe.lag, shape=_shape(hyp, nb, nw),
        warmup_tick=_warmup_tick(hyp, nb),
    )  # fmt: skip
    if hyp.decay != "power" or not nw:
        return curve
    reached = value_at(nw - 1, curve) / curve.peak
    return replace(curve, begin=nw - 1, shape=replace(curve.shape, reached=reached))


def _warmup_tick(hyp: Hyp, nb: int) -> int:
    return nb if hyp.warmup_clock == "epoch" else 1


def _shape(hyp: Hyp, nb: int, nw: int) -> Shape:
    """The numbers of the kinds, lengths in batches."""
    tick = nb if hyp.clock == "epoch" else 1
    parts = [m * hyp.epochs * nb if m < 1 else m * nb for m in hyp.milestones]
    return Shape(
        warmup_start=hyp.warmup_start, milestones=tuple(float(round(m / tick) * tick) for m in parts),
        gamma=hyp.gamma, power=hyp.power, timescale=nw if hyp.decay_from == "warmup" and nw else nb,
        first_cycle=hyp.T_0 * nb, growth=hyp.T_mult, pct_start=hyp.pct_start, wsd_decay=hyp.wsd_decay,
        patience=hyp.plateau_patience, cooldown=hyp.plateau_cooldown,
    )  # fmt: skip


def _momentum_curve(hyp: Hyp, nw: int, nb: int) -> Curve:
    """Momentum, or beta1 of Adam: the warm-up's ramp, or the cycle of one_cycle_torch."""
    total = nb * hyp.epochs
    if hyp.decay == "one_cycle_torch":
        shape, ends = Shape(pct_start=hyp.pct_start), hyp.max_momentum
        return Curve(ends, hyp.base_momentum, ends, 0, total, "none", hyp.decay, shape=shape)
    fixed = hyp.warmup_momentum is None or (hyp.optimizer not in SUMS and not RECIPES[hyp.recipe].ramps_beta1)
    first, shape = hyp.momentum if fixed else hyp.warmup_momentum, Shape(warmup_start=hyp.warmup_start)
    tick = _warmup_tick(hyp, nb)
    return Curve(first, hyp.momentum, hyp.momentum, nw, total, hyp.warmup, "constant", shape=shape, warmup_tick=tick)


def steps(schedule: Schedule) -> Iterator[tuple[int, int]]:
    """(ni, batches whose gradient is in it) of every optimizer step."""
    last, window = -1, 0
    for ni in range(schedule.total):
        window = 1 if schedule.drops_at(ni) else window + 1
        if schedule.is_step(ni, last):
            yield ni, window
            last, window = ni, 0


def scaled_weight_decay(hyp: Hyp, batch: int) -> float:
    """weight_decay * batch * A / nbs: gradients are summed over the window, so the decay of a step grows with it."""
    if not RECIPES[hyp.recipe].scales_weight_decay:
        return hyp.weight_decay
    return hyp.weight_decay * batch * nominal_accumulate(batch, hyp.nbs) / hyp.nbs


def ema_span(updates: int, decay: float, tau: float) -> float:
    """Optimizer steps that the average of weights spans after `updates` steps: 1 / (1 - d)."""
    return 1.0 / (1.0 - ema_decay_at(updates, decay, tau))


def ema_decay_at(updates: int, decay: float, tau: float) -> float:
    """d = decay * (1 - exp(-updates / tau)): a young average follows the weights (as in YOLOv5's ModelEMA)."""
    return decay * (1.0 - math.exp(-updates / tau))


def auto_ema_tau(n_steps: int, decay: float) -> float:
    """The tau with which the average spans a tenth of the run at its end: at least 5 steps, at most a third of the run.

    Solves 1 / (1 - d(n_steps)) = span for tau.
    """
    longest = 1.0 / (1.0 - decay)
    span = min(max(n_steps / 10, 5.0), max(n_steps / 3, 1.0), longest)
    reached = (1.0 - 1.0 / span) / decay  # the part of `decay` wanted at the end, < 1
    if reached <= 0.0:
        return 1e9  # a run of at most three steps: no averaging
    return -n_steps / math.log(1.0 - min(reached, 1.0 - 1e-9))
