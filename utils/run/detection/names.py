"""The names of files that are written: as the pictures lie in their folder, each once."""

import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from utils.evaluation.output import id_of, ids_of

DRAWN = (".bmp", ".jpeg", ".jpg", ".png", ".webp")  # what OpenCV writes; all others become .jpg


class Names:
    """What the files of some pictures and videos are called below the run's folder, and their ids in a COCO file."""

    def __init__(self, paths: Sequence[str], image_ids: dict[str, int] | None = None):
        if len(paths) == 1 and not os.path.isabs(paths[0]):  # a camera, or a stream by its address
            self.file_name = self.stem = {paths[0]: camera_name(paths[0])}
            self.image_id, self.how = {}, "made from the numbers of the frames"
            return
        root = os.path.commonpath([os.path.dirname(path) for path in paths]) if paths else ""
        relative = {
            path: PurePosixPath(Path(os.path.relpath(path, root) if root else path).as_posix()) for path in paths
        }
        twins = Counter(name.with_suffix("") for name in relative.values())
        self.file_name = {path: str(name) for path, name in relative.items()}
        self.stem = {p: str(n if twins[n.with_suffix("")] > 1 else n.with_suffix("")) for p, n in relative.items()}
        ids, self.how = ids_of(list(self.file_name.values()))
        self.image_id = image_ids or dict(zip(paths, ids, strict=True))

    def picture(self, path: str) -> str:
        """Of the drawn picture: its own name where that kind can be written, else with .jpg behind it."""
        name = self.file_name[path]
        return name if name.lower().endswith(DRAWN) else f"{name}.jpg"

    def text(self, path: str, number: int | None) -> str:
        """Of a label file or a crop, without suffix; frames of a video are numbered."""
        return self.stem[path] if number is None else f"{self.stem[path]}_{number}"

    def coco_id(self, path: str, number: int | None) -> int:
        """The id of a picture, or of a frame of a video."""
        if number is None:
            return self.image_id[path]
        return id_of(f"{self.file_name[path]}#{number}")


def camera_name(camera: str) -> str:
    """A word for a camera's number, or for the address of a stream."""
    return f"camera{camera}" if camera.isdecimal() else re.sub(r"\W+", "_", camera.partition("://")[2]).strip("_")
