"""Picture files in the batches that evaluation would make of them, decoded ahead by threads."""

from collections.abc import Callable, Iterator
from itertools import groupby
from typing import Any

import numpy as np

from data.frames.batch import Frame, Placed, batch_of, placed
from data.pictures.decode import decode
from data.pictures.letterbox import rect_batches
from utils.device.parallel import ahead
from utils.errors import UserError

AHEAD = 2  # batches that are decoded while one is looked at


def read_stills(
    paths: list[str],
    shapes: np.ndarray,
    *,
    imgsz: int,
    stride: int,
    batch: int,
    threads: int,
    rect: bool = True,
    whole: bool = True,
    white: float | None = None,
    broken: Callable[[str, str], None],
) -> Iterator[dict[str, Any]]:
    """Batches of pictures whose sizes (n, 2) are known; `broken(path, why)` hears of those that cannot be decoded.

    whole: the full pictures come along. white: the value that becomes 255 where a channel has more than 8 bits. A batch
    in which nothing can be decoded is left out.
    """
    plan = rect_batches(shapes, imgsz, stride, batch, rect)

    def load(at: int) -> tuple[int, Placed | None]:
        i, number = int(plan.order[at]), int(plan.batch_of[at])
        hw = tuple(shapes[i].tolist())
        try:
            picture = decode(paths[i], hw, white=white)
        except UserError as e:
            broken(paths[i], str(e).removeprefix(f"{paths[i]} "))
            return number, None
        frame = Frame(paths[i], hw, picture=picture if whole else None)
        return number, placed(frame, picture, imgsz, tuple(plan.shapes[number].tolist()))

    loaded = ahead(load, range(len(paths)), threads, AHEAD * batch)
    for _, group in groupby(loaded, key=lambda one: one[0]):
        ready = [one for _, one in group if one is not None]
        if ready:
            yield batch_of(ready)
