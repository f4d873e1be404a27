"""Before a long run: python tune.py lr | check | search --weights yolo11n.pt --data data.yaml. Read downward."""

import utils.env  # noqa: F401, I001  (first: sets the environment that the libraries read on import)

import sys
import time

from utils.config.help import option_lines
from utils.config.schema import Command, Hyp
from utils.errors import UserError, answer_first, room_to_write, run_script, stop_if_signalled, suggest
from utils.tune.options import ONCE, Check, Lr, read_run
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

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data.definition.dataset_yaml import load_dataset_yaml
from data.index.folds import open_parts
from data.index.index import Index
from data.loading.device.prepare import colour_change, to_device
from data.loading.loader import TrainLoader, build_train_loader, open_val_loader
from data.loading.multiscale import random_size, resize
from data.loading.order import class_counts, most_boxes
from data.scored import open_validation, with_white
from models.detector import open_model
from models.inference.features import statistics_apart
from models.training.fit import Demand, require_statistics, settle
from models.training.freeze import freeze
from models.training.state import Training, build_training, scored_as_stored
from models.training.steps import restored, take_steps, with_priors
from models.weights.find import find_weights
from utils.device.images import memory_format
from utils.device.ranks import DTYPES, Ranks, open_device, pick_device, thread_count, worker_count
from utils.run.console import configure_console
from utils.run.state.seed import set_seed
from utils.schedule.preview import for_data
from utils.schedule.rates import Rates, Schedule
from utils.tune.check.main import check
from utils.tune.lr.main import find_lr
from utils.tune.search.main import search

log = logging.getLogger(__name__)


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """One command, from the command line to what it found out, which also stands in its folder."""
    with room_to_write("finished trials and steps are kept"):
        return run(argv)


def run(argv: list[str] | None) -> dict[str, Any]:
    """The same, where a full disk is an OSError."""
    argv, began = sys.argv[1:] if argv is None else [str(word) for word in argv], time.monotonic()
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
    bench = open_bench(command, hyp)
    return find_lr(options, bench, words) if argv[0] == "lr" else check(options, bench, words, began)


def open_bench(command: Command, hyp: Hyp) -> "Bench":
    """Open the data and settle what depends on device and data, as train.py does."""
    ranks = Ranks(0, 1, pick_device(hyp.device))
    torch.set_num_threads(thread_count(ranks))
    open_device(ranks.device)
    train, val = open_parts(load_dataset_yaml(hyp.data, command.download), hyp, command.trust_index)
    hyp = with_white(hyp, train.depth, val.depth)
    model, head = open_model(hyp, train.names, None, command.download)
    model.to(ranks.device)
    demand = Demand(most_boxes(train, hyp.mosaic, hyp.mixup), class_counts(train), colour_change(hyp))
    hyp = settle(hyp, ranks, model, demand)
    known = head.carried_names if head else []
    return Bench(command, for_data(hyp, train.per_epoch, train.nc), ranks, train, val, known)


@dataclass(frozen=True)
class Bench:
    """A run up to its first batch: data that are opened once, networks as often as they are asked for."""

    command: Command
    hyp: Hyp  # resolved: `batch` and `amp` are what is used
    ranks: Ranks
    train: Index
    val: Index
    known: list[str]  # classes that the weights know already

    def having(self, train: Index | None = None, **changed: Any) -> "Bench":
        """The same with other settings, and perhaps other pictures."""
        return replace(self, hyp=self.hyp.model_copy(update=changed), train=train or self.train)

    def apart(self, pictures: int) -> float | None:
        """How far the backbone's channels lie from where they lay in the training of its weights, on val."""
        hyp, device = self.hyp, self.ranks.device
        model, _ = open_model(hyp, self.train.names, None, self.command.download)
        some = np.sort(np.random.default_rng(0).permutation(self.val.n)[:pictures])
        loader = open_val_loader(self.val.take(some), hyp, int(model.stride.max()), 0, self.ranks, [])
        return statistics_apart(model.to(device), map(to_device(hyp, device, None), loader))

    @contextmanager
    def begin(self) -> Iterator["Start"]:
        """Everything that a run of train.py has before its first batch; the network is as it was in the end."""
        hyp, device = self.hyp, self.ranks.device
        set_seed(hyp.seed, hyp.deterministic)
        model, _ = open_model(hyp, self.train.names, None, self.command.download)
        freeze(model, hyp.freeze)
        workers = worker_count(hyp.workers, self.ranks)
        loader = build_train_loader(self.train, hyp, batch=hyp.batch, workers=workers, pin=device.type == "cuda")
        try:
            require_statistics(model, hyp, loader.sampler.fewest)
            model.to(device, memory_format=memory_format(hyp.channels_last))
            counts = class_counts(self.train)
            training, _ = build_training(model, hyp, len(loader), counts, self.ranks, DTYPES[hyp.amp], None)
            with restored(model):
                yield Start(self, training, loader)
        finally:
            loader.close()


@dataclass(frozen=True)
class Start:
    """A run of train.py before its first batch."""

    bench: Bench
    training: Training
    loader: TrainLoader

    @property
    def schedule(self) -> Schedule:
        """The rates that the run would have."""
        return self.training.schedule

    @property
    def stride(self) -> Tensor:
        """(levels,) pixels."""
        return self.training.model.stride

    def steps(self, rates: Iterable[Rates]) -> Iterator[float]:
        """An optimizer step for each of `rates`; its loss before it was taken, all parts together."""
        hyp = self.bench.hyp
        for step in take_steps(self.training, self.batches(), rates, self.prepare, hyp.clip_norm, DTYPES[hyp.amp]):
            stop_if_signalled()
            yield step.loss

    def batches(self) -> Iterator[dict[str, Any]]:
        """Batches of epoch after epoch."""
        for epoch in count():
            yield from self.loader.epoch(epoch)

    def prepare(self, batch: dict[str, Any], ni: int) -> Tensor:
        """The pictures of batch `ni` as train.py gives them to the network."""
        hyp = self.bench.hyp
        images = to_device(hyp, self.bench.ranks.device, DTYPES[hyp.amp])(batch)
        return resize(images, random_size(hyp.seed, ni, hyp.imgsz, hyp.multi_scale, int(self.stride.max())))

    @torch.no_grad()
    def first_losses(self) -> tuple[dict[str, float], dict[str, float]]:
        """Those of the first batch, and what they are where the network knows its priors only."""
        model, loss_fn = self.training.model, self.training.loss_fn
        batch = next(self.loader.epoch(0))
        images = self.prepare(batch, 0)
        return tuple(
            dict(zip(loss_fn.names, loss_fn(one.train()(images), batch)[1].tolist(), strict=True))
            for one in (model, with_priors(model))
        )

    def score(self) -> float:
        """mAP50 of the weights as they are, on the pictures that are trained on."""
        bench, stride = self.bench, int(self.stride.max())
        val = open_validation(
            bench.train, None, bench.hyp, stride, 0, bench.ranks, scored_as_stored, self.loader.dataset
        )
        return val.score(self.training.model).metrics["val/mAP50"]


if __name__ == "__main__":
    sys.exit(run_script(main))
