"""Frames of a video file or a camera, decoded ahead by a thread."""

import contextlib
import itertools
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from data.frames.batch import Frame, Placed, batch_of, placed
from data.pictures.letterbox import rect_batches
from utils.device.parallel import ahead
from utils.errors import UserError

log = logging.getLogger(__name__)
TRIES = 25  # frames in a row that may be broken before a stream counts as ended
AHEAD = 2  # batches that are decoded while one is looked at


@dataclass(frozen=True)
class Video:
    """An open video or camera."""

    name: str
    capture: cv2.VideoCapture
    frames: int  # as its header says; 0: unknown, as of a camera
    fps: float


def open_video(name: str) -> Video:
    """A video file by its path, a camera by its number, a stream by its address; UserError where it cannot be read."""
    quiet = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        capture = cv2.VideoCapture(int(name) if name.isdecimal() else name)
    finally:
        cv2.utils.logging.setLogLevel(quiet)
    if not capture.isOpened():
        what = "camera" if name.isdecimal() else "video" if os.path.exists(name) else "stream"
        raise UserError(f"{what} {name} cannot be opened. Check that another program plays it; cameras count from 0.")
    frames, fps = capture.get(cv2.CAP_PROP_FRAME_COUNT), capture.get(cv2.CAP_PROP_FPS)
    return Video(name, capture, max(int(frames), 0), fps if 0 < fps < 1000 else 25.0)


def read_video(video: Video, *, imgsz: int, stride: int, batch: int, rect: bool = True) -> Iterator[dict[str, Any]]:
    """Batches of frames in their order, the last one perhaps smaller; the video is closed at the end."""
    try:
        frames = _decoded(video)
        first = next(frames, None)
        if first is None:
            raise UserError(f"{video.name} has no frame that can be decoded.")
        shape = tuple(rect_batches(np.array([first.hw]), imgsz, stride, 1, rect).shapes[0].tolist())
        same = itertools.chain([first], frames)

        def step(_: int) -> Placed | None:  # in the thread: decoding, too
            frame = next(same, None)
            return frame and placed(frame, frame.picture, imgsz, shape)

        with contextlib.closing(ahead(step, itertools.count(), 1, AHEAD * batch)) as steps:
            one_by_one = itertools.takewhile(lambda one: one is not None, steps)
            while ready := list(itertools.islice(one_by_one, batch)):
                yield batch_of(ready)
    finally:
        video.capture.release()


def _decoded(video: Video) -> Iterator[Frame]:
    """Every frame that can be decoded, with its number; broken ones are counted, and said."""
    number, in_row, broken = 0, 0, 0
    while in_row < TRIES and (not video.frames or number < video.frames or not in_row):
        grabbed, picture = video.capture.read()
        if grabbed and picture is not None:
            broken, in_row = broken + in_row, 0
            yield Frame(video.name, picture.shape[:2], number, picture)
        else:
            in_row += 1
        number += 1
    lacks = video.frames - (number - in_row) if video.frames else 0
    if broken or lacks > 0:
        log.info(f"{video.name}: {broken + max(lacks, 0)} frames of {video.frames or number} cannot be decoded")
