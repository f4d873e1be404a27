"""Changes of a finished picture: colour, flips, blending, and the pixel transforms listed in the hyp file."""

import inspect
from typing import Any

import cv2
import numpy as np

from utils.config import Hyp, suggest
from utils.errors import UserError


def change_hsv(img: np.ndarray, rng: np.random.Generator, hyp: Hyp) -> np.ndarray:
    """Random hue shift, saturation and value gain of a BGR picture (h, w, 3) uint8."""
    gain = rng.uniform(-1, 1, 3) * (hyp.hsv_h, hyp.hsv_s, hyp.hsv_v)
    if not gain.any():
        return img
    x = np.arange(256, dtype=np.float64)
    table = np.empty((1, 256, 3), np.uint8)
    table[0, :, 0] = (x + gain[0] * 180) % 180  # OpenCV's hue: 0..179
    table[0, :, 1] = np.clip(x * (gain[1] + 1), 0, 255)
    table[0, :, 2] = np.clip(x * (gain[2] + 1), 0, 255)
    hsv = cv2.cvtColor(img, cv2.COLOR_BGR2HSV)
    return cv2.cvtColor(cv2.LUT(hsv, table), cv2.COLOR_HSV2BGR, dst=img)


def draw_flips(rng: np.random.Generator, hyp: Hyp) -> tuple[bool, bool]:
    """Whether to flip upside down, and left to right."""
    up, left = rng.random(2)
    return bool(up < hyp.flipud), bool(left < hyp.fliplr)


def flip(img: np.ndarray, boxes: np.ndarray, flips: tuple[bool, bool]) -> tuple[np.ndarray, np.ndarray]:
    """Flip a picture (h, w, 3) and its boxes (n, 4) xyxy; flips: upside down, left to right."""
    upside_down, left_right = flips
    if not (upside_down or left_right):
        return img, boxes
    h, w = img.shape[:2]
    x1, y1, x2, y2 = boxes.T
    if left_right:
        x1, x2 = w - x2, w - x1
    if upside_down:
        y1, y2 = h - y2, h - y1
    code = -1 if upside_down and left_right else int(left_right)
    return cv2.flip(img, code), np.stack([x1, y1, x2, y2], 1)


def blend(a: np.ndarray, b: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Mixup of two pictures (h, w, 3) uint8 with a weight near one half."""
    weight = rng.beta(32.0, 32.0)
    return cv2.addWeighted(a, weight, b, 1 - weight, 0)


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
