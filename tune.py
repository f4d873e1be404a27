"""Before a long run: python tune.py lr | check | search --weights yolo11n.pt --data data.yaml. Read downward."""

import utils.env  # noqa: F401, I001  (first: sets the environment that the libraries read on import)

import sys
from collections.abc import Callable

from utils.config.help import option_lines
from utils.config.schema import Command, Hyp
from utils.errors import UserError, answer_first, run_script, stop_if_signalled, suggest
from utils.tune.options import ONCE, Check, Lr, read_run, train_line
from utils.tune.search.asked import Search, read_search

USAGE = """usage: python tune.py lr | check | search [--key value | key=value ...]

  lr       range test: a rate that rises step by step, and what the loss says to it; suggests lr0
  check    seven steps before a long run, each with a verdict, its evidence and what to do
  search   many runs over a space, as lr0=log:1e-4:1e-1 mosaic=0:1 optimizer=sgd|adamw; its winner is run again on
           fresh seeds against the settings as given, and hyps/tuned.yaml is written if it is certainly better
"""
MODELS = {"lr": Lr, "check": Check, "search": Search}


def answered(argv: list[str]) -> bool:
    """Whether --help was all that is asked for; UserError for words that cannot be understood."""
    name = argv[0] if argv else ""
    if {"--help", "-h"} & set(argv):
        asked = [MODELS[name]] if name in MODELS else MODELS.values()
        print("\n".join([USAGE, *option_lines(*asked, Command, Hyp, without=ONCE)]))
        return True
    if name not in MODELS:
        what = f"'{name}' is no command of tune.py." if name else "name a command of tune.py."
        raise UserError(f"{what}{suggest(name, list(MODELS))} There is: {', '.join(MODELS)}. All options: --help")
    if name == "search":
        read_search(argv[1:])
    else:
        read_run(argv[1:], MODELS[name])
    return False


if __name__ == "__main__":
    answer_first(lambda: answered(sys.argv[1:]))  # before torch is loaded

import json
import logging
import math
import shlex
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data.definition.dataset_yaml import load_dataset_yaml
from data.index.folds import open_parts
from data.index.index import Index
from data.loading.device.prepare import to_device
from data.loading.loader import TrainLoader, build_train_loader
from data.loading.multiscale import random_size, resize
from data.loading.order import class_counts, most_boxes
from data.scored import open_validation
from models.detector import open_model
from models.training.fit import Demand, require_statistics, settle
from models.training.freeze import freeze
from models.training.state import Training, build_training, scored_as_stored
from models.training.steps import Step, restored, take_steps, with_priors
from models.weights.find import find_weights
from utils.compare.folder import write_text
from utils.compare.launch.local import device_slots
from utils.device.images import memory_format
from utils.device.ranks import DTYPES, Ranks, open_device, pick_device, thread_count, worker_count
from utils.drawing.figure import save
from utils.files import write_whole
from utils.run.console import configure_console, progress_bar
from utils.run.folder import make_run_folder
from utils.run.state.seed import set_seed
from utils.schedule.preview import for_data
from utils.schedule.rates import Rates
from utils.tune.check.lecture import (
    Finding,
    at_start,
    best_rate,
    by_heart,
    falling,
    next_commands,
    transfer,
)
from utils.tune.check.notes import Notes
from utils.tune.check.page import WORDS, check_page
from utils.tune.check.runs import Lab, best_trial, read_curves, run_grid, run_longer
from utils.tune.check.trials import OutOfTime
from utils.tune.lr.picture import draw_ramps
from utils.tune.lr.ramp import Ramp, Suggestion, has_diverged, rates, remarks, suggest_rates
from utils.tune.search.main import search

log = logging.getLogger(__name__)
PLAIN = (  # what is off where pictures are learnt by heart
    *("mosaic", "mixup", "hsv_h", "hsv_s", "hsv_v", "degrees", "translate", "scale", "shear", "perspective", "flipud"),
    *("fliplr", "multi_scale", "balance", "weight_decay"),
)


@dataclass(frozen=True)
class Bench:
    """A run up to its first batch: data that are opened once, networks as often as they are asked for."""

    command: Command
    hyp: Hyp  # resolved: `batch` and `amp` are what is used
    ranks: Ranks
    train: Index
    val: Index
    known: list[str]  # classes that the weights know already

    def with_seed(self, seed: int) -> "Bench":
        """The same run with another seed."""
        return replace(self, hyp=self.hyp.model_copy(update={"seed": seed}))


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """One command, from the command line to what it found out, which also stands in its folder."""
    argv = sys.argv[1:] if argv is None else [str(word) for word in argv]
    configure_console()
    if answered(argv):
        return {}
    if argv[0] == "search":
        asked = read_search(argv[1:])
        load_dataset_yaml(asked.hyp.data, asked.command.download)  # what it has to say, it says before any trial
        find_weights(str(asked.hyp.weights), asked.command.download)
        return search(asked, argv[1:])
    options, command, hyp, notes, words = read_run(argv[1:], MODELS[argv[0]])
    for note in notes:
        log.info(note)
    return COMMANDS[argv[0]](options, command, hyp, words)


def open_bench(command: Command, hyp: Hyp) -> Bench:
    """Open the data and settle what depends on device and data, as train.py does."""
    ranks = Ranks(0, 1, pick_device(hyp.device))
    torch.set_num_threads(thread_count(ranks))
    open_device(ranks.device)
    train, val = open_parts(load_dataset_yaml(hyp.data, command.download), hyp, command.trust_index)
    model, head = open_model(hyp, train.names, None, command.download)
    model.to(ranks.device)
    hyp = settle(hyp, ranks, model, Demand(most_boxes(train, hyp.mosaic, hyp.mixup), class_counts(train)))
    known = head.carried_names if head else []
    return Bench(command, for_data(hyp, train.per_epoch, train.nc), ranks, train, val, known)


def begin(bench: Bench) -> tuple[Training, TrainLoader]:
    """Everything that a run of train.py has before its first batch; the same for the same seed."""
    hyp, device = bench.hyp, bench.ranks.device
    set_seed(hyp.seed, hyp.deterministic)
    model, _ = open_model(hyp, bench.train.names, None, bench.command.download)
    freeze(model, hyp.freeze)
    workers = worker_count(hyp.workers, bench.ranks)
    loader = build_train_loader(bench.train, hyp, batch=hyp.batch, workers=workers, pin=device.type == "cuda")
    require_statistics(model, hyp, loader.sampler.fewest)
    model.to(device, memory_format=memory_format(hyp.channels_last))
    counts = class_counts(bench.train)
    return build_training(model, hyp, len(loader), counts, bench.ranks, DTYPES[hyp.amp], None)[0], loader


def endless(loader: TrainLoader) -> Iterator[dict[str, Any]]:
    """Batches of epoch after epoch."""
    epoch = 0
    while True:
        yield from loader.epoch(epoch)
        epoch += 1


def preparing(bench: Bench, stride: int) -> Callable[[dict[str, Any], int], Tensor]:
    """What makes of a batch the pictures that train.py gives the network."""
    hyp = bench.hyp
    on_device = to_device(hyp, bench.ranks.device, DTYPES[hyp.amp])

    def prepare(batch: dict[str, Any], ni: int) -> Tensor:
        return resize(on_device(batch), random_size(hyp.seed, ni, hyp.imgsz, hyp.multi_scale, stride))

    return prepare


def find_lr(options: Lr, command: Command, hyp: Hyp, words: list[str]) -> dict[str, Any]:
    """The range test: ramps of several seeds, what they suggest, and the line of train.py that follows."""
    if options.lr_to < 10 * options.lr_from:
        raise UserError(f"lr_to {options.lr_to:g} has to be at least ten times lr_from {options.lr_from:g}.")
    bench = open_bench(command, hyp)
    folder = make_run_folder(options.project, options.name, False)
    ramps = []
    for seed in range(hyp.seed, hyp.seed + options.seeds):
        ramp = ramp_up(bench.with_seed(seed), options)
        ramps.append(ramp)
        low = int(ramp.smooth.argmin())
        end = f"diverged at {ramp.lr[-1]:.2g}" if ramp.diverged else f"{ramp.loss[-1]:.3f} at {ramp.lr[-1]:.2g}"
        log.info(f"seed {seed}: loss {ramp.smooth[0]:.3f}, lowest {ramp.smooth[low]:.3f} at {ramp.lr[low]:.2g}, {end}")
    found = suggest_rates(ramps)
    for s in found.values():
        log.info(f"{s.name:<14} {s.lr:.2g}  ({min(s.each):.2g} to {max(s.each):.2g}, {len(s.each)} seeds)")
    notes = remarks(ramps, found)
    for note in notes:
        log.info(note)
    line = next_line(options, words, found)
    result = write_ramps(folder, options, bench, ramps, found, {"remarks": notes, "train": line})
    log.info(f"picture: {folder / 'lr.png'}, numbers: {folder / 'lr.json'}")
    log.info(f"train with it: {line}" if line else "nothing is suggested: train with the rate that is set")
    return result


def ramp_up(bench: Bench, options: Lr) -> Ramp:
    """One range test; the network, fresh from its weights, is as it was in the end."""
    training, loader = begin(bench)
    hyp, schedule = bench.hyp, training.schedule
    prepare = preparing(bench, int(training.model.stride.max()))
    lrs, losses = rates(options.lr_from, options.lr_to, options.steps), []
    peaks = {name: curve.peak for name, curve in schedule.lr.items()}

    def at(lr: float) -> Rates:
        moved = {k: v * lr / hyp.lr0 if options.group in ("all", k.rpartition(".")[2]) else v for k, v in peaks.items()}
        return Rates(moved, hyp.momentum, schedule.nominal)

    try:
        with restored(training.model):
            steps = take_steps(training, endless(loader), map(at, lrs), prepare, hyp.clip_norm, DTYPES[hyp.amp])
            for step in progress_bar(steps, options.steps, f"seed {hyp.seed}", True):
                stop_if_signalled()
                losses.append(step.loss)
                if has_diverged(losses):
                    break
    finally:
        loader.close()
    diverged = has_diverged(losses)
    kept = [loss for loss in losses if loss == loss and abs(loss) != float("inf")]
    return Ramp(hyp.seed, lrs[: len(kept)], torch.tensor(kept).double().numpy(), diverged)


def next_line(options: Lr, words: list[str], found: dict[str, Suggestion]) -> str:
    """The command of train.py that uses what was found; empty where nothing was."""
    if "middle" not in found or options.group not in ("all", "weight", "bias"):
        return ""
    lr = float(f"{found['middle'].lr:.2g}")
    return train_line(words, **({"warmup_bias_lr": lr} if options.group == "bias" else {"lr0": lr}))


def write_ramps(
    folder: Path, options: Lr, bench: Bench, ramps: list[Ramp], found: dict[str, Suggestion], more: dict[str, Any]
) -> dict[str, Any]:
    """Write lr.png and lr.json, and return what the latter holds."""
    save(draw_ramps(ramps, found, options.group), folder / "lr.png")
    result = {
        "suggestions": {
            key: {"lr": s.lr, "low": min(s.each), "high": max(s.each), "seeds": len(s.each)} for key, s in found.items()
        },
        **more,
        "ramps": [
            {"seed": r.seed, "lr": r.lr.tolist(), "loss": r.loss.tolist(), "diverged": r.diverged} for r in ramps
        ],
        "options": options.model_dump(),
        "settings": bench.hyp.model_dump(),
    }
    write_whole(folder / "lr.json", json.dumps(result, indent=1, allow_nan=False).encode())
    return result


def check(options: Check, command: Command, hyp: Hyp, words: list[str]) -> dict[str, Any]:
    """The seven steps, each made once: what was found stands in check.json, and on a page in the end."""
    began = time.monotonic()
    minutes = options.minutes or (4.0 if words == ["--hyp", "demo"] else 30.0)
    log.info(f"seven steps within {minutes:g} minutes; the same command goes on where it stopped")
    bench = open_bench(command, hyp)
    notes = Notes.of(Path(options.project), options.name, {"pictures": options.pictures, **bench.hyp.model_dump()})
    until = began + 60 * minutes - notes.seconds
    slots = device_slots(hyp.device, options.jobs)
    batches = -(-bench.train.per_epoch // bench.hyp.batch)
    lab = Lab(bench.hyp, batches, bench, notes.numbers, notes.folder, words, slots, until)
    steps = (
        look_at_start,
        partial(learn_by_heart, pictures=options.pictures),
        try_rates,
        run_grid,
        run_longer,
        read_curves,
    )
    for number, step in enumerate(steps, 1):
        try:
            if number not in notes.findings:
                notes.findings[number] = step(lab)
        except OutOfTime:
            log.info(f"{number}. the minutes are over: the same command with more --minutes goes on here")
            break
        finally:
            notes.write(time.monotonic() - began)
        found = notes.findings[number]
        log.info(f"{number}. {found.title}: {WORDS[found.verdict]}. {found.evidence}")
        if found.advice:
            log.info(f"   {found.advice}")
    case, arms = transfer(bench.train.n, bench.known, bench.train.names, hyp.epochs)
    best = best_trial(notes.numbers.get("trials5") or notes.numbers.get("trials4") or [])
    commands = next_commands(shlex.join(words), best, arms, hyp.epochs)
    told = {"case": case, "commands": commands, "minutes": f"{minutes:g}"}
    told["command"] = "python tune.py check " + shlex.join(words)
    write_text(notes.folder / "check.html", check_page(notes.folder.name, notes.listed, notes.numbers, told))
    for line in (case, *commands, f"report: {notes.folder / 'check.html'}"):
        log.info(line)
    return {"findings": {f.step: f.verdict for f in notes.listed}, **notes.numbers}


def look_at_start(lab: Lab) -> Finding:
    """Step 1: the losses of the first batch, and those of a network that knows its priors only."""
    training, loader = begin(lab.bench)
    model, loss_fn = training.model, training.loss_fn
    try:
        batch = next(loader.epoch(0))
        images = preparing(lab.bench, int(model.stride.max()))(batch, 0)
        with torch.no_grad():
            parts, implied = (
                dict(zip(loss_fn.names, loss_fn(one.train()(images), batch)[1].tolist(), strict=True))
                for one in (model, with_priors(model))
            )
    finally:
        loader.close()
    return at_start(parts, implied, lab.bench.known)


def learn_by_heart(lab: Lab, pictures: int) -> Finding:
    """Step 2: a few pictures as they are, until the network knows them or a third of the time is over."""
    bench, end = lab.bench, time.monotonic() + lab.left / 3
    with_boxes = np.flatnonzero(np.diff(bench.train.offsets))
    some = np.sort(np.random.default_rng(0).permutation(with_boxes)[:pictures])
    own = dict.fromkeys(PLAIN, 0.0) | {"albumentations": None, "cache": "off", "workers": 0}
    hyp = bench.hyp.model_copy(update=own | {"batch": len(some), "nbs": len(some)})
    few = replace(bench, hyp=hyp, train=bench.train.take(some))
    training, loader = begin(few)
    stride = training.model.stride
    sides = few.train.boxes[:, 2:].min(1) * hyp.imgsz
    share = (int(stride.max()), 0, bench.ranks, scored_as_stored, loader.dataset)
    val, scores, done = open_validation(few.train, None, hyp, *share), [], 0
    for n in (60, 60, 120, 240):
        for _ in hold(few, training, loader, hyp.lr0, n):
            done += 1
        scores.append((done, val.score(training.model).metrics["val/mAP50"]))
        if scores[-1][1] >= 0.95 or time.monotonic() > end:
            break
    return by_heart(scores, len(some), float((sides < float(stride.min())).mean()))


def try_rates(lab: Lab) -> Finding:
    """Step 3: a hundred batches at each of four rates."""
    hyp, tried, took, batches = lab.bench.hyp, {}, 0.0, 0
    for factor in (0.1, 0.3, 1.0, 3.0):
        lr, began = float(f"{hyp.lr0 * factor:.3g}"), time.monotonic()
        training, loader = begin(lab.bench)
        nominal, losses = training.schedule.nominal, []
        began, end = time.monotonic(), time.monotonic() + lab.left / 8
        for step in hold(lab.bench, training, loader, lr, max(100 // nominal, 10)):
            losses.append(step.loss)
            if has_diverged(losses) or (len(losses) >= 10 and time.monotonic() > end):
                break
        loader.close()
        tried[lr], took, batches = losses, took + time.monotonic() - began, batches + nominal * len(losses)
    lab.numbers["batch_seconds"], lab.numbers["rate"] = took / batches, best_rate(tried)
    lab.numbers["rates"] = {str(lr): [x for x in losses if math.isfinite(x)] for lr, losses in tried.items()}
    return falling(tried, hyp.lr0)


def hold(bench: Bench, training: Training, loader: TrainLoader, lr: float, steps: int) -> Iterator[Step]:
    """So many steps at a rate that is held, of all groups in proportion."""
    hyp, schedule = bench.hyp, training.schedule
    lrs = {name: curve.peak * lr / hyp.lr0 for name, curve in schedule.lr.items()}
    rates = repeat(Rates(lrs, hyp.momentum, schedule.nominal), steps)
    prepare = preparing(bench, int(training.model.stride.max()))
    for step in take_steps(training, endless(loader), rates, prepare, hyp.clip_norm, DTYPES[hyp.amp]):
        stop_if_signalled()
        yield step


COMMANDS = {"lr": find_lr, "check": check}

if __name__ == "__main__":
    sys.exit(run_script(main))
