"""Pictures with Pascal VOC xmls, as a source of an index."""

from pathlib import Path

from data.causes import shared_labels
from data.dataset_yaml import DatasetConfig
from data.formats import Problem, Rows, no_rows
from data.header import picture_shape
from data.scan import parallel, stamp
from data.sources import Content
from data.text import NotText, read_bytes
from data.voc import parse_voc
from data.voc_folder import voc_pairs, voc_xmls


class VocSource:
    """Pictures and labels from one VOC folder."""

    def __init__(self, place: Path, config: DatasetConfig, split: str):
        self.where, self.names, self.place = str(place), config.names, place
        self.pictures, self.xmls = voc_pairs(place, split)

    def stamps(self) -> list[tuple[str, int, int]]:
        """(path, size, mtime_ns) of every file that the index depends on."""
        files = [*self.pictures, *filter(None, self.xmls)]
        return [(file, *info) for file, info in zip(files, parallel(stamp, files), strict=True)]

    def read(self) -> Content:
        """Read every xml and the header of every picture."""
        rows = parallel(self._read_picture, list(range(len(self.pictures))))
        labelled = [(p, x) for p, x in zip(self.pictures, self.xmls, strict=True) if x]
        problems = shared_labels([p for p, _ in labelled], [x for _, x in labelled])
        return Content(
            rows,
            list(range(1, len(rows) + 1)),
            list(range(1, len(self.names) + 1)),
            problems,
        )

    def _read_picture(self, i: int) -> tuple[tuple[int, int] | None, Rows]:
        shape, reason = picture_shape(self.pictures[i])
        if shape is None:
            return None, no_rows([Problem(self.pictures[i], None, reason)])
        if not self.xmls[i]:
            return shape, no_rows([])
        try:
            content = read_bytes(self.xmls[i])
        except (OSError, NotText) as e:
            message = f"cannot be read ({e}); its picture is left out."
            return None, no_rows([Problem(self.xmls[i], None, message)])
        rows = parse_voc(content, self.xmls[i], self.names, shape, Path(self.pictures[i]).stem)
        return (shape if rows.usable else None), rows

    def no_labels(self) -> str:
        """Where labels were looked for, for the message that there are none."""
        return f"{len(voc_xmls(self.place))} xmls were found, none with a usable object"
