"""One of K folds: training and evaluation pictures pooled, and dealt out so that every class is spread evenly."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from data.definition.config import DatasetConfig
from data.definition.dataset_yaml import load_dataset_yaml
from data.definition.listed import left_out_classes
from data.index.copies import find_copies
from data.index.index import Index, Pool, build_index, count_pictures, pooled, report_problems
from data.index.subset import fraction_of, open_split, subset
from utils.errors import UserError

log = logging.getLogger(__name__)
SHOWN = 10  # class names in a warning


@dataclass(frozen=True, eq=False)
class Folds:
    """The pooled pictures of a data set, and how they are dealt out."""

    whole: Index  # training pictures, then those of val that are not among them
    own_ids: bool  # whether image_ids and category_ids are those of COCO jsons
    number: np.ndarray  # (n,) fold of each picture, 0..K-1
    held: np.ndarray  # (nc,) different pictures that have a box of each class
    copies: int  # pictures that have the content of another one

    def part(self, k: int, training: bool, options: Any) -> Index:
        """The pictures of fold k (1..K), or when training all others, with the classes that the options name."""
        rows = np.flatnonzero((self.number != k - 1) if training else (self.number == k - 1))
        whole = replace(subset(self.whole, options), pool=Pool(self.whole, np.arange(self.whole.n), self.own_ids))
        return whole.take(rows)


def dealt_splits(config: DatasetConfig) -> tuple[str, ...]:
    """What folds are dealt from: train, and val where the yaml names one; it need not."""
    return ("train",) if config.val is None else ("train", "val")


def fold_of(text: str) -> tuple[int, int]:
    """'2/6' -> 2, 6, as the schema has checked it."""
    k, folds = text.split("/")
    return int(k), int(folds)


def open_parts(config: DatasetConfig, hyp: Any, trust: bool = False) -> tuple[Index, Index]:
    """Training and evaluation pictures of a run: of its fold, or else the splits as they are.

    hyp: a Hyp. Problems and what is left out are said.
    """
    for line in left_out_classes(config, ("train", "val")):
        log.info(line)
    if hyp.fold is None:
        return open_split(config, "train", hyp, trust, training=True), open_split(config, "val", hyp, trust)
    folds = deal(config, hyp, trust)
    k, number = fold_of(hyp.fold)
    report_problems(folds.whole, log.info)
    train, val = folds.part(k, True, hyp), folds.part(k, False, hyp)
    splits = " and ".join(dealt_splits(config))
    log.info(f"fold {hyp.fold} of the {folds.whole.n} pictures of {splits} (fold_seed {hyp.fold_seed})")
    for line in describe(folds, number, val.names):
        log.info(line)
    _refuse_empty(config, hyp.fold, train, val)
    return fraction_of(train, hyp.fraction), val


def open_part(config: DatasetConfig, split: str, options: Any, trust: bool = False) -> Index:
    """The pictures of a split that the options of val.py choose, of a fold where they name one and it is no test."""
    if options.fold is None or split == "test":
        for line in left_out_classes(config, (split,)):
            log.info(line)
        return open_split(config, split, options, trust)
    folds = deal(config, options, trust)
    report_problems(folds.whole, log.info)
    part = folds.part(fold_of(options.fold)[0], split == "train", options)
    _refuse_empty(config, options.fold, part)
    return part


def count_training(hyp: Any, download: bool = False) -> tuple[int, bool]:
    """Training pictures of a run before `fraction`, and whether they are counted from a stored index.

    Nothing is read: of a fold without an index, the share that it would have.
    """
    single = hyp.single_cls and hyp.classes is None
    if hyp.fold is None:
        return count_pictures(hyp.data, single, download)
    k, number = fold_of(hyp.fold)
    config = load_dataset_yaml(hyp.data, download)
    _refuse_parts(config)
    counts = [count_pictures(hyp.data, single, download, split) for split in dealt_splits(config)]
    if all(exact for _, exact in counts):
        folds = deal(config, hyp.model_copy(update={"strict": False}))
        return int((folds.number != k - 1).sum()), True
    n = sum(n for n, _ in counts)
    return n - n // number, False


def counting() -> Callable[[Any], int]:
    """A function hyp -> its training pictures before `fraction`, which counts those of equal data once."""
    counted: dict[tuple, int] = {}

    def count(hyp: Any) -> int:
        by = str(hyp.data), hyp.fold, hyp.fold_seed, str(hyp.classes), hyp.single_cls
        if by not in counted:
            counted[by] = count_training(hyp)[0]
        return counted[by]

    return count


def deal(config: DatasetConfig, options: Any, trust: bool = False) -> Folds:
    """Deal out the pictures of train and val by content, class and seed: whatever else a run is told, the same way.

    options: a Hyp, or options with `fold`, `fold_seed`, `strict`, `single_cls` and `classes`.
    """
    _refuse_parts(config)
    single = options.single_cls and options.classes is None
    splits = dealt_splits(config)
    whole, own_ids = pooled([build_index(config, split, options.strict, single, trust) for split in splits])
    named = whole
    if single:  # classes are spread as in a run that tells them apart, where the labels allow that
        try:
            other, _ = pooled([build_index(config, split, trust=trust) for split in splits])
            named = other if other.paths == whole.paths else whole
        except UserError:
            log.info("single_cls: the labels name no classes, so folds are the same in the number of pictures only")
    number = fold_of(options.fold)[1]
    copies = find_copies({"all": whole.paths})
    unit = np.arange(whole.n)  # of each picture: itself, or the first of its copies
    unit[copies.row] = np.repeat(copies.row[copies.offsets[:-1]], np.diff(copies.offsets))
    firsts, unit = np.unique(unit, return_inverse=True)
    if len(firsts) < number:
        raise UserError(
            f"fold {options.fold}: {' and '.join(splits)} of {config.path} have {len(firsts)} different pictures "
            f"together, which is less than {number}. Use fewer folds."
        )
    picture = np.repeat(np.arange(named.n), np.diff(named.offsets))[~named.crowd]  # of each box
    has = np.unique(np.stack([picture, named.classes[~named.crowd]]), axis=1)  # (2, p) picture, class
    held = np.bincount(np.unique(np.stack([unit[has[0]], has[1]]), axis=1)[1], minlength=named.nc)
    dealt = stratify(unit, has, named.nc, number, options.fold_seed)
    return Folds(whole, own_ids, dealt[unit], held, whole.n - len(firsts))


def stratify(unit: np.ndarray, has: np.ndarray, nc: int, folds: int, seed: int) -> np.ndarray:
    """Fold (u,) of each unit, 0..folds-1, by iterative stratification: the rarest class first, to where it lacks most.

    unit: (n,) number 0..u-1 of what each picture belongs to, to stay together. has: (2, p) picture and class, a pair
    once. Sechidis, Tsoumakas and Vlahavas, On the stratification of multi-label data, ECML PKDD 2011. Counts are
    multiplied by the number of folds: whole numbers are equal where they should be.
    """
    rng = np.random.default_rng(seed)
    sizes = np.bincount(unit)  # (u,) pictures
    order = rng.permutation(len(sizes))
    order = order[
        np.argsort(-sizes[order], kind="stable")
    ]  # what is large first, while there is room to make up for it
    pairs, weight = np.unique(unit[has[0]] * nc + has[1], return_counts=True)  # (q,) unit and class as one number
    classes: list[list[tuple[int, int]]] = [[] for _ in sizes]  # of each unit: class, and pictures that have it
    for u, c, w in zip((pairs // nc).tolist(), (pairs % nc).tolist(), weight.tolist(), strict=True):
        classes[u].append((c, w))
    units: list[list[int]] = [[] for _ in range(nc)]  # that have each class, in order
    for u in order.tolist():
        for c, _ in classes[u]:
            units[c].append(u)
    left = np.bincount(pairs % nc, weight, nc).astype(int).tolist()  # pictures of each class that have no fold yet
    lacking = [[n] * folds for n in left]  # of each class in each fold, times the number of folds
    room = [len(unit)] * folds
    fold, size = np.full(len(sizes), -1), sizes.tolist()

    def place(u: int, wanted: Sequence[int]) -> None:
        most = max(wanted)
        best = [j for j in range(folds) if wanted[j] == most]
        most = max(room[j] for j in best)
        best = [j for j in best if room[j] == most]
        j = best[int(rng.integers(len(best)))] if len(best) > 1 else best[0]
        fold[u] = j
        room[j] -= folds * size[u]
        for c, w in classes[u]:
            lacking[c][j] -= folds * w
            left[c] -= w

    while open_classes := [c for c in range(nc) if left[c]]:
        rarest = min(open_classes, key=left.__getitem__)
        for u in units[rarest]:
            if fold[u] < 0:
                place(u, lacking[rarest])
    for u in order.tolist():
        if fold[u] < 0:  # without a box
            place(u, room)
    return fold


def describe(folds: Folds, number: int, names: list[str]) -> list[str]:
    """What must be known of the folds of a run that uses the classes `names`: copies, and classes that are too rare."""
    lines = []
    if folds.copies:
        lines.append(f"{folds.copies} pictures have the content of another one: they are in the same fold as that one")
    pairs = zip(folds.whole.names, folds.held, strict=True) if len(folds.held) == folds.whole.nc else []
    rare = [f"'{name}' ({n})" for name, n in pairs if 0 < n < number and name in names]
    if rare:
        more = f" and {len(rare) - SHOWN} more" if len(rare) > SHOWN else ""
        lines.append(
            f"warning: fewer different pictures than folds have {', '.join(rare[:SHOWN])}{more}: in some folds such a "
            "class is not scored, so that the folds are means over other classes"
        )
    return lines


def _refuse_parts(config: DatasetConfig) -> None:
    """Raise where an epoch has a part of a listed data set only: folds deal out whole data sets."""
    parts = [place for place in config.listed("train") if not place.whole]
    if parts:
        raise UserError(
            f"fold: {config.path} draws a part of {parts[0].config.path} for each epoch, and folds deal out whole data "
            "sets. Leave 'part' out, or train without fold and score the old classes with --val-also."
        )


def _refuse_empty(config: DatasetConfig, fold: str, *parts: Index) -> None:
    """Raise where a fold leaves nothing to learn from, or nothing to score."""
    if not all((~part.crowd).any() for part in parts):
        raise UserError(f"fold {fold} of {config.path}: one of its parts has no box. Use fewer folds.")
