"""Which picture stands at which position of an epoch: a pure function of (seed, epoch)."""

import math
from functools import lru_cache

import numpy as np

from data.index.index import Index, Parts

PURPOSES = {  # what random numbers are drawn for: a row each, its number is part of the seed and stays
    "order": 0,
    "mosaic": 1,
    "partner": 2,
    "colour": 3,
    "flip": 4,
    "pixels": 5,
    "blend": 6,
    "part": 7,
}


def generator(seed: int, epoch: int, position: int, purpose: str) -> np.random.Generator:
    """Random numbers for one purpose of one sample: more draws for one do not move another."""
    if purpose not in PURPOSES:
        raise LookupError(
            f"no random numbers for '{purpose}': give it a row with a number of its own in PURPOSES of "
            "data/loading/order.py (CONTRIBUTING.md, Add an augmentation)."
        )
    return np.random.default_rng(np.array([seed, epoch, position, PURPOSES[purpose]], np.uint32))  # a list is slower


def class_counts(index: Index) -> np.ndarray:
    """Boxes of each class (nc,) in an epoch; crowds do not count, for training leaves them out."""
    single = ~index.crowd
    if index.parts is None:
        return np.bincount(index.classes[single], minlength=index.nc)
    often = np.repeat(index.parts.chance(), np.diff(index.offsets))  # of each box
    return np.bincount(index.classes[single], often[single], index.nc)  # a mean: pictures are drawn anew


def box_sizes(index: Index, imgsz: int) -> np.ndarray:
    """Width and height (m, 2) of every box, in pixels of pictures whose longer side is `imgsz`; crowds do not count."""
    sides = index.shapes[np.repeat(np.arange(index.n), np.diff(index.offsets))][:, ::-1]  # (m, 2) width, height
    wh = index.boxes[:, 2:4] * sides * (imgsz / sides.max(1, keepdims=True))
    return wh[~index.crowd]


def most_boxes(index: Index, mosaic: float, mixup: float) -> int:
    """Boxes of the fullest picture that an epoch may show, about: three others are average, and a blend has as many."""
    counts = np.diff(index.offsets)
    return max(math.ceil((counts.max() + (3 * counts.mean() if mosaic else 0)) * (2 if mixup else 1)), 1)


def picture_weights(index: Index, balance: float) -> np.ndarray | None:
    """How often each picture is drawn, (n,) float64 summing to 1; None: all alike (balance 0).

    (1 - balance) / n + balance * w, w the sum over its boxes of 1 / boxes of that class (YOLOv5's
    labels_to_image_weights, without the factor of the scores so far). A picture without boxes keeps 1 / n. Where an
    epoch has parts of a split, 1 / n is the chance of a picture, and w counts by it.
    """
    if balance == 0:
        return None
    often = np.ones(index.n) if index.parts is None else index.parts.chance()
    n = often.sum() / often  # (n,) number of pictures of each one's chance that would fill an epoch
    single = ~index.crowd
    picture = np.repeat(np.arange(index.n), np.diff(index.offsets))[single]  # of each box
    rarity = 1 / np.maximum(class_counts(index), 1)
    weights = often * np.bincount(picture, rarity[index.classes[single]], index.n)
    empty = weights == 0
    weights *= often[~empty].sum() / often.sum() / max(weights.sum(), 1e-300)
    weights[empty] = 1 / n[empty]
    return (1 - balance) / n + balance * weights


def epoch_order(
    seed: int, epoch: int, n: int, weights: np.ndarray | None = None, parts: Parts | None = None
) -> np.ndarray:
    """Picture of each position of an epoch (n,) int32; by weights each is there floor or ceil of n * w times.

    parts: of each group of pictures so many are drawn, and weights hold that already.
    """
    return _order(seed, epoch, n, None if weights is None else _Same(weights), parts)


def draw(seed: int, epoch: int, parts: Parts) -> np.ndarray:
    """Rows of the pictures of an epoch, group by group, (samples of an epoch,) int32.

    Each group is walked through in a random order, and in another one when it is through: an epoch goes on where the
    one before ended, so that all pictures come equally often, without a state.
    """
    drawn = []
    for g, k in enumerate(parts.drawn()):
        rows = np.flatnonzero(parts.group == g).astype(np.int32)
        if k == len(rows):
            drawn.append(rows)
            continue
        walk, place = divmod(epoch * k, len(rows))  # whole walks before this epoch, and the place in the next one
        walks = range(walk, walk - (-(place + k) // len(rows)))
        order = [generator(seed, w, g, "part").permutation(len(rows)) for w in walks]
        drawn.append(rows[np.concatenate(order)[place : place + k]])
    return np.concatenate(drawn)


class _Same:
    """An array as a key of a cache; two keys are equal when they hold the very same array, whatever its numbers are."""

    def __init__(self, array: np.ndarray):
        self.array = array

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.array is other.array

    def __hash__(self) -> int:
        return id(self.array)


@lru_cache(maxsize=2)  # per worker process: workers run ahead into the next epoch
def _order(seed: int, epoch: int, n: int, weights: _Same | None, parts: Parts | None) -> np.ndarray:
    rng = generator(seed, epoch, 0, "order")
    if weights is None:
        order = rng.permutation(n).astype(np.int32)
        return order if parts is None else draw(seed, epoch, parts)[order]
    ends = np.concatenate([[0.0], weights.array.cumsum()]) * (n / weights.array.sum())
    ends[-1] = n
    counts = np.diff(np.ceil(ends - rng.random())).astype(np.int64)  # systematic resampling: one offset, steps of 1
    return np.repeat(np.arange(len(counts), dtype=np.int32), counts)[rng.permutation(n)]


BLOCK = 64  # positions; mosaic partners come from the block of their sample: one decode a sample is enough


def block_of(position: int, n: int) -> tuple[int, int]:
    """First and past-the-last position of the block; what is left over at the end joins the last whole block."""
    block = min(position // BLOCK, max(n // BLOCK, 1) - 1)
    last = block == max(n // BLOCK, 1) - 1
    return block * BLOCK, n if last else (block + 1) * BLOCK
