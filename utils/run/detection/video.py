"""Drawn frames as a video file, in the order in which they come, by a thread of its own."""

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from utils.errors import UserError


class VideoFile:
    """An .mp4 of frames of one size; opened by the first one."""

    def __init__(self, path: Path, fps: float):
        self.path, self.fps = path, fps
        self.writer: cv2.VideoWriter | None = None
        self.thread = ThreadPoolExecutor(1)

    def add(self, make: Any) -> Future:
        """Let the thread make a frame, BGR (h, w, 3) uint8, and write it."""
        return self.thread.submit(lambda: self._write(make()))

    def _write(self, picture: np.ndarray) -> None:
        h, w = picture.shape[:2]
        if self.writer is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.writer = cv2.VideoWriter(str(self.path), cv2.VideoWriter_fourcc(*"mp4v"), self.fps, (w, h))
            if not self.writer.isOpened():
                raise UserError(f"cannot write the video {self.path}. Make room, or write none: --nosave.")
        self.writer.write(picture)

    def close(self) -> None:
        """Write what is left, and the end of the file, without which no program plays it."""
        self.thread.shutdown(wait=True)
        if self.writer is not None:
            self.writer.release()
