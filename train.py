"""Fine-tune a YOLO detector: python train.py --weights yolo11n.pt --data data.yaml --hyp finetune. Read downward."""

import utils.env  # noqa: F401, I001  (first: sets the environment that the libraries read on import)

import sys

from data.loading.plan import count_for
from utils.config.help import help_text
from utils.config.options import parse_args
from utils.errors import (
    Diverged,
    LeftAlone,
    StoppedBySignal,
    UserError,
    answer_first,
    held,
    listen_for_save,
    run_script,
)
from utils.schedule.preview import announce, asks_for_plan, preview, for_data


def answered(argv: list[str]) -> bool:
    """Whether --help or --plan was all that is asked for; UserError for words that cannot be understood."""
    if {"--help", "-h"} & set(argv):
        print(help_text("train.py"))
    elif asks_for_plan(argv):
        if runs := preview(argv, count_for):
            from models.training.state import check_planned  # takes seconds, so after the plan

            check_planned(runs)
    else:
        parse_args(argv)
        return False
    return True


if __name__ == "__main__":
    listen_for_save()
    answer_first(lambda: answered(sys.argv[1:]))  # before torch is loaded

import logging
import math
from collections.abc import Iterable
from contextlib import nullcontext, suppress
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

from data.loading.again import batch_again
from data.loading.device.prepare import colour_change, to_device
from data.loading.loader import TrainLoader, build_train_loader, first_batch
from data.loading.multiscale import random_size, resize
from data.loading.order import box_sizes, class_counts, most_boxes
from data.scored import open_data, open_validation, with_white
from models.anchor.anchors import settle_anchors
from models.detector import open_model
from models.head import Transfer
from models.training.between import between_batches, stop_together
from models.training.extend import open_earlier
from models.training.fit import Demand, largest_batch, require_statistics, settle, told_when_full
from models.training.freeze import freeze, keep_frozen_bn_eval
from models.training.graph import Graphed, require_graphs
from models.training.join import adding_up, join_model
from models.training.kept import keep_epoch, score_kept
from models.training.optim import all_finite, applied_rates, first_lost, optimizer_step, set_rates
from models.training.run import Run, first_state, keep_state, open_log, score_best, score_epoch, start_folder
from models.training.state import Training, build_training, scored_as_stored
from models.weights.save import add_thresholds, save_weights
from utils.config.schema import Command, Hyp
from utils.device.images import memory_format
from utils.device.ranks import DTYPES, Ranks, amp_words, start_ranks, thread_count, worker_count
from utils.device.streams import sent_ahead
from utils.device.together import first_said, from_rank_zero, join_ranks, stop_ranks, told_when_left
from utils.evaluation.bootstrap import interval_lines, keep_draws
from utils.evaluation.evaluate import Validation
from utils.run.console import closing_lines, configure_console, data_lines, epoch_line, model_lines, progress_bar
from utils.run.detection.thresholds import best_thresholds
from utils.run.folder import LAST, told_when_lost
from utils.run.log import RunLog
from utils.run.meter import GIVE_UP
from utils.run.pictures import keep_batch, plot_run, show_training, show_validation
from utils.run.profile import first_profiled
from utils.run.state.checkpoint import Resumed, check_data, resume_command
from utils.run.state.progress import Progress, require_score
from utils.run.state.restart import restarted
from utils.run.state.seed import set_seed

log = logging.getLogger(__name__)


def main(argv: list[str] | None = None) -> dict[str, float]:
    """One run, from the command line to its final metrics, which also stand in the run folder."""
    argv = sys.argv[1:] if argv is None else [str(word) for word in argv]
    if answered(argv):
        return {}
    command, hyp, notes = parse_args(argv)
    command, hyp = restarted(command, hyp)
    resumed, hyp = open_earlier(command, hyp)
    ranks = start_ranks(hyp.device)
    configure_console(ranks.rank)
    for note in [*notes, *(resumed.notes if resumed else ())]:
        log.info(note)
    metrics = resumed.finished() if resumed else None
    if metrics is None:
        with told_when_left():
            metrics = fine_tune(command, hyp, ranks, resumed)
            stop_ranks()
    return metrics


def fine_tune(command: Command, hyp: Hyp, ranks: Ranks, resumed: Resumed | None) -> dict[str, float]:
    """Build every part, train epoch by epoch, close the run. `resumed`: the run to go on with."""
    require_score(hyp)
    require_graphs(hyp, ranks)
    state = resumed.state if resumed else None
    torch.set_num_threads(state["threads"] if state else thread_count(ranks))  # part of the state: sums depend on it
    set_seed(hyp.seed, hyp.deterministic)
    data, train_index, val_index, also = open_data(hyp, command)
    hyp = with_white(hyp, train_index.depth, val_index.depth)
    changed = check_data(resumed, data, hyp.data != state["hyp"]["data"], command.resume_anyway) if resumed else []
    model, transfer = open_model(hyp, train_index.names, state, command.download)
    suited = [] if resumed else settle_anchors(model, box_sizes(train_index, hyp.imgsz), hyp)
    frozen = freeze(model, hyp.freeze)
    demand = Demand(most_boxes(train_index, hyp.mosaic, hyp.mixup), class_counts(train_index), colour_change(hyp))
    amp, hyp = amp_words(hyp.amp, ranks.device), settle(hyp, ranks, model, demand)
    hyp = for_data(hyp, train_index.per_epoch, train_index.nc)

    workers, pin, stride = worker_count(hyp.workers, ranks), ranks.device.type == "cuda", int(model.stride.max())
    share = {"rank": ranks.rank, "world_size": ranks.world_size}
    train_loader = build_train_loader(train_index, hyp, batch=hyp.batch, workers=workers, pin=pin, **share)
    require_statistics(model, hyp, train_loader.sampler.fewest)
    if resumed:
        resumed.fit(hyp, len(train_loader), bool(changed))
    val = open_validation(val_index, also, hyp, stride, workers, ranks, scored_as_stored, train_loader.dataset)
    val.start()  # forked before the GPU is opened, and while there is little memory to be copied when it is written
    train_loader.start(*(resumed.place(len(train_loader)) if resumed else (0, 0)))
    join_ranks(ranks)
    model.to(ranks.device, memory_format=memory_format(hyp.channels_last))
    folder = start_folder(hyp, ranks, data, resumed, changed, command.exist_ok)
    train_loader.epoch = first_profiled(train_loader.epoch, folder, hyp.amp, command.profile and ranks.rank == 0)
    run = Run(hyp, ranks, folder, stride, data, resumed is not None, demand, DTYPES[hyp.amp], bool(command.extend))
    training, plan = build_training(model, run.hyp, len(train_loader), demand.counts, ranks, run.dtype, state)
    val = replace(val, criterion=training.loss_fn.sums)
    about = [f"folder    {run.folder}", f"device    {ranks.describe()}, amp {amp}, torch {torch.__version__}"]
    for line in about + data_lines(train_index, val_index) + model_lines(model, len(frozen), transfer) + suited:
        log.info(line)
    if ranks.rank == 0:
        announce(plan, training.schedule, run.hyp, run.folder, training.stable)
    with told_when_lost(run.folder) if ranks.rank == 0 else nullcontext():
        return train_and_log(training, train_loader, val, run, transfer, command)


def train_and_log(
    training: Training, train_loader: TrainLoader, val: Validation, run: Run, head: Transfer | None, command: Command
) -> dict[str, float]:
    """The epochs and the end of the run, with what is written about them, which rank 0 does."""
    runlog = open_log(training, run, command.wandb)
    try:
        with told_when_left():
            if run.begins and runlog:
                runlog.begin(run.hyp.model_dump())
                if not run.hyp.noplots:
                    show_training(run.folder, runlog, train_loader.dataset.index, first_batch(train_loader.dataset, 9))
            first_state(training, val, run, runlog, head)
            run_epochs(training, train_loader, val, run, runlog, command.stop_after)
            training.writer.join()
            return finish(training, val, run, runlog)
    except (StoppedBySignal, UserError, Diverged, LeftAlone, OSError) as error:
        keep_state(training, run, runlog, error)
        if runlog and isinstance(error, Diverged) and error.batch is not None:
            with suppress(UserError, OSError):  # of a full disk, it is not what is to be told
                keep_batch(run.folder, batch_again(train_loader, training.progress.epoch, error.batch))
        raise
    finally:
        for used in filter(None, (train_loader, val.loader, runlog)):  # the last one meets a full disk
            used.close()


def run_epochs(
    training: Training,
    train_loader: TrainLoader,
    val: Validation | None,
    run: Run,
    runlog: RunLog | None,
    stop: int | None,
) -> None:
    """Epoch after epoch, `stop` of them at most as if interrupted; rank 0 alone has a runlog, and writes.

    val None: nothing is scored.
    """
    hyp = run.hyp
    until = min(hyp.epochs, training.progress.epoch + stop) if stop else hyp.epochs
    forward = join_model(training.model, run.ranks, hyp.sync_bn)
    if hyp.graph:
        forward = Graphed(training.model, (hyp.batch, 3, hyp.imgsz, hyp.imgsz), run.dtype)
    over = training.progress.finished
    while training.progress.epoch < until and not over:
        batches = train_loader.epoch(training.progress.epoch, training.batches_done)
        with told_when_full(hyp, run.ranks.world_size, partial(largest_batch, training.model, hyp, run.demand, False)):
            with held() if run.ranks.world_size > 1 else nullcontext():  # they stop together
                losses = train_one_epoch(training, forward, batches, run, runlog)
        progress = training.at_epoch_end(losses["time/epoch"] / 3600)
        over = bool(from_rank_zero(training.is_over(progress, hyp), run.ranks))  # their clocks differ
        training.require_steps(progress, over)
        training.share(run.ranks)
        over = end_epoch(training, progress, losses, val, run, runlog, over)


def train_one_epoch(
    training: Training, forward: nn.Module, batches: Iterable[dict[str, Any]], run: Run, runlog: RunLog | None
) -> dict[str, float]:
    """One pass over `batches`; `forward` is the model, or its DDP wrapper. Returns the epoch's means and last rates.

    Between two batches the state is saved where that is due, and a signal ends the run. Where a recipe drops an open
    window, it does so before the epoch's first batch.
    """
    t, hyp, done = training, run.hyp, training.batches_done
    t.model.train()
    keep_frozen_bn_eval(t.model)
    epoch = f"epoch {t.progress.epoch + 1}/{hyp.epochs}"
    bar = progress_bar(batches, t.schedule.nb, epoch, runlog is not None, done)
    if t.schedule.drops_at(t.progress.ni) and not done:
        t.optimizer.zero_grad()
    meter = t.open_meter(run.ranks.device, bar)
    applied = applied_rates(t.optimizer) | {"accumulate": t.schedule.accumulate(max(t.progress.ni - 1, 0))}
    prepare = to_device(hyp, run.ranks.device, run.dtype)
    for batch, images in sent_ahead(meter.waiting(bar), run.ranks.device, prepare):
        with t.one_batch():
            applied = train_batch(t, forward, batch, images, run)
            if runlog:
                runlog.batch(t.progress.ni, applied, meter.latest())
                meter.show(applied)
            if meter.hopeless(t.progress.ni):
                lost = f"{GIVE_UP} steps in a row: the gradient is NaN or infinite at batch {t.progress.ni}, {epoch}"
                raise Diverged(lost, meter.lost_from())
            t.progress.ni += 1
        between_batches(t, run, runlog)
    spoilt = "" if all_finite(t.model, t.ema.model) else first_lost(t.model) or first_lost(t.ema.model)
    if (spoilt := first_said(spoilt, run.ranks)) or meter.ends_lost():  # statistics are a rank's own
        lost = f"{spoilt or 'the loss'} is NaN or infinite at batch {t.progress.ni - 1}, {epoch}"
        raise Diverged(lost, meter.lost_from())
    return meter.means(hyp.clip_norm) | applied


def train_batch(
    training: Training, forward: nn.Module, batch: dict[str, Any], images: torch.Tensor, run: Run
) -> dict[str, float]:
    """Forward, criterion and backward of a batch, and a step where it ends a window; returns the rates that it had.

    images: (b, 3, h, w) in 0..1. The loss is summed over a batch and gradients over a window, weight decay being scaled
    to match; a recipe that means instead says so by loss_factor.
    """
    t, progress, hyp, device = training, training.progress, run.hyp, run.ranks.device
    ni = progress.ni
    rates = t.schedule(ni, progress.history)
    set_rates(t.optimizer, rates)
    applied = applied_rates(t.optimizer) | {"accumulate": rates.accumulate}
    images = resize(images, random_size(hyp.seed, ni, hyp.imgsz, hyp.multi_scale, run.stride))
    pictures, steps = batch["pictures"][1], t.schedule.is_step(ni, progress.last_step)  # pictures of all ranks
    with adding_up(forward, steps):
        with torch.autocast(device.type, dtype=run.dtype, enabled=run.dtype is not None):
            preds = forward(images)
        loss, items = t.loss_fn(preds, batch)
        loss = loss * run.ranks.world_size  # DDP averages gradients over ranks; a sum is meant
        t.scaler.scale(loss * t.schedule.loss_factor(ni, pictures)).backward()
    t.meter.add(items, pictures)
    if steps:
        t.meter.step(optimizer_step(t.model, t.optimizer, t.scaler, t.ema, hyp.clip_norm))
        progress.last_step = ni
    return applied


def end_epoch(
    training: Training,
    progress: Progress,
    losses: dict[str, float],
    val: Validation | None,
    run: Run,
    runlog: RunLog | None,
    over: bool,
) -> bool:
    """Evaluate, log and save after an epoch; returns whether the run is over: all ranks know the scores, and agree.

    progress: as it is at the epoch's end. The state stands before it until all is scored: a run that is stopped
    meanwhile goes on with the evaluation.
    """
    hyp, ema = run.hyp, training.ema
    row, best = dict(losses), None
    if val and (over or (progress.epoch % hyp.val_every == 0 and not hyp.noval)):
        scores, best, over = score_epoch(training, progress, val, run, runlog, over)
        row |= scores
    progress.history.append(row.get(hyp.plateau_metric, math.nan))
    progress.finished = over
    files = [run.folder / "weights" / LAST]
    if hyp.save_period and progress.epoch % hyp.save_period == 0:
        files.append(run.folder / f"weights/epoch{progress.epoch}.pt")
    line = epoch_line(progress.epoch, hyp.epochs, row)
    with held():
        keep_epoch(run.folder / "weights" if runlog else None, ema.model, hyp, progress, row, training.schedule, over)
        if runlog and best:
            save_weights(best, ema.model, val.truth.names, hyp.model_dump(), progress.epoch, progress.metrics)
        if runlog:
            runlog.epoch(progress.epoch, progress.ni, row)
        training.end_epoch(progress)
        if runlog:  # an epoch that is printed is an epoch that is kept
            training.save(files, run.hyp, run.data, lambda: log.info(line))
    stop_together(run.ranks)
    return over


def finish(training: Training, val: Validation, run: Run, runlog: RunLog | None) -> dict[str, float]:
    """Close a run: the score of best.pt, its thresholds, the plots. An interrupted run says how to go on."""
    progress = training.progress
    if not progress.finished:
        log.info(f"stopped after epoch {progress.epoch} of {run.hyp.epochs}. Go on: {resume_command(run.folder)}")
        return progress.metrics
    best = run.folder / "weights/best.pt"
    model, result, draws = score_best(training, val, best, runlog is not None)
    together = score_kept(best.parent, model, progress, val, runlog is not None, result.metrics["val/mAP50-95"])
    if runlog is None:
        return progress.metrics
    add_thresholds(best, model, best_thresholds(result.f1, val.truth.names).plain())
    if not run.hyp.noplots:
        batch = first_batch(val.loader.dataset, min(9, run.hyp.batch))
        show_validation(run.folder, runlog, result, batch, val.truth, progress.epoch)
        plot_run(run.folder, result, val.truth, training.schedule.nw)
    keep_draws(run.folder, "best", draws)
    for line in closing_lines(progress, result.metrics, best, interval_lines(draws), run.hyp.data):
        log.info(line)
    final = progress.metrics | {f"best/{key.removeprefix('val/')}": value for key, value in result.metrics.items()}
    runlog.result(run.hyp.model_dump(), final := final | together)
    runlog.classes(result.per_class)  # the last thing that a run writes: see is_closed
    return final


if __name__ == "__main__":
    sys.exit(run_script(main))
