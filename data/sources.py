"""Where pictures and their labels come from: folders and lists with a .txt beside each, or one COCO json."""

import os
from dataclasses import dataclass
from pathlib import Path

from data.causes import shared_labels
from data.coco import CocoFile, read_coco
from data.coco_rows import coco_rows
from data.dataset_yaml import DatasetConfig
from data.formats import Problem, Rows, no_rows, read_label
from data.header import picture_shape
from data.scan import find_pictures, label_path, parallel, stamp
from utils.errors import UserError


@dataclass(frozen=True)
class Content:
    """What was read of each picture (its shape, or None when it cannot be used, and its rows), and the ids."""

    rows: list[tuple[tuple[int, int] | None, Rows]]
    image_ids: list[int]
    category_ids: list[int]  # of each class
    problems: list[Problem]  # that belong to no picture


class YoloSource:
    """Pictures from folders and lists, labels from the .txt of each."""

    def __init__(self, sources: list[Path], config: DatasetConfig, single_cls: bool):
        self.pictures = find_pictures(sources, config.root)
        self.where = ", ".join(map(str, sources))
        self.names, self.nc = config.names, None if single_cls else len(config.names)
        self.labels = [label_path(picture) for picture in self.pictures]

    def stamps(self) -> list[tuple[str, int, int]]:
        """(path, size, mtime_ns) of every file that the index depends on."""
        files = self.pictures + self.labels
        return [(file, *info) for file, info in zip(files, parallel(stamp, files), strict=True)]

    def read(self) -> Content:
        """Read every label and the header of every picture."""
        rows = parallel(self._read_picture, list(range(len(self.pictures))))
        shared = shared_labels(self.pictures, self.labels)
        return Content(rows, list(range(1, len(rows) + 1)), list(range(1, len(self.names) + 1)), shared)

    def _read_picture(self, i: int) -> tuple[tuple[int, int] | None, Rows]:
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

    def __init__(self, path: Path, config: DatasetConfig):
        if not path.is_file():
            raise UserError(f"{path} does not exist. Correct the split in {config.path}.")
        self.path, self.where, self.names = path, str(path), config.names
        self.coco: CocoFile = read_coco(path, config.names)
        self.folder = self._picture_folder()
        self.pictures = [os.path.normpath(self.folder / name) for name in self.coco.file_names]

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

    def stamps(self) -> list[tuple[str, int, int]]:
        """(path, size, mtime_ns) of every file that the index depends on."""
        files = [str(self.path), *self.pictures]
        return [(file, *info) for file, info in zip(files, parallel(stamp, files), strict=True)]

    def read(self) -> Content:
        """Read every label and the header of every picture."""
        rows = parallel(self._read_picture, list(range(len(self.pictures))))
        return Content(rows, self.coco.image_ids, self.coco.category_ids, self.coco.problems)

    def _read_picture(self, i: int) -> tuple[tuple[int, int] | None, Rows]:
        shape, reason = picture_shape(self.pictures[i])
        if shape is None:
            return None, no_rows([Problem(self.pictures[i], None, reason)])
        return shape, coco_rows(self.coco, i, shape, str(self.path))

    def no_labels(self) -> str:
        """Where labels were looked for, for the message that there are none."""
        return "its 'annotations' hold no usable box"
