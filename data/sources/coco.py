"""A split that is one COCO instances json."""

import os
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from data.definition.config import DatasetConfig
from data.formats.coco import CocoFile, read_coco
from data.formats.coco_rows import coco_rows
from data.formats.header import read_header
from data.formats.rows import Problem, Read, no_rows
from data.sources.share import Share
from utils.errors import UserError
from utils.files import sha256, stamp


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
        self.problems = list(self.coco.problems)
        self.pictures = self._find_pictures()
        self.shares = [Share(config.path.name, len(self.pictures))]
        self.labels: list[str] = []
        self.image_ids, self.category_ids = self.coco.image_ids, self.coco.category_ids

    def _find_pictures(self) -> list[str]:
        """Paths of the pictures, in the first of the usual folders that holds one of the json's first pictures.

        Where no spelling of the json fits (..\\media\\x.jpg of another machine, %20), the last part of a name is looked
        for, if that tells all pictures apart, and it is said.
        """
        names = self.coco.file_names
        split = self.path.stem.removeprefix("instances_")
        here, up = self.path.parent, self.path.parent.parent
        places = [up / "images" / split, up / split, here / split, here / "images", here, up / "images", up]
        last = [unquote(PurePosixPath(name).name) for name in names]
        spellings = [names, [unquote(name) for name in names]] + ([last] if len(set(last)) == len(last) else [])
        for spelling in spellings:
            for place in places:
                if any((place / name).is_file() for name in spelling[:20]):
                    if spelling is not names:
                        text = f"file_name {names[0][:80]} is not there; pictures are found as {place / spelling[0]}."
                        self.problems.append(Problem(str(self.path), None, text, "remark"))
                    return [os.path.normpath(place / name) for name in spelling]
        raise UserError(
            f"the pictures of {self.path} were not found; the first is {names[:1]}. Looked in: "
            f"{', '.join(map(str, places))}."
        )

    def read(self, i: int) -> Read:
        """Header of picture i, and its boxes in the json."""
        shape, reason, top = read_header(self.pictures[i])
        if shape is None:
            return Read(None, no_rows([Problem(self.pictures[i], None, reason, "picture")]))
        return Read(shape, coco_rows(self.coco, i, shape, str(self.path)), top)

    def no_labels(self) -> str:
        """Where labels were looked for, for the message that there are none."""
        return "its 'annotations' hold no usable box"
