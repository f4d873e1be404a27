"""What is trained: model, average, optimizer, scaler, loss and progress; built, saved and restored together."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from models.anchor.loss import AnchorLoss
from models.detector import for_evaluation, loss_of, open_model
from models.loss.detection import DetectionLoss
from models.training.ema import EMA
from models.training.fit import require_statistics
from models.training.freeze import freeze
from models.training.join import share_window
from models.training.optim import all_finite, build_optimizer, parameter_groups, with_settings_of
from models.weights.save import as_stored
from models.weights.variant import is_anchor_based
from utils.config.schema import Hyp, with_gains
from utils.device.ranks import Ranks, amp_words, pick_device
from utils.device.together import Agreed
from utils.errors import Diverged, UserError, held
from utils.evaluation.bootstrap import Resamples
from utils.evaluation.evaluate import Evaluation
from utils.run.meter import Meter
from utils.run.state.checkpoint import collect, made_on, restore
from utils.run.state.due import Due
from utils.run.state.progress import Progress
from utils.run.state.writer import Writer
from utils.schedule.past import Alike, stable_part
from utils.schedule.plan import Plan, make_plan
from utils.schedule.rates import Schedule, build_schedule

log = logging.getLogger(__name__)
FP16_SCALE = 2.0**10  # of the loss at first; it is a sum over the batch, and torch's 2 ** 16 overflows fp16


@dataclass
class Training:
    """What is trained. Every part but schedule, writer, due and closing has state, and last.pt holds it."""

    model: nn.Module
    ema: EMA
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    loss_fn: DetectionLoss | AnchorLoss
    schedule: Schedule
    progress: Progress
    writer: Writer  # of its states; what is under way is no part of them
    due: Due = field(default_factory=lambda: Due(0))  # when they are written inside an epoch
    stable: Alike = Alike(0, "")  # batches after which the state is kept for a longer run
    begun: Any = None  # sums of an epoch that a resumed run finds open
    meter: Meter | None = None  # of the open epoch
    whole: bool = False  # no batch is half done, so that it can be saved
    closing: tuple[Evaluation, Resamples | None] | None = None  # of the last evaluation, where that was of best.pt
    shared: bool = False  # the gradient of the open window is that of all ranks already
    agreed: Agreed = field(default_factory=Agreed)  # the signal that ends the run, and whether to save, of any rank

    @property
    def batches_done(self) -> int:
        """Batches of the open epoch that are through."""
        return self.progress.ni - self.progress.epoch * self.schedule.nb

    def open_meter(self, device: torch.device, bar: Any) -> Meter:
        """What the open epoch adds up to, from its beginning or from where a resumed run found it."""
        self.meter = Meter(device, self.loss_fn.names, bar, self.progress.skipped_in_row)
        if self.begun:
            self.meter.load_state_dict(self.begun)
        self.begun = None
        return self.meter

    @contextmanager
    def one_batch(self) -> Iterator[None]:
        """A batch, which no signal interrupts; where it fails, the state is of no use any more."""
        with held():
            self.whole = self.shared = False
            yield
            self.whole = True

    def share(self, ranks: Ranks) -> None:
        """Make the open window that of all ranks, so that the state of one holds it; all ranks call this together."""
        share_window(self.model, ranks)
        self.shared = True

    def at_epoch_end(self, hours: float) -> Progress:
        """Progress as it is once the open epoch, whose batches are through, is scored too; nothing moves yet."""
        progress = deepcopy(self.progress)
        progress.epoch += 1
        progress.hours += hours
        progress.skipped += int(self.meter.skipped)
        progress.skipped_in_row = int(self.meter.in_row)
        return progress

    def end_epoch(self, progress: Progress) -> None:
        """Leave the open epoch."""
        self.progress, self.meter = progress, None
        self.loss_fn.end_epoch()

    def is_sound(self) -> bool:
        """Whether the state is worth to be saved inside an epoch: no number is lost, as far as one can see."""
        return (self.meter is None or self.meter.is_sound()) and all_finite(self.model, self.ema.model)

    def parts(self) -> dict[str, Any]:
        """Everything that has a state_dict, by its name in last.pt."""
        names = {"model": "model", "ema": "ema", "optimizer": "optimizer", "scaler": "scaler", "loss_fn": "loss"}
        return {name: getattr(self, attribute) for attribute, name in names.items()}

    def is_over(self, progress: Progress, hyp: Hyp) -> bool:
        """Whether an epoch that ends with `progress` is the last, by number or by time."""
        over = progress.epoch == hyp.epochs
        if hyp.time is not None and progress.hours >= hyp.time and not over:
            log.info(f"time: {hyp.time:g} hours have passed, so the run stops in the middle of its schedule")
            over = True
        return over

    def require_steps(self, progress: Progress, over: bool) -> None:
        """Diverged where a run is over in which no step was ever taken."""
        if over and progress.skipped and not self.ema.updates:
            lost = f"no step was taken: the gradient of all {progress.skipped} was NaN or infinite"
            raise Diverged(lost, self.meter.lost_from())

    def save(
        self, paths: list[Path], hyp: Hyp, data: dict[str, Any], then: Callable[[], object] = lambda: None
    ) -> None:
        """Write everything needed to go on as if nothing had happened, to each path, and then call `then`.

        data: what a resumed run must find again. On a GPU it is written while training goes on.
        """
        model = self.model
        about = {"yaml": model.yaml, "names": list(model.names.values()), "hyp": hyp.model_dump(), "data": data}
        about |= {"nb": self.schedule.nb, "made_on": made_on(next(model.parameters()).device)}
        place = {"progress": asdict(self.progress), "meter": self.meter.state_dict() if self.meter else self.begun}
        self.writer.save(paths, about | place | collect(self.parts(), model), then)
        self.due.saved_at(self.progress.ni)


def check_planned(runs: Sequence[tuple[Hyp, int]]) -> None:
    """UserError where a planned run on so many pictures would be refused once its network is built.

    Says on which device and in which precision the runs would go here, and why; a GPU may be elsewhere.
    """
    unlike = {  # by what the answer depends on
        str((h.weights, h.head, h.imgsz, h.multi_scale, h.freeze, n % h.batch == 1 or h.batch)): (h, n) for h, n in runs
    }
    for hyp, n in unlike.values():
        model, _ = open_model(hyp, ["class"], None, False)
        with_gains(hyp, is_anchor_based(model.yaml))
        freeze(model, hyp.freeze)
        require_statistics(model, hyp, n % hyp.batch or hyp.batch)
    for word, amp in dict.fromkeys((hyp.device, hyp.amp) for hyp, _ in runs):
        try:
            device = pick_device(word)
        except UserError as e:
            log.info(f"note: not on this machine: {e}")
        else:
            log.info(f"device    {device}, amp {amp_words(amp, device)}")


@contextmanager
def scored_as_stored(model: nn.Module) -> Iterator[nn.Module]:
    """A copy that answers as best.pt will once it is read back: an epoch has one score, then and later."""
    with ExitStack() as stack:
        with held(), as_stored(model):  # a signal must not find the weights rounded
            copy = stack.enter_context(for_evaluation(model))
        yield copy


def build_training(
    model: nn.Module,
    hyp: Hyp,
    nb: int,
    counts: np.ndarray,
    ranks: Ranks,
    dtype: torch.dtype | None,
    state: dict[str, Any] | None,
) -> tuple[Training, Plan]:
    """Everything that is trained, in its saved state where there is one; and the plan of the run.

    nb: batches per epoch; counts (nc,): boxes of each class; dtype: of autocast, None for full precision.
    """
    schedule = build_schedule(hyp, nb, hyp.batch, tuple(parameter_groups(model, hyp)))
    plan, loss_fn = make_plan(schedule, hyp), loss_of(model, hyp, counts, ranks.world_size)
    stable = stable_part(schedule, hyp, bool(loss_fn.state_dict()))
    training = Training(
        model=model,
        ema=EMA(model, hyp.ema_decay, plan.ema_tau),
        optimizer=build_optimizer(model, hyp, plan.weight_decay, schedule.decays_all),
        scaler=torch.amp.GradScaler(ranks.device.type, init_scale=FP16_SCALE, enabled=dtype == torch.float16),
        loss_fn=loss_fn,
        schedule=schedule,
        progress=Progress(**state["progress"]) if state else Progress(),
        writer=Writer(background=ranks.device.type == "cuda"),
        due=Due(hyp.save_every if ranks.rank == 0 else 0, stable.batches),  # one clock is enough
        stable=stable,
        agreed=Agreed(ranks.world_size),
    )
    if state:
        optimizer = with_settings_of(training.optimizer, state["optimizer"])
        restore(state | {"optimizer": optimizer}, training.parts(), model)
        training.ema.tau, training.begun, training.whole = plan.ema_tau, state.get("meter"), True
        training.due.saved_at(training.progress.ni)
    return training, plan
