"""Changes of a finished picture: colour, flips, blending, and the pixel transforms listed in the hyp file."""

import inspect
import math
from typing import Any

import cv2
import numpy as np

from utils.config.schema import Hyp
from utils.errors import UserError, suggest

LEVELS = np.arange(256, dtype=np.uint8)
GREY = np.full((3, 3), 1 / 3)  # projection onto the axis of greys
ACROSS = np.eye(3) - GREY
TURN = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)  # cross product with that axis
Work = tuple[np.ndarray, np.ndarray]  # room for another picture (h, w, 3) and for three planes (3, h, w)


def coloured_later(hyp: Hyp) -> bool:
    """Whether colours are changed on the device, a batch at once."""
    return hyp.hsv_on == "device" and any((hyp.hsv_h, hyp.hsv_s, hyp.hsv_v))


def draw_gains(rng: np.random.Generator, hyp: Hyp) -> np.ndarray:
    """Random change of hue (a fraction of the circle), saturation and value (factors less 1), (3,)."""
    return rng.uniform(-1, 1, 3) * (hyp.hsv_h, hyp.hsv_s, hyp.hsv_v)


def change_colour(img: np.ndarray, work: Work, gain: np.ndarray, mode: str) -> np.ndarray:
    """Hue, saturation and value of a BGR picture (h, w, 3) uint8, which may be written over, changed by gain (3,).

    mode: see hsv_mode. The result may stand in work[0]: allocating room for every picture costs as much as a step.
    """
    if not gain.any():
        return img
    if mode == "matrix":
        return cv2.transform(img, colour_matrix(*gain.tolist()), dst=work[0])
    return through_hsv(img, work, *gain.tolist())


def through_hsv(img: np.ndarray, work: Work, hue: float, saturation: float, value: float) -> np.ndarray:
    """Hue shifted by a fraction of the circle, saturation and value times 1 + gain, as ultralytics does it."""
    hsv, planes = work
    cv2.split(cv2.cvtColor(img, cv2.COLOR_BGR2HSV, dst=hsv), list(planes))
    shift = math.floor(hue * 180)  # OpenCV's hue is 0..179, and fractions of a step are dropped
    if shift:
        cv2.LUT(planes[0], ((LEVELS.astype(int) + shift) % 180).astype(np.uint8), dst=planes[0])
    multiply(planes[1], 1 + saturation)
    multiply(planes[2], 1 + value)
    return cv2.cvtColor(cv2.merge(list(planes), hsv), cv2.COLOR_HSV2BGR, dst=img)


def multiply(plane: np.ndarray, factor: float) -> None:
    """Each level x (h, w) uint8 becomes the whole part of x * factor, at most 255."""
    table = np.clip(LEVELS * factor, 0, 255).astype(np.uint8)
    down = factor, -0.5 + 1e-4  # the nearest whole number below; three times faster than a table ...
    if np.array_equal(cv2.convertScaleAbs(LEVELS, None, *down).ravel(), table):
        cv2.convertScaleAbs(plane, plane, *down)
    else:  # ... but for products within 1e-4 below a whole number
        cv2.LUT(plane, table, dst=plane)


def colour_matrix(hue: float, saturation: float, value: float) -> np.ndarray:
    """About the same as `through_hsv` by one matrix (3, 3) on BGR columns: faster, and another augmentation.

    hue turns about the grey axis by a fraction of the circle (Rodrigues' formula), saturation stretches away from
    the axis by 1 + gain (through HSV, away from the largest colour), value multiplies by 1 + gain.
    """
    angle = -2 * math.pi * hue  # BGR is left-handed where RGB is right-handed
    rotated = ACROSS * math.cos(angle) + TURN * math.sin(angle)
    return (1 + value) * (GREY + (1 + saturation) * rotated)


def draw_flips(rng: np.random.Generator, hyp: Hyp) -> tuple[bool, bool]:
    """Whether to flip upside down, and left to right."""
    up, left = rng.random(2)
    return bool(up < hyp.flipud), bool(left < hyp.fliplr)


def flip_boxes(boxes: np.ndarray, flips: tuple[bool, bool], imgsz: int) -> np.ndarray:
    """Boxes (n, 4) xyxy of a flipped picture; flips: upside down, left to right."""
    upside_down, left_right = flips
    x1, y1, x2, y2 = boxes.T
    if left_right:
        x1, x2 = imgsz - x2, imgsz - x1
    if upside_down:
        y1, y2 = imgsz - y2, imgsz - y1
    return np.stack([x1, y1, x2, y2], 1)


def split_flipped(img: np.ndarray, flips: tuple[bool, bool], out: np.ndarray) -> None:
    """BGR (h, w, 3) uint8 -> RGB planes out (3, h, w), flipped: upside down, left to right."""
    cv2.split(img, [out[2], out[1], out[0]])  # three times faster than a transposed copy
    if any(flips):
        code = -1 if all(flips) else int(flips[1])
        for plane in out:
            cv2.flip(plane, code, dst=plane)


def blend(a: np.ndarray, b: np.ndarray, rng: np.random.Generator) -> None:
    """Mixup of two pictures (h, w, 3) uint8 with a weight near one half, written into a."""
    weight = rng.beta(32.0, 32.0)
    cv2.addWeighted(a, weight, b, 1 - weight, 0, dst=a)


class PixelTransforms:
    """The `albumentations:` list of the hyp file, repeatable for a given seed."""

    def __init__(self, specs: list[dict[str, Any]]):
        import albumentations  # takes a second; only runs that ask for it pay

        self.pipeline = albumentations.Compose([_pixel_transform(albumentations, spec) for spec in specs])

    def __call__(self, img: np.ndarray, seed: int) -> np.ndarray:
        """BGR picture (h, w, 3) uint8 -> changed picture, the same for the same seed."""
        self.pipeline.set_random_seed(seed)
        rgb = cv2.cvtColor(img, cv2.COLOR_BGR2RGB)
        return cv2.cvtColor(self.pipeline(image=rgb)["image"], cv2.COLOR_RGB2BGR)


def _pixel_transform(albumentations: Any, spec: dict[str, Any]) -> Any:
    """One entry of the list -> a transform; refused when unknown, spatial, or given impossible arguments."""
    arguments = {key: tuple(v) if isinstance(v, list) else v for key, v in spec.items() if key != "name"}
    name = spec.get("name")
    if not isinstance(name, str):
        raise UserError(f"albumentations: the entry {spec} has no name. Write e.g. {{name: GaussianBlur, p: 0.1}}.")
    kind = getattr(albumentations, name, None)
    known = [n for n in dir(albumentations) if n[0].isupper() and _is_transform(albumentations, n)]
    if name not in known:
        raise UserError(f"albumentations has no transform '{name}'.{suggest(name, known)}")
    if issubclass(kind, albumentations.DualTransform):
        raise UserError(
            f"albumentations: {name} moves pixels, and boxes would not follow. Only pixel transforms are possible; "
            f"use degrees, translate, scale, shear, perspective, flipud, fliplr for geometry."
        )
    accepted = list(inspect.signature(kind.__init__).parameters)[1:]
    for key in set(arguments) - set(accepted):  # albumentations itself only warns, and goes on with its default
        raise UserError(f"albumentations: {name} has no argument '{key}', but {accepted}.{suggest(key, accepted)}")
    try:
        return kind(**arguments)
    except (TypeError, ValueError) as e:
        raise UserError(f"albumentations: {name} does not accept {arguments}: {e}") from None


def _is_transform(albumentations: Any, name: str) -> bool:
    kind = getattr(albumentations, name)
    return isinstance(kind, type) and issubclass(kind, albumentations.BasicTransform)
