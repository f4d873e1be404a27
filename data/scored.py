"""What a run is scored on: its evaluation pictures, and those of a second set where one is named."""

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import reduce
from typing import Any

from data.definition.config import DatasetConfig
from data.definition.dataset_yaml import load_dataset_yaml
from data.definition.names import class_of
from data.index.folds import open_parts
from data.index.identity import traits
from data.index.index import Index, build_index
from data.index.subset import open_also
from data.loading.dataset import TrainDataset
from data.loading.loader import open_val_loader
from data.sources.depth import Depth, white_lines
from utils.config.schema import Command, Hyp
from utils.device.ranks import SCORED, Ranks
from utils.evaluation.evaluate import Settings, Validation

log = logging.getLogger(__name__)


def open_data(hyp: Hyp, command: Command) -> tuple[dict[str, Any], Index, Index, Index | None]:
    """What identifies the data, and the indexes of pictures to train on, to score, of val_also; problems are said."""
    config = load_dataset_yaml(hyp.data, command.download)
    train, val = open_parts(config, hyp, command.trust_index)
    also = open_also(hyp, val.names, command.download, command.trust_index)
    return traits(config.roots(), train, val, also), train, val, also


def with_white(hyp: Any, *depths: Depth) -> Any:
    """A Hyp, or options with `white_level`, for pictures of these depths: what is white is settled, and said."""
    for line in white_lines(depths, hyp.white_level):
        log.info(line)
    whole = reduce(Depth.joined, depths)
    if hyp.white_level is not None or whole.white is None:
        return hyp
    return hyp.model_copy(update={"white_level": whole.white})


def depths_of(config: DatasetConfig, index: Index, options: Any) -> list[Depth]:
    """Of `index`, and where it has pictures of more than 8 bits also of train and val: they decide together."""
    if not index.depth.top:
        return [index.depth]
    single = options.single_cls and options.classes is None
    there = [split for split in ("train", "val") if getattr(config, split) is not None]
    both = [build_index(config, split, single_cls=single, trust=options.trust_index).depth for split in there]
    return both or [index.depth]


def open_validation(
    val: Index,
    also: Index | None,
    hyp: Hyp,
    stride: int,
    workers: int,
    ranks: Ranks,
    around: Callable[..., Any],
    train: TrainDataset,
) -> Validation:
    """Loader, truth and settings of every evaluation of a run; `also` is scored by the names of its classes.

    around: see Validation. train: whose decoded pictures share the cache's room.
    """
    settings, beside = Settings.of(hyp, SCORED[hyp.amp]), [train.pictures]
    loader = open_val_loader(val, hyp, stride, workers, ranks, beside)
    first = Validation(loader, val, ranks.device, settings, around, world_size=ranks.world_size)
    if also is None:
        return first
    loader = open_val_loader(also, hyp, stride, workers, ranks, [*beside, loader.dataset.pictures])
    by_name = replace(settings, class_map=class_map(val.names, also.names))
    return replace(first, also=replace(first, loader=loader, truth=also, settings=by_name))


def class_map(names: list[str], truth: list[str]) -> list[int] | None:
    """Class of the truth for each class of a model, -1 for none; None where the names are the same."""
    found = [class_of(name, truth) for name in names]
    return None if names == truth else [-1 if k is None else k for k in found]
