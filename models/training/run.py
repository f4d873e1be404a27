"""What stays the same while a run goes on; its folder, and the states that are saved beside those of every epoch."""

import logging
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from models.head import Transfer
from models.training.fit import Demand
from models.training.state import Training
from utils.config.schema import Hyp
from utils.device.ranks import Ranks
from utils.errors import Diverged, UserError, held
from utils.evaluation.bootstrap import bootstrap, keep_draws
from utils.evaluation.evaluate import Validation
from utils.run.console import epoch_line
from utils.run.folder import write_run_json
from utils.run.log import RunLog
from utils.run.state.checkpoint import LAST, Resumed, open_run_folder, resume_command
from utils.run.state.progress import Progress, judged
from utils.run.state.restart import launch

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


def start_folder(hyp: Hyp, ranks: Ranks, data: dict, resumed: Resumed | None, changed: list, exist_ok: bool) -> Path:
    """Open the run folder, which a resumed run has already; rank 0 alone has it."""
    if ranks.rank > 0:
        return Path(hyp.project)
    folder = open_run_folder(hyp, resumed, exist_ok)
    if resumed:
        resumed.say_what_differs(hyp, ranks.device)
    about = {"device": str(ranks.device), "ranks": ranks.world_size, "resumed": resumed is not None}
    about |= {"launch": launch()} if launch() else {}
    about |= {"pictures": {split: data[f"{split} pictures"] for split in ("train", "val")}}
    about |= {"data_changed": changed} if changed else {}
    about |= {"hyp_changed": resumed.changed} if resumed and resumed.changed else {}
    write_run_json(folder, about)
    return folder


def score_untrained(
    training: Training, val: Validation, run: Run, runlog: RunLog | None, transfer: Transfer | None
) -> None:
    """Epoch 0: the score before the first batch, where a class name was carried over; and a state to go on from."""
    if run.hyp.noval or not (transfer and transfer.carried_names):
        log.info(f"epoch 0/{run.hyp.epochs}  not evaluated: {'noval' if run.hyp.noval else 'head fresh'}")
    else:
        metrics = val.score(training.ema.model).metrics
        log.info(epoch_line(0, run.hyp.epochs, metrics))
        if runlog:
            runlog.epoch(0, 0, metrics)
    if runlog:
        training.save([run.folder / "weights" / LAST], run.hyp, run.data)
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
    scores, path = dict(result.metrics), run.folder / "weights/best.pt"
    better = progress.is_best(judged(scores, hyp.best_metric), hyp.patience_from)
    best = path if better or not path.exists() else None
    patient = not progress.out_of_patience(hyp.patience, schedule.nw, schedule.nb, hyp.patience_from)
    if not over and ema.updates and not patient:
        why = f"no better {hyp.best_metric} for {hyp.patience} epochs (best: epoch {progress.best_epoch})"
        log.info(f"{why}: stopping early")
        over = True
    if over:
        if runlog:
            keep_draws(run.folder, "last", bootstrap(val.truth, result))
        scores["raw/mAP50-95"] = val.score(training.model).metrics["val/mAP50-95"]
    return scores, best, over


def save_inside(training: Training, run: Run, runlog: RunLog) -> bool:
    """Save the state between two batches and what has been logged up to there; False where it is not worth it.

    Of several ranks each has its own part of an open window's gradient: they save after a step only.
    """
    opened = training.progress.last_step < training.progress.ni - 1
    if (opened and run.ranks.world_size > 1) or not training.is_sound():
        return False
    runlog.flush(to_disk=True)
    asked, training.due.asked = training.due.asked, False
    what = f"saved: the state after batch {training.progress.ni}. Go on from it: {resume_command(run.folder)}"
    training.save([run.folder / "weights" / LAST], run.hyp, run.data, lambda: asked and log.info(what))
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
