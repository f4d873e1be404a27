"""Where pictures and their labels come from: folders and lists with a .txt beside each, or one COCO json."""

import os
from itertools import islice
from pathlib import Path

from data.definition.config import DatasetConfig
from data.formats.find import find_pictures, label_path
from data.formats.header import read_header
from data.formats.rows import Problem, Read, no_rows
from data.formats.yolo import read_label
from data.sources.checks import shared_labels, unused_labels
from data.sources.share import Share
from utils.files import Stamp, stamp

FOLDERS = 1000  # of a data set that are looked through for labels that lie elsewhere


class YoloSource:
    """Pictures from folders and lists, labels from the .txt of each."""

    by_picture = True

    def __init__(self, sources: list[Path], config: DatasetConfig, single_cls: bool):
        self.watched: dict[str, Stamp] = {}
        found: list[Problem] = []
        self.pictures = find_pictures(sources, config.root, self.watched, found)
        self.shares = [Share(config.path.name, len(self.pictures))]
        self.labels = [label_path(picture) for picture in self.pictures]
        for folder in set(map(os.path.dirname, self.labels)):  # two labels may change places
            self.watched.setdefault(folder, stamp(folder))
        self.root = config.root
        self.where = ", ".join(map(str, sources))
        self.names, self.nc = config.names, None if single_cls else len(config.names)
        self.image_ids = range(1, len(self.pictures) + 1)
        self.category_ids = list(range(1, len(self.names) + 1))
        self.problems = found + shared_labels(self.pictures, self.labels) + unused_labels(self.pictures, self.labels)
        self.sha256: dict[str, str] = {}

    def read(self, i: int) -> Read:
        """Header and label of picture i; without a label file it is background."""
        shape, reason, top = read_header(self.pictures[i])
        if shape is None:
            return Read(None, no_rows([Problem(self.pictures[i], None, reason, "picture")]))
        rows = read_label(self.labels[i], self.nc, self.names)
        return Read(shape if rows.usable else None, rows, top)

    def no_labels(self) -> str:
        """Where labels were looked for, for the message that there are none."""
        example = f"; for {self.pictures[0]} that is {self.labels[0]}" if self.pictures else ""
        found = (
            _elsewhere(self.root, self.pictures[0]) if self.pictures and not os.path.exists(self.labels[0]) else None
        )
        there = f"; but there is {found}: rename its folder, or move it" if found else ""
        return f"looked for a .txt of the same name with the folder 'images' replaced by 'labels'{example}{there}"


def _elsewhere(root: Path, picture: str) -> str | None:
    """A .txt of a picture's name somewhere in the data set's folder, which nobody reads."""
    name = os.path.splitext(os.path.basename(picture))[0] + ".txt"
    for at, _, files in islice(os.walk(root), FOLDERS):
        if name in files:
            return os.path.join(at, name)
    return None
