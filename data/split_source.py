"""Which source reads a split, and several of different kinds as one."""

import os
from itertools import chain
from pathlib import Path

from data.dataset_yaml import DatasetConfig
from data.formats import Problem, no_rows
from data.sources import CocoSource, Content, YoloSource
from data.voc_folder import is_voc
from data.voc_source import VocSource
from utils.errors import UserError

Source = YoloSource | CocoSource | VocSource


def open_source(config: DatasetConfig, split: str, single_cls: bool) -> "Source | MixedSource":
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
        self.parts = parts
        self.where = ", ".join(part.where for part in parts)
        self.pictures = list(chain.from_iterable(part.pictures for part in parts))

    def stamps(self) -> list[tuple[str, int, int]]:
        """(path, size, mtime_ns) of every file that the index depends on."""
        return list(chain.from_iterable(part.stamps() for part in self.parts))

    def read(self) -> Content:
        """Read every part; a picture that two of them have is used once."""
        contents = [part.read() for part in self.parts]
        rows = list(chain.from_iterable(content.rows for content in contents))
        seen: set[str] = set()
        for i, picture in enumerate(self.pictures):
            if (real := os.path.normcase(picture)) in seen:
                text = "two sources of this split have it; the labels of the first are used. Name it in one of them."
                rows[i] = None, no_rows([Problem(picture, None, text)])
            seen.add(real)
        for shape, r in rows:
            if shape and r.area is None:  # a json may tell the area of masks: then every row needs one
                r.area = r.boxes[:, 2] * shape[1] * r.boxes[:, 3] * shape[0]
        ids = list(range(1, len(rows) + 1))
        problems = list(chain.from_iterable(content.problems for content in contents))
        return Content(rows, ids, list(range(1, len(contents[0].category_ids) + 1)), problems)

    def no_labels(self) -> str:
        """Where labels were looked for, for the message that there are none."""
        return "; ".join(part.no_labels() for part in self.parts)
