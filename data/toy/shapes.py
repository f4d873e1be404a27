"""Outlines and textures of the toy datasets."""

from collections.abc import Callable

import cv2
import numpy as np
from numpy import ndarray
from numpy.random import Generator

Shape = list[ndarray]
Texture = Callable[[Generator, int, int], ndarray]


# Shapes: closed outlines in -1..1, x right and y down. An outline inside another is a hole.
def arc(start: float, stop: float, radius: float = 1.0, x: float = 0.0, y: float = 0.0, points: int = 24) -> ndarray:
    """Points on a circle from `start` to `stop` degrees, both included; (points, 2)."""
    t = np.radians(np.linspace(start, stop, points))
    return np.stack([x + radius * np.cos(t), y + radius * np.sin(t)], 1)


def polygon(sides: int, radii: tuple[float, ...] = (1.0,)) -> ndarray:
    """Corners at equal angles, the radii taken in turn; (sides, 2)."""
    t = np.arange(sides) * 2 * np.pi / sides
    return np.resize(radii, sides)[:, None] * np.stack([np.cos(t), np.sin(t)], 1)


def mirrored(upper: list[tuple[float, float]]) -> ndarray:
    """Outline from its upper half, given from left to right; the lower half is its mirror image in the x axis."""
    return np.concatenate([upper, np.array(upper[::-1]) * [1, -1]])


def heart() -> ndarray:
    """The usual curve, scaled into -1..1."""
    t = np.linspace(0, 2 * np.pi, 40)
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack([16 * np.sin(t) ** 3, -y - 2.5], 1) / 17


def leaf() -> list[ndarray]:
    """Blade with a saw edge, a stalk and a slit for the midrib."""
    u = np.linspace(0, 1, 15)
    blade = 0.55 * np.sin(np.pi * u**0.8) * np.resize([1.0, 0.8], 15)
    edge = list(zip(1.55 * u - 0.55, -blade - 0.05, strict=True))
    return [mirrored([(-1.0, -0.07), *edge]), mirrored([(-0.35, -0.05), (0.6, -0.04)])]


def key() -> list[ndarray]:
    """Round bow with a hole, a shaft and three teeth."""
    teeth = [(0.35, 0.13), (0.35, 0.42), (0.53, 0.42), (0.53, 0.13), (0.62, 0.13), (0.62, 0.34), (0.75, 0.34)]
    shaft = [*teeth, (0.75, 0.13), (0.83, 0.13), (0.83, 0.46), (1.0, 0.46), (1.0, -0.13)]
    return [np.concatenate([shaft[::-1], arc(18, 342, 0.42, -0.58)]), arc(0, 360, 0.19, -0.66)]


def bolt() -> ndarray:
    """Hexagonal head seen from the side and a threaded shaft."""
    thread = [(x, -y) for i, x in enumerate(np.linspace(-0.35, 0.9, 9)) for y in [(0.2, 0.32)[i % 2]]]
    return mirrored([(-1.0, -0.45), (-0.9, -0.62), (-0.48, -0.62), (-0.48, -0.2), *thread, (1.0, -0.12)])


def mug() -> list[ndarray]:
    """Body with a handle on its right."""
    body = [(-0.85, -0.75), (0.3, -0.75)]
    foot = [(0.3, 0.75), (0.2, 0.85), (-0.75, 0.85), (-0.85, 0.75)]
    return [np.concatenate([body, arc(-80, 80, 0.55, 0.35), foot]), arc(-90, 90, 0.33, 0.38)]


SOURCE_SHAPES: dict[str, Shape] = {
    "circle": [polygon(40)],
    "triangle": [polygon(3)],
    "square": [polygon(4)],
    "hexagon": [polygon(6)],
    "star": [polygon(10, (1.0, 0.42))],
    "gear": [polygon(24, (1.0, 1.0, 0.74, 0.74)), polygon(24, (0.3,))],
    "ring": [polygon(40), polygon(40, (0.55,))],
    "frame": [polygon(4), polygon(4, (0.6,))],
    "bar": [mirrored([(-1, -0.28), (1, -0.28)])],
    "cross": [mirrored([(-1, -0.3), (-0.3, -0.3), (-0.3, -1), (0.3, -1), (0.3, -0.3), (1, -0.3)])],
    "arrow": [mirrored([(-1, -0.22), (0.1, -0.22), (0.1, -0.7), (1, 0)])],
    "heart": [heart()],
    "crescent": [np.concatenate([arc(50, 310), arc(290, 70, 0.82, 0.37)])],
    "drop": [np.concatenate([[(1.0, 0.0)], arc(60, 300, 0.6, -0.4)])],
}
TARGET_SHAPES: dict[str, Shape] = {"mug": mug(), "key": key(), "leaf": leaf(), "bolt": [bolt()]}
TWIG: Shape = [mirrored([(-1, -0.05), (0.2, -0.09), (0.35, -0.3), (0.42, -0.28), (0.38, -0.08), (1, -0.02)])]


# Textures: fields of 0..1 that mix two colours.
def ramp(rng: Generator, h: int, w: int) -> ndarray:
    """Distance along a random direction, in pixels; (h, w)."""
    t = rng.uniform(0, 2 * np.pi)
    return np.arange(w) * np.cos(t) + np.arange(h)[:, None] * np.sin(t)


def blobs(rng: Generator, h: int, w: int) -> ndarray:
    """Smooth noise of about 20 pixels."""
    coarse = rng.random((h // 20 + 2, w // 20 + 2), dtype=np.float32)
    return cv2.resize(coarse, (w, h), interpolation=cv2.INTER_CUBIC)


def gradient(rng: Generator, h: int, w: int) -> ndarray:
    """Even change from edge to edge."""
    field = ramp(rng, h, w)
    return (field - field.min()) / max(np.ptp(field), 1)


def stripes(rng: Generator, h: int, w: int) -> ndarray:
    """Bars of 3 to 8 pixels."""
    return (ramp(rng, h, w) / rng.uniform(3, 8) % 2 < 1).astype(float)


def checker(rng: Generator, h: int, w: int) -> ndarray:
    """Two crossed sets of stripes."""
    return np.abs(stripes(rng, h, w) - stripes(rng, h, w))


def waves(rng: Generator, h: int, w: int) -> ndarray:
    """Bent soft stripes, like wood."""
    return 0.5 + 0.5 * np.sin(ramp(rng, h, w) / rng.uniform(1.5, 4) + 6 * blobs(rng, h, w))


def grain(rng: Generator, h: int, w: int) -> ndarray:
    """Noise of one pixel by four."""
    return cv2.blur(rng.random((h, w), dtype=np.float32), (4, 1))


def flat(rng: Generator, h: int, w: int) -> ndarray:
    """One colour."""
    return np.zeros((h, w))
