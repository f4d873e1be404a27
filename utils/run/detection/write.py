"""Pictures, label files, crops and predictions.json, written while detection goes on."""

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np

from utils.errors import UserError
from utils.evaluation.coco import coco_results
from utils.evaluation.output import label_lines, write_json
from utils.run.detection.draw import crops, drawn
from utils.run.detection.names import Names
from utils.run.detection.video import VideoFile

WAITING = 32  # pictures that may wait to be written before detection waits for them


class Output:
    """Files of a run below `folder`: use it as a context, whose end writes predictions.json, whatever ended the run."""

    def __init__(
        self, folder: Path, names: Names, classes: Sequence[str], options: Any, threads: int, category_ids: list[int]
    ):
        """options: nosave, save_txt, save_crop, line_width, hide_labels and hide_conf, as detect.py has them."""
        self.folder, self.names, self.classes, self.options = folder, names, classes, options
        self.category_ids = category_ids
        self.found: dict[tuple[str, int], np.ndarray] = {}  # by path and number of the frame, -1 for a picture file
        self.pool, self.waiting = ThreadPoolExecutor(max(threads, 1)), deque()
        self.video: VideoFile | None = None

    def __enter__(self) -> "Output":
        return self

    def __exit__(self, *raised: Any) -> None:
        self.end_video()
        self.pool.shutdown(wait=True)
        write_json(self.folder / "predictions.json", self._results())
        self._wait_for(0)

    def _results(self) -> list[dict[str, Any]]:
        """All detections in the form of COCO, sorted by picture, with file_name and, of a video, frame."""
        keys = sorted(self.found)
        ids = [self.names.coco_id(path, number if number >= 0 else None) for path, number in keys]
        columns = SimpleNamespace(image_ids=ids, category_ids=self.category_ids)
        rows = coco_results(columns, {i: self.found[key] for i, key in enumerate(keys)})
        of_row = [key for key in keys for _ in range(len(self.found[key]))]
        return [
            row | {"file_name": self.names.file_name[path]} | ({"frame": number} if number >= 0 else {})
            for row, (path, number) in zip(rows, of_row, strict=True)
        ]

    @property
    def wants_pictures(self) -> bool:
        """Whether anything is written that shows pixels."""
        return not self.options.nosave or self.options.save_crop

    def begin_video(self, path: str, fps: float) -> None:
        """The frames that follow belong to a video, which is drawn as one."""
        if not self.options.nosave:
            self.video = VideoFile(self.folder / f"{self.names.stem[path]}.mp4", fps)

    def end_video(self) -> None:
        """The frames of a video are over."""
        if self.video:
            self.video.close()
        self.video = None

    def add(self, frame: Any, found: np.ndarray) -> None:
        """Detections (n, 6) xyxy pixels of the picture, score, class of a frame, best first."""
        self.found[frame.path, -1 if frame.number is None else frame.number] = found
        if not self.options.nosave:
            told = self.options
            names = None if told.hide_labels else self.classes
            draw = partial(drawn, frame.picture, found, names, told.line_width, not told.hide_conf)
            if frame.number is None:
                target = self.folder / self.names.picture(frame.path)
                self._later(self.pool.submit(lambda: write_picture(target, draw())))
            elif self.video:
                self._later(self.video.add(draw))
        if self.options.save_txt or (self.options.save_crop and len(found)):
            self._later(self.pool.submit(self._write_others, frame, found))

    def _write_others(self, frame: Any, found: np.ndarray) -> None:
        """The label file and the crops of a frame."""
        name = self.names.text(frame.path, frame.number)
        if self.options.save_txt:
            lines = label_lines(found, *frame.hw)
            write_bytes(self.folder / "labels" / f"{name}.txt", "".join(lines).encode())
        if self.options.save_crop:
            for k, (part, row) in enumerate(zip(crops(frame.picture, found), found, strict=True)):
                folder = self.folder / "crops" / safe(self.classes[int(row[5])])
                write_picture(folder / f"{name}_{k}.jpg", part)

    def _later(self, future: Future) -> None:
        self.waiting.append(future)
        self._wait_for(WAITING)

    def _wait_for(self, left: int) -> None:
        """Until at most `left` are to be written; what went wrong is raised."""
        while len(self.waiting) > left:
            self.waiting.popleft().result()


def write_picture(path: Path, picture: np.ndarray) -> None:
    """A BGR picture as the kind of file that the name ends with; made whole in memory, for names in any script."""
    _, content = cv2.imencode(path.suffix, picture)
    write_bytes(path, content.tobytes())


def write_bytes(path: Path, content: bytes) -> None:
    """A file, with the folders that it lies in; UserError where it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as e:
        raise UserError(f"cannot write {path}: {e.strerror}. Make room, or choose another --project.") from None


def safe(name: str) -> str:
    """The name of a class as that of a folder."""
    return "".join("_" if letter in '/\\:*?"<>|' else letter for letter in name).strip(". ") or "_"
