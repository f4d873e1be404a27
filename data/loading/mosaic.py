"""Pictures -> one training picture: each is mapped once, straight into the output, and its boxes with it.

Coordinates are edges of pixels: a picture of w pixels spans 0..w. The canvas of a mosaic (twice imgsz) is only ever
a frame of reference: tile -> canvas -> output is one composed mapping, and no canvas is filled.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np

from data.pictures.letterbox import FILL
from utils.boxes import area
from utils.config.schema import Hyp


@dataclass(frozen=True)
class Tile:
    """A picture, its boxes, where it lies on the canvas and which part of it is on the canvas."""

    img: np.ndarray  # (h, w, 3) uint8
    boxes: np.ndarray  # (n, 4) xywhn
    classes: np.ndarray  # (n,)
    left: int  # canvas x of the picture's left edge
    top: int
    region: tuple[int, int, int, int]  # x1, y1, x2, y2 of img: what the canvas shows of it


@dataclass(frozen=True)
class Geometry:
    """Canvas -> output of imgsz x imgsz."""

    matrix: np.ndarray  # (3, 3) on edge coordinates
    scale: float  # the zoom drawn; what a box should measure afterwards
    imgsz: int

    @property
    def axis_aligned(self) -> bool:
        """Only scale and shift: cv2.resize does it."""
        m = self.matrix
        return m[0, 1] == m[1, 0] == m[2, 0] == m[2, 1] == 0


def draw_geometry(rng: np.random.Generator, hyp: Hyp, canvas: tuple[int, int], imgsz: int) -> Geometry:
    """Random zoom, shift, rotation, shear and perspective about the middle of the canvas (h, w)."""
    h, w = canvas
    unit = rng.uniform(-1, 1, 8).tolist()  # always eight, so that one strength does not change the draw of another
    scale = 1 + unit[0] * hyp.scale
    shift_x, shift_y = 0.5 + unit[1] * hyp.translate, 0.5 + unit[2] * hyp.translate
    if not (hyp.degrees or hyp.shear or hyp.perspective):
        x, y = shift_x * imgsz - scale * w / 2, shift_y * imgsz - scale * h / 2
        return Geometry(np.array([[scale, 0.0, x], [0.0, scale, y], [0.0, 0.0, 1.0]]), scale, imgsz)
    centre, rotate, shear, shift, bend = (np.eye(3) for _ in range(5))
    centre[:2, 2] = -w / 2, -h / 2
    bend[2, :2] = unit[6] * hyp.perspective, unit[7] * hyp.perspective
    reach = abs(bend[2, 0]) * w / 2 + abs(bend[2, 1]) * h / 2
    bend[2, :2] *= min(1.0, 0.9 / max(reach, 1e-9))  # at 1 a corner of the canvas would lie at infinity
    angle = math.radians(unit[3] * hyp.degrees)
    cos, sin = scale * math.cos(angle), scale * math.sin(angle)
    rotate[:2, :2] = (cos, sin), (-sin, cos)
    shear[0, 1] = math.tan(math.radians(unit[4] * hyp.shear))
    shear[1, 0] = math.tan(math.radians(unit[5] * hyp.shear))
    shift[:2, 2] = shift_x * imgsz, shift_y * imgsz
    return Geometry(shift @ shear @ rotate @ bend @ centre, scale, imgsz)


def draw_centre(rng: np.random.Generator, imgsz: int) -> tuple[int, int]:
    """Where the four pictures of a mosaic meet: x, y in 0.5..1.5 of imgsz on a canvas of 2 imgsz."""
    x, y = rng.uniform(imgsz / 2, imgsz * 1.5, 2)
    return int(x), int(y)


def place_four(
    pictures: list[tuple[np.ndarray, np.ndarray, np.ndarray]], centre: tuple[int, int], imgsz: int
) -> list[Tile]:
    """Four (img, boxes xywhn, classes) around the centre: top left, top right, bottom left, bottom right."""
    tiles = []
    for k, (img, boxes, classes) in enumerate(pictures):
        h, w = img.shape[:2]
        left = centre[0] - w if k % 2 == 0 else centre[0]
        top = centre[1] - h if k < 2 else centre[1]
        region = (max(-left, 0), max(-top, 0), min(w, 2 * imgsz - left), min(h, 2 * imgsz - top))
        tiles.append(Tile(img, boxes, classes, left, top, region))
    return tiles


def place_one(img: np.ndarray, boxes: np.ndarray, classes: np.ndarray) -> list[Tile]:
    """A picture that is its own canvas."""
    return [Tile(img, boxes, classes, 0, 0, (0, 0, img.shape[1], img.shape[0]))]


def compose(tiles: list[Tile], geometry: Geometry, out: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Map every tile into out (imgsz, imgsz, 3); returns boxes (n, 4) xyxy pixels, classes (n,)."""
    out.fill(FILL)
    place = _resize_into if geometry.axis_aligned else _warp_into
    seen = [(tile, mapping) for tile in tiles if (mapping := place(out, tile, geometry)) is not None]
    seen = [(tile, mapping) for tile, mapping in seen if len(tile.boxes)]
    if not seen:
        return np.zeros((0, 4)), np.zeros(0, np.int32)
    boxes = np.concatenate([tile.boxes for tile, _ in seen]).astype(np.float64)
    tiles_of = np.repeat(np.arange(len(seen)), [len(tile.boxes) for tile, _ in seen])  # (n,) tile of each box
    size = np.array([tile.img.shape[1::-1] * 2 for tile, _ in seen])[tiles_of]  # (n, 4) w h w h of its picture
    x1, y1, x2, y2 = np.array([tile.region for tile, _ in seen])[tiles_of].T  # (n,) what of it the canvas shows
    half = boxes[:, 2:] / 2
    boxes = np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], 1) * size  # xyxy, pixels of the picture
    low, high = np.stack([x1, y1, x1, y1], 1), np.stack([x2, y2, x2, y2], 1)
    before = np.minimum(np.maximum(boxes, low), high)
    matrix = np.array([mapping for _, mapping in seen]).reshape(-1, 3, 3)[tiles_of]  # (n, 3, 3)
    if geometry.axis_aligned:
        gain, shift = matrix[:, [0, 1], [0, 1]], matrix[:, :2, 2]  # (n, 2) each, x y
        after = before * np.tile(gain, 2) + np.tile(shift, 2)
    else:
        after = map_boxes(before, matrix)
    after = np.minimum(np.maximum(after, 0), geometry.imgsz)
    keep = still_useful(before * geometry.scale, after)
    return after[keep], np.concatenate([tile.classes for tile, _ in seen])[keep]


def map_boxes(boxes: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Upright boxes (n, 4) xyxy around the mapped corners of boxes (n, 4); matrix (3, 3), or one a box (n, 3, 3)."""
    corners = np.ones((len(boxes), 4, 3))
    corners[:, :, :2] = boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2)
    mapped = corners @ matrix.swapaxes(-1, -2)  # (n, 4, 3)
    xy = mapped[:, :, :2] / mapped[:, :, 2:]
    return np.concatenate([xy.min(1), xy.max(1)], 1)


def still_useful(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Mask (n,): wider and higher than 2 pixels, a tenth of the area left, not a sliver of 1:100 (as ultralytics)."""
    w, h = after[:, 2] - after[:, 0], after[:, 3] - after[:, 1]
    sliver = np.maximum(w / (h + 1e-16), h / (w + 1e-16)) >= 100
    return (w > 2) & (h > 2) & (area(after) > 0.1 * area(before)) & ~sliver


def _resize_into(out: np.ndarray, tile: Tile, geometry: Geometry) -> list[float] | None:
    """Resize the visible part into its whole-pixel place; returns the mapping really used, None if unseen."""
    x1, y1, x2, y2 = tile.region
    size = geometry.imgsz
    (gain_x, _, shift_x), (_, gain_y, shift_y), _ = geometry.matrix.tolist()
    across = _fit_axis(x1, x2, gain_x, gain_x * tile.left + shift_x, size)
    down = _fit_axis(y1, y2, gain_y, gain_y * tile.top + shift_y, size)
    if across is None or down is None:
        return None
    (sx1, sx2, dx1, dx2), (sy1, sy2, dy1, dy2) = across, down
    place = out[dy1:dy2, dx1:dx2]
    cv2.resize(tile.img[sy1:sy2, sx1:sx2], (dx2 - dx1, dy2 - dy1), dst=place, interpolation=cv2.INTER_LINEAR)
    gain_x, gain_y = (dx2 - dx1) / (sx2 - sx1), (dy2 - dy1) / (sy2 - sy1)
    return [gain_x, 0, dx1 - sx1 * gain_x, 0, gain_y, dy1 - sy1 * gain_y, 0, 0, 1]  # a matrix (3, 3), row by row


def _fit_axis(start: int, stop: int, gain: float, shift: float, size: int) -> tuple[int, int, int, int] | None:
    """Pixels start..stop of a picture, mapped by x * gain + shift into 0..size: source from, to, output from, to."""
    first, last = round(start * gain + shift), round(stop * gain + shift)
    if min(last, size) <= max(first, 0):
        return None
    gain = (last - first) / (stop - start)
    source_from = start + round(max(-first, 0) / gain)
    source_to = stop - round(max(last - size, 0) / gain)
    if source_to <= source_from:  # less than a pixel of it is seen, enlarged
        source_from = min(source_from, stop - 1)
        source_to = source_from + 1
    return source_from, source_to, max(first, 0), min(last, size)


def _warp_into(out: np.ndarray, tile: Tile, geometry: Geometry) -> list[float] | None:
    """Warp the tile's region into the output, masked to its outline; returns the mapping, None if unseen."""
    x1, y1, x2, y2 = tile.region
    matrix = geometry.matrix @ _shift(tile.left, tile.top)  # pixels of the picture -> output
    outline = np.array([[x1, y1, 1], [x2, y1, 1], [x2, y2, 1], [x1, y2, 1]]) @ matrix.T  # (4, 3)
    outline = outline[:, :2] / outline[:, 2:]
    left, top = np.floor(outline.min(0)).clip(0, geometry.imgsz).astype(int)
    right, bottom = np.ceil(outline.max(0)).clip(0, geometry.imgsz).astype(int)
    if right <= left or bottom <= top:
        return None
    # OpenCV counts from the centres of pixels, half a pixel from their edges
    centres = _shift(-left - 0.5, -top - 0.5) @ matrix @ _shift(x1 + 0.5, y1 + 0.5)
    source, size = tile.img[y1:y2, x1:x2], (int(right - left), int(bottom - top))
    if matrix[2, 0] or matrix[2, 1]:
        warped = cv2.warpPerspective(source, centres, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    else:
        warped = cv2.warpAffine(source, centres[:2], size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    mask = np.zeros(size[::-1], np.uint8)
    points = np.round((outline - (left + 0.5, top + 0.5)) * 16).astype(np.int32)  # sixteenths of a pixel
    cv2.fillConvexPoly(mask, points, 255, shift=4)
    cv2.copyTo(warped, mask, out[top:bottom, left:right])
    return matrix.ravel().tolist()


def _shift(x: float, y: float) -> np.ndarray:
    """Translation (3, 3)."""
    return np.array([[1.0, 0.0, x], [0.0, 1.0, y], [0.0, 0.0, 1.0]])
