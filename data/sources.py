"""Where pictures and their labels come from: folders and lists with a .txt beside each, or one COCO json."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from data.causes import shared_labels
from data.coco import CocoFile, read_coco
from data.coco_rows import coco_rows
from data.dataset_yaml import DatasetConfig
from data.formats import Problem, no_rows, read_label
from data.header import picture_shape
from data.scan import Stamp, find_pictures, label_path, stamp
from data.stamps import sha256
from data.table import Read
from utils.errors import UserError


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


class YoloSource:
    """Pictures from folders and lists, labels from the .txt of each."""

    by_picture = True

    def __init__(self, sources: list[Path], config: DatasetConfig, single_cls: bool):
        self.watched: dict[str, Stamp] = {}
        self.pictures = find_pictures(sources, config.root, self.watched)
        self.labels = [label_path(picture) for picture in self.pictures]
        for folder in set(map(os.path.dirname, self.labels)):  # two labels may change places
            self.watched.setdefault(folder, stamp(folder))
        self.where = ", ".join(map(str, sources))
        self.names, self.nc = config.names, None if single_cls else len(config.names)
        self.image_ids = range(1, len(self.pictures) + 1)
        self.category_ids = list(range(1, len(self.names) + 1))
        self.problems = shared_labels(self.pictures, self.labels)
        self.sha256: dict[str, str] = {}

    def read(self, i: int) -> Read:
        """Header and label of picture i; without a label file it is background."""
        shape, reason = picture_shape(self.pictures[i])
        if shape is None:
            return None, no_rows([Problem(self.pictures[i], None, reason)])
        rows = read_label(self.labels[i], self.nc, self.names)
        return (shape if rows.usable else None), rows

    def no_labels(self) -> str:
        """Where labels were looked for, for the message that there are none."""
        example = f"; for {self.pictures[0]} that is {self.labels[0]}" if self.pictures else ""
        return f"looked for a .txt of the same name with the folder 'images' replaced by 'labels'{example}"


class CocoSource:
    """Pictures and labels from a COCO instances json."""

    by_picture = False

    def __init__(self, path: Path, config: DatasetConfig):
        if not path.is_file():
            raise UserError(f"{path} does not exist. Correct the split in {config.path}.")
        self.path, self.where, self.names = path, str(path), config.names
        self.watched = {str(path): stamp(path)}
        self.sha256 = {str(path): sha256(str(path))}
        self.coco: CocoFile = read_coco(path, config.names)
        self.folder = self._picture_folder()
        self.pictures = [os.path.normpath(self.folder / name) for name in self.coco.file_names]
        self.labels: list[str] = []
        self.image_ids, self.category_ids = self.coco.image_ids, self.coco.category_ids
        self.problems = self.coco.problems

    def _picture_folder(self) -> Path:
        """The first of the usual folders that holds one of the json's first pictures."""
        split = self.path.stem.removeprefix("instances_")
        here, up = self.path.parent, self.path.parent.parent
        places = [up / "images" / split, up / split, here / split, here / "images", here, up / "images", up]
        for place in places:
            if any((place / name).is_file() for name in self.coco.file_names[:20]):
                return place
        raise UserError(
            f"the pictures of {self.path} were not found; the first is {self.coco.file_names[:1]}. Looked in: "
            f"{', '.join(map(str, places))}."
        )

    def read(self, i: int) -> Read:
        """Header of picture i, and its boxes in the json."""
        shape, reason = picture_shape(self.pictures[i])
        if shape is None:
            return None, no_rows([Problem(self.pictures[i], None, reason)])
        return shape, coco_rows(self.coco, i, shape, str(self.path))

    def no_labels(self) -> str:
        """Where labels were looked for, for the message that there are none."""
        return "its 'annotations' hold no usable box"
