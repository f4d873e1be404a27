"""Part of a dataset: some of its classes, a fraction of its pictures."""

import logging
from dataclasses import replace
from typing import Any

import numpy as np

from data.definition.config import DatasetConfig
from data.definition.dataset_yaml import load_dataset_yaml
from data.definition.listed import some
from data.definition.names import class_of
from data.index.index import Index, build_index, report_problems
from utils.errors import UserError, suggest

log = logging.getLogger(__name__)


def open_split(config: DatasetConfig, split: str, options: Any, trust: bool = False, training: bool = False) -> Index:
    """The part of a split that a Hyp, or the options of val.py, choose; problems and what is left out are said."""
    single = options.single_cls and options.classes is None  # else classes are chosen first, by their names
    whole = build_index(config, split, options.strict, single, trust)
    report_problems(whole, log.info)
    part = subset(whole, options, training)
    if note := left_out(whole, part):
        log.info(f"{split}: {note}")
    return part


def open_also(hyp: Any, names: list[str], download: bool = False, trust: bool = False) -> Index | None:
    """The pictures that `val_also` names, with those of their classes that are among `names`, a model's; None: none.

    Classes that the model does not have are not scored, and said.
    """
    if hyp.val_also is None:
        return None
    whole = build_index(load_dataset_yaml(hyp.val_also, download), "val", hyp.strict, hyp.single_cls, trust)
    report_problems(whole, log.info)
    absent = absent_classes(hyp, whole.names, names)
    if not absent:
        return whole
    log.info(
        f"val_also: {len(absent)} of the {whole.nc} classes of {hyp.val_also} are not the model's and are not scored: "
        + some(absent)
    )
    return of_classes(whole, [name for name in whole.names if name not in absent])


def absent_classes(hyp: Any, theirs: list[str], names: list[str]) -> list[str]:
    """Classes of the set that `val_also` names which are not among `names`; UserError where none is."""
    absent = [name for name in theirs if class_of(name, names) is None]
    if len(absent) == len(theirs):
        raise UserError(
            f"val_also: none of the classes of {hyp.val_also} ({some(theirs)}) is one of those that are trained "
            f"({some(names)}), so nothing would be found. To keep old classes, let the data have them: list both yamls "
            "in one, or write all of them into 'names'."
        )
    return absent


def subset(index: Index, hyp: Any, training: bool = False) -> Index:
    """The part of an index that a run uses, by `classes`, `single_cls`, and when training also by `fraction`.

    hyp: a Hyp, or options with these fields. With `classes` the index is to be built without single_cls, which would
    take the names away.
    """
    if hyp.classes is not None:
        index = of_classes(index, hyp.classes)
        if hyp.single_cls:
            index = replace(index, names=["item"], category_ids=[1], classes=np.zeros_like(index.classes))
    return fraction_of(index, hyp.fraction) if training else index


def fraction_of(index: Index, fraction: float) -> Index:
    """Some of the pictures; decoded ones are kept for them alone, not for the pool that they are drawn from."""
    if fraction == 1:
        return index
    part = replace(index.take(drawn(index.n, fraction)), pool=None)
    if not len(part.classes):
        raise UserError(f"fraction {fraction:g} leaves {part.n} pictures without a box. Use a larger one.")
    return part


def drawn(n: int, fraction: float) -> np.ndarray:
    """Rows of round(n * fraction) pictures, at least 1, in order: the same for every seed; a larger part holds them."""
    return np.sort(np.random.default_rng(0).permutation(n)[: max(round(n * fraction), 1)])


def of_classes(index: Index, wanted: list[str | int]) -> Index:
    """Boxes of some classes, by name or id, numbered anew in the order of `names`; every picture stays."""
    ids = sorted({class_id(word, index.names) for word in wanted})
    new_id = np.full(index.nc, -1, index.classes.dtype)
    new_id[ids] = np.arange(len(ids))
    keep = new_id[index.classes] >= 0
    if not keep.any():
        raise UserError(f"none of the {index.n} pictures has a box of {', '.join(index.names[i] for i in ids)}.")
    before = np.concatenate([[0], keep.cumsum()])  # boxes left before each row
    return replace(
        index,
        classes=new_id[index.classes[keep]],
        offsets=before[index.offsets].astype(np.int64),
        names=[index.names[i] for i in ids],
        category_ids=[index.category_ids[i] for i in ids],
        **{name: getattr(index, name)[keep] for name in ("boxes", "area", "crowd")},
    )


def left_out(whole: Index, part: Index) -> str:
    """What a subset lacks, in words; empty when it lacks nothing."""
    pictures, boxes = whole.n - part.n, len(whole.classes) - len(part.classes)
    if not pictures and not boxes:
        return ""
    return f"{pictures} of {whole.n} pictures and {boxes} of {len(whole.classes)} boxes are left out"


def class_id(word: str | int, names: list[str]) -> int:
    """A class by its name (case aside when no name is spelt exactly so), or by its number."""
    text = str(word).strip()
    folded = [name.strip().casefold() for name in names]
    if text in names:
        return names.index(text)
    if folded.count(text.casefold()) == 1:
        return folded.index(text.casefold())
    if text.isdecimal() and int(text) < len(names):
        return int(text)
    shown = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
    raise UserError(f"classes: there is no '{text}'.{suggest(text, names)} The dataset has {shown}.")
