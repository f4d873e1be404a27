"""Draws two small detection datasets, so that everything can be tried without a download.

`source` is for pretraining: fourteen plain shapes. `target` is for fine-tuning: four things with other textures, more
occlusion, small objects, stray twigs and pictures without any object. What a label says:

* The mask of an object is where it covers at least half of a pixel. Its box is the tight bound of the part of the mask
  inside the picture, whether or not other things lie on top of it.
* An object is labelled when at least 40 % of its mask can be seen: neither covered nor cut off by the picture's edge.
"""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy import ndarray
from numpy.random import Generator

from data.toy.shapes import (
    SOURCE_SHAPES,
    TARGET_SHAPES,
    TWIG,
    Shape,
    Texture,
    blobs,
    checker,
    flat,
    gradient,
    grain,
    stripes,
    waves,
)

SUPERSAMPLE = 4  # sub-pixels per pixel and axis: smooth edges, and a box exact to the pixel
COLOURS = (20, 236)  # lowest and highest of a channel
MIN_VISIBLE = 0.4
SPLITS = ("train", "val")


@dataclass(frozen=True)
class World:
    """What one dataset looks like; lengths in pixels."""

    seed: int
    shapes: dict[str, Shape]
    grounds: tuple[Texture, ...]
    fills: tuple[Texture, ...]
    counts: dict[str, int]  # pictures per split
    radius: tuple[int, int]  # of an object
    objects: tuple[int, int]
    twigs: int  # at most; unlabelled, on top
    overlap: float  # share of an object that may lie on those before it
    empty: float = 0.0  # share of pictures without an object
    sizes: tuple[tuple[int, int], ...] = ((160, 160), (160, 160), (120, 160), (160, 120))  # height, width


WORLDS = {
    "source": World(
        seed=1,
        shapes=SOURCE_SHAPES,
        grounds=(flat, gradient, stripes, blobs, grain),
        fills=(flat, gradient, stripes, blobs),
        counts={"train": 1500, "val": 150},
        radius=(8, 40),
        objects=(1, 8),
        twigs=1,
        overlap=0.15,
    ),
    "target": World(
        seed=2,
        shapes=TARGET_SHAPES,
        grounds=(waves, checker, grain, blobs),
        fills=(waves, checker, grain, gradient),
        counts={"train": 256, "val": 96},
        radius=(8, 36),
        objects=(1, 7),
        twigs=4,
        overlap=0.35,
        empty=0.08,
    ),
}


def silhouette(rng: Generator, shape: Shape, radius: float) -> ndarray:
    """The shape turned, squeezed and drawn at a random sub-pixel place: coverage 0..255, uint8 (side, side)."""
    side = 2 * int(radius * 1.45 + 2)  # 1.45: the corner of the unit square, turned
    t = rng.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(t), np.sin(t)], [-np.sin(t), np.cos(t)]])
    squeeze = [1, rng.uniform(0.8, 1)]
    centre = side / 2 + rng.uniform(-0.5, 0.5, 2)
    outlines = [((o * squeeze) @ turn * radius + centre) * SUPERSAMPLE for o in shape]
    fine = np.zeros((side * SUPERSAMPLE, side * SUPERSAMPLE), np.uint8)
    cv2.fillPoly(fine, [o.round().astype(np.int32) for o in outlines], 255)
    return cv2.resize(fine, (side, side), interpolation=cv2.INTER_AREA)


def paint(rng: Generator, textures: tuple[Texture, ...], h: int, w: int, base: ndarray, spread: int) -> ndarray:
    """A texture between the colour `base` and another within `spread` of it; uint8 (h, w, 3)."""
    other = np.clip(base + rng.integers(-spread, spread + 1, 3), 0, 255)
    field = textures[rng.integers(len(textures))](rng, h, w)
    palette = np.linspace(base, other, 256).round().astype(np.uint8)
    return palette[(field.clip(0, 1) * 255).astype(np.uint8)]


def contrasting(rng: Generator, ground: ndarray) -> ndarray:
    """A random colour that differs from the ground's by 80 or more in some channel."""
    while True:
        colour = rng.integers(*COLOURS, 3)
        if np.abs(colour - ground).max() >= 80:
            return colour


@dataclass(frozen=True)
class Thing:
    """Something drawn; cls is -1 for a twig."""

    cls: int
    mask: ndarray  # bool (h, w): the part inside the picture, things on top of it notwithstanding
    pixels: int  # of the whole mask, the part outside the picture included


def settle(rng: Generator, cover: ndarray, taken: ndarray, overlap: float) -> ndarray | None:
    """`cover` moved to a random place in the picture with at most `overlap` of it on `taken`; None if there is none."""
    (h, w), side = taken.shape, len(cover)
    for _ in range(10):
        y, x = rng.integers((h, w)) + side // 2  # in a frame with a margin as wide as the patch
        frame = np.zeros((h + 2 * side, w + 2 * side), np.uint8)
        frame[y : y + side, x : x + side] = cover
        frame = frame[side:-side, side:-side]
        if frame.any() and np.count_nonzero(taken & (frame >= 128)) <= overlap * np.count_nonzero(cover >= 128):
            return frame
    return None


def compose(world: World, rng: Generator) -> tuple[ndarray, list[Thing]]:
    """One picture, uint8 (h, w, 3), and what is on it from bottom to top."""
    h, w = world.sizes[rng.integers(len(world.sizes))]
    base = rng.integers(*COLOURS, 3)
    picture = paint(rng, world.grounds, h, w, base, spread=50)
    low, high = world.objects
    n = 0 if rng.random() < world.empty else rng.integers(low, high + 1)
    classes = [*rng.integers(len(world.shapes), size=n), *[-1] * rng.integers(world.twigs + 1)]
    shapes = [*world.shapes.values(), TWIG]  # TWIG is number -1
    things: list[Thing] = []
    taken = np.zeros((h, w), bool)
    for cls in classes:
        radius = np.exp(rng.uniform(*np.log(world.radius)))  # as many small as large ones
        cover = silhouette(rng, shapes[cls], radius)
        frame = settle(rng, cover, taken, world.overlap)
        if frame is None:
            continue
        left, top, width, height = cv2.boundingRect(frame)
        region = picture[top : top + height, left : left + width]
        alpha = frame[top : top + height, left : left + width, None].astype(np.uint16)
        fill = paint(rng, world.fills, height, width, contrasting(rng, base), spread=60)
        region[:] = (region * (255 - alpha) + fill * alpha + 127) // 255
        taken |= frame >= 128
        things.append(Thing(int(cls), frame >= 128, np.count_nonzero(cover >= 128)))
    return picture, things


def label_rows(things: list[Thing]) -> list[tuple[int, float, float, float, float]]:
    """(class, x, y, w, h) with the box's centre and size in 0..1, of every object that can be seen well enough."""
    rows = []
    covered = np.zeros_like(things[0].mask) if things else None
    for thing in reversed(things):
        seen = np.count_nonzero(thing.mask & ~covered)
        covered = covered | thing.mask
        if thing.cls < 0 or seen < MIN_VISIBLE * thing.pixels:
            continue
        (h, w), (ys, xs) = thing.mask.shape, np.nonzero(thing.mask)
        left, right, top, bottom = xs.min(), xs.max() + 1, ys.min(), ys.max() + 1
        rows.append((thing.cls, (left + right) / 2 / w, (top + bottom) / 2 / h, (right - left) / w, (bottom - top) / h))
    return rows[::-1]


def write_split(world: World, root: Path, split: str, n: int) -> None:
    """Pictures and label files of one split; picture i is the same whatever n."""
    images, labels = root / "images" / split, root / "labels" / split
    images.mkdir(parents=True)
    labels.mkdir(parents=True)
    for i in range(n):
        picture, things = compose(world, np.random.default_rng([world.seed, SPLITS.index(split), i]))
        _, jpeg = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 95])
        (images / f"{i:04d}.jpg").write_bytes(jpeg.tobytes())
        lines = [f"{cls} {x:.6f} {y:.6f} {w:.6f} {h:.6f}\n" for cls, x, y, w, h in label_rows(things)]
        (labels / f"{i:04d}.txt").write_text("".join(lines))


def draw(name: str, root: Path, counts: dict[str, int] | None = None) -> None:
    """Draw world `name` into the folder `root`, unless it is there; several processes may do so at once.

    `counts` overrides the number of pictures per split. The folder appears whole or not at all.
    """
    root = Path(root)
    if (root / "images").is_dir():
        return
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root.parent, prefix=f".{root.name}-") as scratch:
        for split, n in (counts or WORLDS[name].counts).items():
            write_split(WORLDS[name], Path(scratch) / root.name, split, n)
        try:
            os.replace(Path(scratch) / root.name, root)
        except OSError:
            if not (root / "images").is_dir():  # else another process was faster, and drew the same
                raise
