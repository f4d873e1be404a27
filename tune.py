"""Which rate, which settings? python tune.py lr | search --weights yolo11n.pt --data data.yaml. Read downward."""

import utils.env  # noqa: F401, I001  (first: sets the environment that the libraries read on import)

import sys
from collections.abc import Callable

from utils.config.options import option_lines
from utils.config.schema import Command, Hyp
from utils.errors import UserError, answer_first, run_script, stop_if_signalled, suggest
from utils.tune.options import ONCE, Lr, read_run, train_line
from utils.tune.search.asked import Search, read_search

USAGE = """usage: python tune.py lr | search [--key value | key=value ...]

  lr       range test: a rate that rises step by step, and what the loss says to it; suggests lr0
  search   many runs over a space, as lr0=log:1e-4:1e-1 mosaic=0:1 optimizer=sgd|adamw; its winner is run again on
           fresh seeds against the settings as given, and hyps/tuned.yaml is written if it is certainly better
"""
MODELS = {"lr": Lr, "search": Search}


def answered(argv: list[str]) -> bool:
    """Whether --help was all that is asked for; UserError for words that cannot be understood."""
    name = argv[0] if argv else ""
    if {"--help", "-h"} & set(argv):
        print("\n".join([USAGE, *option_lines(MODELS.get(name, Lr), Command, Hyp, without=ONCE)]))
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
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data.definition.dataset_yaml import load_dataset_yaml
from data.index.folds import open_parts
from data.index.index import Index
from data.loading.loader import TrainLoader, build_train_loader
from data.loading.multiscale import random_size, resize
from data.loading.order import class_counts, most_boxes
from models.detector import open_model
from models.training.fit import Demand, require_statistics, settle
from models.training.freeze import freeze
from models.training.state import Training, build_training
from models.training.steps import restored, take_steps
from models.weights.find import find_weights
from utils.device.images import ToDevice, in_channels_last, memory_format
from utils.device.ranks import DTYPES, Ranks, open_device, pick_device, thread_count, worker_count
from utils.drawing.figure import save
from utils.files import write_whole
from utils.run.console import configure_console, progress_bar
from utils.run.folder import make_run_folder
from utils.run.state.seed import set_seed
from utils.schedule.preview import for_data
from utils.schedule.rates import Rates
from utils.tune.picture import draw_ramps
from utils.tune.ramp import Ramp, Suggestion, has_diverged, rates, remarks, suggest_rates
from utils.tune.search.main import search

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Bench:
    """A run up to its first batch: data that are opened once, networks as often as they are asked for."""

    command: Command
    hyp: Hyp  # resolved: `batch` and `amp` are what is used
    ranks: Ranks
    train: Index
    val: Index

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
    model, _ = open_model(hyp, train.names, None, command.download)
    model.to(ranks.device)
    hyp = settle(hyp, ranks, model, Demand(most_boxes(train, hyp.mosaic, hyp.mixup), class_counts(train)))
    return Bench(command, for_data(hyp, train.per_epoch, train.nc), ranks, train, val)


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
    to_device = ToDevice(bench.ranks.device, in_channels_last(hyp.channels_last), DTYPES[hyp.amp])

    def prepare(batch: dict[str, Any], ni: int) -> Tensor:
        return resize(to_device(batch), random_size(hyp.seed, ni, hyp.imgsz, hyp.multi_scale, stride))

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
    if "steepest" not in found or options.group not in ("all", "weight", "bias"):
        return ""
    lr = float(f"{found['steepest'].lr:.2g}")
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


COMMANDS = {"lr": find_lr}

if __name__ == "__main__":
    sys.exit(run_script(main))
