"""Which source reads a split, and several of different kinds as one."""

import os
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Protocol

from data.definition.dataset_yaml import DatasetConfig
from data.formats.rows import Problem, Read, no_rows
from data.formats.voc_folder import is_voc
from data.sources.coco import CocoSource
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
        if place.suffix.lower() == ".json":
            parts.append(CocoSource(place, config))
        elif is_voc(place):
            parts.append(VocSource(place, config, split))
        else:
            plain.append(place)
    if plain:
        parts.append(YoloSource(plain, config, single_cls))
    return parts[0] if len(parts) == 1 else MixedSource(parts)


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
            return None, no_rows([Problem(self.pictures[i], None, text, "repeated")])
        part, k = self.readers[i]
        return part.read(k)

    def no_labels(self) -> str:
        """Where labels were looked for, for the message that there are none."""
        return self.empty
