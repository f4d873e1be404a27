"""Which source reads a split, and several of different kinds as one."""

import os
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Protocol

import numpy as np

from data.definition.config import DatasetConfig, Listed
from data.definition.names import class_of
from data.formats.rows import Problem, Read, Rows, no_rows
from data.formats.voc_folder import is_voc
from data.sources.coco import CocoSource
from data.sources.share import Share
from data.sources.voc import VocSource
from data.sources.yolo import YoloSource
from utils.errors import UserError
from utils.files import Stamp


class Source(Protocol):
    """The pictures of a split, in order, and how each is read; made anew whenever something has changed."""

    where: str  # for messages
    pictures: list[str]
    labels: list[str]  # the label file of each picture, or none at all
    watched: dict[str, Stamp]  # other files and folders that decide what is found, as they were before it was
    sha256: dict[str, str]  # of those watched that are large: touched, but the same, they are not read again
    names: list[str]
    category_ids: list[int]  # of each class
    image_ids: Sequence[int]  # of each picture
    problems: list[Problem]  # that belong to no picture
    shares: list[Share]  # pictures that follow each other, and how many of them an epoch has
    by_picture: bool  # whether a picture whose files are unchanged has its boxes unchanged

    def read(self, i: int) -> Read:
        """Header and label of picture i."""

    def no_labels(self) -> str:
        """Where labels were looked for, for the message that there are none."""


def open_source(config: DatasetConfig, split: str, single_cls: bool) -> Source:
    """Where the pictures and labels of a split come from."""
    places = getattr(config, split)
    if places is None:
        advice = f"Add '{split}: <folder>', relative to {config.root}"
        if split == "val":
            advice += "; pictures that are not trained on (or, to try things out, those of train)"
        raise UserError(f"{config.path} has no '{split}'. {advice}.")
    parts: list[Source] = []
    plain: list[Path] = []  # read as one: their labels are found the same way
    for place in places:
        if isinstance(place, Listed):
            parts.append(ListedSource(_open_listed(place, split, single_cls), config.names, place))
        elif place.suffix.lower() == ".json":
            parts.append(CocoSource(place, config))
        elif is_voc(place):
            parts.append(VocSource(place, config, split))
        else:
            plain.append(place)
    if plain:
        parts.append(YoloSource(plain, config, single_cls))
    return parts[0] if len(parts) == 1 else MixedSource(parts)


def _open_listed(place: Listed, split: str, single_cls: bool) -> Source:
    """The source of another data set, which must have pictures: where others have some nobody would notice."""
    source = open_source(place.config, split, single_cls)
    if not source.pictures:
        raise UserError(f"no pictures in {source.where} ('{split}' of {place.config.path}). Put pictures there.")
    return source


class ListedSource:
    """The pictures of another data set; its classes get the numbers that their names have in the one that lists it."""

    def __init__(self, source: Source, names: list[str], place: Listed):
        self.source, self.names = source, names
        self.where, self.pictures, self.labels = source.where, source.pictures, source.labels
        self.watched, self.sha256, self.problems = source.watched, source.sha256, source.problems
        self.by_picture, self.no_labels = source.by_picture, source.no_labels
        self.image_ids = range(1, len(self.pictures) + 1)
        self.category_ids = list(range(1, len(names) + 1))
        self.shares = [replace(share, part=share.part * place.part) for share in source.shares]
        found = [class_of(name, names) for name in place.config.names]
        self.new_id = np.array([-1 if k is None else k for k in found], np.int32)

    def read(self, i: int) -> Read:
        """Picture i; boxes of classes that are not among the names are left out."""
        shape, rows, top = self.source.read(i)
        known = np.minimum(rows.classes, len(self.new_id) - 1).astype(int)
        new = np.where(rows.classes < len(self.new_id), self.new_id[known], 0)  # with single_cls an id may be any
        keep = new >= 0
        area, crowd = (None if column is None else column[keep] for column in (rows.area, rows.crowd))
        return Read(shape, Rows(new[keep], rows.boxes[keep], area, crowd, rows.problems, rows.usable), top)


class MixedSource:
    """Several sources one after the other; their pictures are numbered anew."""

    def __init__(self, parts: list[Source]):
        self.where = ", ".join(part.where for part in parts)
        self.names = parts[0].names
        self.pictures = list(chain.from_iterable(part.pictures for part in parts))
        self.labels = list(chain.from_iterable(part.labels or [""] * len(part.pictures) for part in parts))
        self.readers = [(part, i) for part in parts for i in range(len(part.pictures))]
        self.watched = {path: stamp for part in parts for path, stamp in part.watched.items()}
        self.sha256 = {path: digest for part in parts for path, digest in part.sha256.items()}
        self.problems = list(chain.from_iterable(part.problems for part in parts))
        self.shares = list(chain.from_iterable(part.shares for part in parts))
        self.by_picture = all(part.by_picture for part in parts)
        self.image_ids = range(1, len(self.pictures) + 1)
        self.category_ids = list(range(1, len(self.names) + 1))
        self.empty = "; ".join(part.no_labels() for part in parts)
        first: dict[str, int] = {}
        self.again = {i for i, p in enumerate(self.pictures) if first.setdefault(os.path.normcase(p), i) != i}

    def read(self, i: int) -> Read:
        """Picture i, read by its own source; one that two of them have is used once."""
        if i in self.again:
            text = "two sources of this split have it; the labels of the first are used. Name it in one of them."
            return Read(None, no_rows([Problem(self.pictures[i], None, text, "repeated")]))
        part, k = self.readers[i]
        return part.read(k)

    def no_labels(self) -> str:
        """Where labels were looked for, for the message that there are none."""
        return self.empty
