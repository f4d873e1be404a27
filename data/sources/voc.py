"""Pictures with Pascal VOC xmls, as a source of an index."""

from pathlib import Path

from data.definition.config import DatasetConfig
from data.formats.header import read_header
from data.formats.rows import Problem, Read, no_rows
from data.formats.text import NotText, read_bytes
from data.formats.voc import parse_voc
from data.formats.voc_folder import voc_pairs, voc_xmls
from data.sources.checks import shared_labels
from data.sources.share import Share
from utils.files import Stamp


class VocSource:
    """Pictures and labels from one VOC folder."""

    by_picture = True

    def __init__(self, place: Path, config: DatasetConfig, split: str):
        self.where, self.names, self.place = str(place), config.names, place
        self.watched: dict[str, Stamp] = {}
        self.sha256: dict[str, str] = {}
        self.pictures, self.labels = voc_pairs(place, split, self.watched)
        self.shares = [Share(config.path.name, len(self.pictures))]
        self.image_ids = range(1, len(self.pictures) + 1)
        self.category_ids = list(range(1, len(self.names) + 1))
        labelled = [(p, x) for p, x in zip(self.pictures, self.labels, strict=True) if x]
        self.problems = shared_labels([p for p, _ in labelled], [x for _, x in labelled])

    def read(self, i: int) -> Read:
        """Header and xml of picture i; without an xml it is background."""
        shape, reason, top = read_header(self.pictures[i])
        if shape is None:
            return Read(None, no_rows([Problem(self.pictures[i], None, reason, "picture")]))
        if not self.labels[i]:
            return Read(shape, no_rows([]), top)
        try:
            content = read_bytes(self.labels[i])
        except (OSError, NotText) as e:
            message = f"cannot be read ({e}); its picture is left out."
            return Read(None, no_rows([Problem(self.labels[i], None, message, "label")]))
        rows = parse_voc(content, self.labels[i], self.names, shape, Path(self.pictures[i]).stem)
        return Read(shape if rows.usable else None, rows, top)

    def no_labels(self) -> str:
        """Where labels were looked for, for the message that there are none."""
        return f"{len(voc_xmls(self.place))} xmls were found, none with a usable object"
