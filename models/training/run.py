"""What stays the same while a run goes on; its folder, and the states that are saved beside those of every epoch."""

import copy
import logging
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from models.detector import load_for_eval
from models.head import Transfer
from models.training.fit import Demand
from models.training.state import Training
from utils.config.schema import Hyp
from utils.device.ranks import Ranks
from utils.errors import Diverged, UserError, held
from utils.evaluation.bootstrap import Resamples, bootstrap, keep_draws
from utils.evaluation.evaluate import Evaluation, Validation
from utils.run.carry import carry
from utils.run.console import epoch_line
from utils.run.folder import LAST, write_run_json
from utils.run.log import RunLog, open_wandb
from utils.run.state.checkpoint import Resumed, open_run_folder, resume_command
from utils.run.state.progress import Progress, judged, require_number
from utils.run.state.restart import launch
from utils.run.state.stable import forget, keep_best, keep_last

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """What stays the same while a run goes on."""

    hyp: Hyp  # resolved: `batch` and `amp` are what is used
    ranks: Ranks
    folder: Path
    stride: int  # largest stride of the model, pixels
    data: dict[str, Any]  # what a resumed run must find again
    resumed: bool
    demand: Demand | None = None  # of a training step, by which a full GPU is explained
    dtype: torch.dtype | None = None  # of autocast; None: full precision
    extends: bool = False  # resumed, with the past of another run, in a folder of its own

    @property
    def begins(self) -> bool:
        """Whether the run's folder is a new one."""
        return self.extends or not self.resumed


def start_folder(hyp: Hyp, ranks: Ranks, data: dict, resumed: Resumed | None, changed: list, exist_ok: bool) -> Path:
    """Open the run folder, which a resumed run has already; rank 0 alone has it."""
    if ranks.rank > 0:
        return Path(hyp.project)
    folder = open_run_folder(hyp, resumed, exist_ok)
    if resumed:
        resumed.say_what_differs(hyp, ranks.device)
    else:
        forget(folder / "weights")
    about = {"device": str(ranks.device), "ranks": ranks.world_size, "resumed": resumed is not None}
    about |= {"resumed": False, "extends": str(resumed.path)} if resumed and resumed.extends else {}
    about |= {"launch": launch()} if launch() else {}
    about |= {"pictures": {split: data[f"{split} pictures"] for split in ("train", "val")}}
    about |= {"data_changed": changed} if changed else {}
    about |= {"hyp_changed": resumed.changed} if resumed and resumed.changed else {}
    write_run_json(folder, about)
    if resumed and resumed.extends:
        before = resumed.state["progress"]
        carry(resumed.extends, folder, before["ni"], before["epoch"])
    return folder


def open_log(training: Training, run: Run, wandb: bool) -> RunLog | None:
    """What is written about a run, which rank 0 does; where a resumed one goes on is said."""
    progress = training.progress
    if run.resumed:
        inside = f", {training.batches_done} of its {training.schedule.nb} batches done" if training.begun else ""
        log.info(f"going on after epoch {progress.epoch} of {run.hyp.epochs}{inside}")
    if run.ranks.rank > 0:
        return None
    mirror = open_wandb(run.folder, run.hyp.model_dump()) if wandb else None
    return RunLog(run.folder, progress.epoch, progress.ni, run.resumed, mirror)


def first_state(
    training: Training, val: Validation, run: Run, runlog: RunLog | None, transfer: Transfer | None
) -> None:
    """A state to go on from; and epoch 0, the score before the first batch, where a class name was carried over."""
    hyp, stable = run.hyp, training.progress.ni == training.stable.batches > 0
    if not run.resumed and (hyp.noval or not (transfer and transfer.carried_names)):
        log.info(f"epoch 0/{hyp.epochs}  not evaluated: {'noval' if hyp.noval else 'head fresh'}")
    elif not run.resumed:
        metrics = val.score(training.ema.model).metrics
        log.info(epoch_line(0, hyp.epochs, metrics))
        if runlog:
            runlog.epoch(0, 0, metrics)
    if runlog and run.begins:
        training.save([run.folder / "weights" / LAST], hyp, run.data)
    if runlog and stable:  # it was stopped before its state was kept as such
        training.writer.join()
        keep_best(run.folder / "weights")
        keep_last(run.folder / "weights")
    training.whole = True


def score_epoch(
    training: Training, progress: Progress, val: Validation, run: Run, runlog: RunLog | None, over: bool
) -> tuple[dict[str, float], Path | None, bool]:
    """Score the average after an epoch; returns scores, best.pt if it is to be written, and whether the run is over.

    progress: as it is at the epoch's end. A run that is over scores the raw weights, too: did the average help?
    """
    hyp, ema, schedule = run.hyp, training.ema, training.schedule
    result = val.score(ema.model)
    progress.metrics = result.metrics
    require_number(scores := dict(result.metrics), hyp)
    path = run.folder / "weights/best.pt"
    better = progress.is_best(judged(scores, hyp.best_metric), hyp.patience_from)
    best = path if better or not path.exists() else None
    patient = not progress.out_of_patience(hyp.patience, schedule.nw, schedule.nb, hyp.patience_from)
    if not over and ema.updates and not patient:
        why = f"no better {hyp.best_metric} for {hyp.patience} epochs (best: epoch {progress.best_epoch})"
        log.info(f"{why}: stopping early")
        over = True
    if over:
        draws = bootstrap(val.truth, result) if runlog else None
        if draws:
            keep_draws(run.folder, "last", draws)
        training.closing = (result, draws) if progress.best_epoch == progress.epoch else None
        raw = replace(val, criterion=None, also=None).score(training.model)
        scores["raw/mAP50-95"] = raw.metrics["val/mAP50-95"]
    return scores, best, over


def score_best(
    training: Training, val: Validation, best: Path, writes: bool
) -> tuple[nn.Module, Evaluation, Resamples | None]:
    """The detector in best.pt, its scores and, on rank 0, which `writes`, their draws.

    Those of the last evaluation where that was of this detector: an epoch has one score. Else as read back from disk.
    """
    if training.closing:
        return training.ema.model, *training.closing
    model = load_for_eval(str(best)) if writes else copy.deepcopy(training.ema.model)  # becomes that of rank 0
    result = val.score(model.to(val.device, memory_format=val.settings.layout))
    return model, result, bootstrap(val.truth, result) if writes else None


def save_inside(training: Training, run: Run, runlog: RunLog) -> bool:
    """Save the state between two batches and what has been logged up to there; False where it is not worth it.

    Of several ranks each has its own part of an open window's gradient, until it is shared.
    """
    opened = training.progress.last_step < training.progress.ni - 1
    if (opened and run.ranks.world_size > 1 and not training.shared) or not training.is_sound():
        return False
    runlog.flush(to_disk=True)
    weights, ni, asked, training.due.asked = run.folder / "weights", training.progress.ni, training.due.asked, False
    stable = ni == training.stable.batches
    if stable:
        keep_best(weights)

    def then() -> None:
        if stable:
            keep_last(weights)
        if asked:
            log.info(f"saved: the state after batch {ni}. Go on from it: {resume_command(run.folder)}")

    training.save([weights / LAST], run.hyp, run.data, then)
    return True


def keep_state(training: Training, run: Run, runlog: RunLog | None, error: BaseException) -> None:
    """Save where a run is that ends early, unless that is what it ends by; say what is kept, and how to go on."""
    if runlog is None:
        return
    with held():
        now = False
        with suppress(UserError):
            training.writer.join()
        with suppress(UserError, OSError):
            now = training.whole and not isinstance(error, Diverged) and save_inside(training, run, runlog)
            training.writer.join()
        if (run.folder / "weights" / LAST).exists():
            what = f"the state after batch {training.progress.ni}" if now else "the last state that was saved"
            log.info(f"kept: {what}. Go on from it: {resume_command(run.folder)}")
