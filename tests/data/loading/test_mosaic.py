"""Boxes follow the pixels: coloured rectangles are mapped, found again by colour, and compared with their boxes."""

from types import SimpleNamespace

import numpy as np
import pytest

from data.loading.augment import flip_boxes, split_flipped
from data.loading.mosaic import compose, draw_centre, draw_geometry, place_four, place_one, still_useful
from utils.boxes import xywhn_to_xyxy, xyxy_to_xywhn
from utils.config.schema import Hyp

COLOURS = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0]])
IMGSZ = 160
STILL = {"scale": 0.0, "translate": 0.0}
KINDS = {
    "resize": {},
    "rotation": {"degrees": 30.0},
    "shear": {"shear": 15.0},
    "perspective": {"perspective": 0.001},
    "everything": {"degrees": 20.0, "shear": 8.0, "perspective": 0.0007},
}


def picture(k: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A dark picture with one rectangle of colour k, its box and class k."""
    h, w = [(120, 160), (160, 90), (160, 160), (110, 160)][k]
    x1, y1 = rng.integers(5, 30, 2)
    x2, y2 = x1 + rng.integers(30, w - 40), y1 + rng.integers(30, h - 40)
    img = np.full((h, w, 3), 20, np.uint8)
    img[y1:y2, x1:x2] = COLOURS[k]
    return img, xyxy_to_xywhn(np.array([[x1, y1, x2, y2]], float), w, h), np.array([k])


def composed(tiles, geometry) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The picture, boxes xyxy and classes; what the buffer held before must not show."""
    out = np.random.default_rng(0).integers(0, 256, (geometry.imgsz, geometry.imgsz, 3), dtype=np.uint8)
    return out, *compose(tiles, geometry, out)


def flipped(img: np.ndarray, flips: tuple[bool, bool]) -> np.ndarray:
    """The flipped BGR picture."""
    planes = np.empty((3, *img.shape[:2]), np.uint8)
    split_flipped(img, flips, planes)
    return planes[::-1].transpose(1, 2, 0)


def found(img: np.ndarray, k: int) -> np.ndarray | None:
    """Box xyxy of the pixels near colour k."""
    near = np.abs(img.astype(int) - COLOURS[k]).sum(2) < 230
    if not near.any():
        return None
    ys, xs = np.nonzero(near)
    return np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mosaic", [True, False])
@pytest.mark.parametrize("flips", [(False, False), (True, False), (False, True), (True, True)])
def test_boxes_follow_the_pixels(kind, mosaic, flips):
    hyp = Hyp(**KINDS[kind])
    checked = 0
    for seed in range(25):
        rng = np.random.default_rng(seed)
        pictures = [picture(k, rng) for k in range(4)]
        tiles = place_four(pictures, draw_centre(rng, IMGSZ), IMGSZ) if mosaic else place_one(*pictures[seed % 4])
        canvas = (2 * IMGSZ, 2 * IMGSZ) if mosaic else tiles[0].img.shape[:2]
        img, boxes, classes = composed(tiles, draw_geometry(rng, hyp, canvas, IMGSZ))
        img, boxes = flipped(img, flips), flip_boxes(boxes, flips, IMGSZ)
        # a rotated rectangle cut by the edge has an upright box larger than what is seen of it: only whole ones count
        inside = ((boxes > 1) & (boxes < IMGSZ - 1)).all(1) | (kind == "resize")
        whole = np.array([_uncut(tiles, int(k)) for k in classes], bool) | (kind == "resize")
        for box, k in zip(boxes[inside & whole], classes[inside & whole], strict=True):
            np.testing.assert_allclose(box, found(img, int(k)), atol=1.6, err_msg=f"seed {seed}, class {k}")
            checked += 1
    assert checked >= 5


def _uncut(tiles, k: int) -> bool:
    """Whether the canvas shows all of the rectangle of class k."""
    tile = next(t for t in tiles if t.classes[0] == k)
    x1, y1, x2, y2 = tile.region
    box = xywhn_to_xyxy(tile.boxes[0], *tile.img.shape[1::-1])
    return bool(box[0] >= x1 and box[1] >= y1 and box[2] <= x2 and box[3] <= y2)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_moves_when_nothing_is_drawn(kind):
    """Vanishing strengths, mosaic off: the picture itself on every path, pixel for pixel."""
    img, boxes, classes = picture(2, np.random.default_rng(0))
    strengths = Hyp(**STILL, **dict.fromkeys(KINDS[kind], 1e-12))
    geometry = draw_geometry(np.random.default_rng(1), strengths, img.shape[:2], IMGSZ)
    out, moved, _ = composed(place_one(img, boxes, classes), geometry)
    np.testing.assert_array_equal(out, img)
    np.testing.assert_allclose(moved, xywhn_to_xyxy(boxes, *img.shape[1::-1]), atol=1e-6)


@pytest.mark.parametrize("kind", ["rotation", "everything"])
def test_warp_and_resize_agree(kind):
    """A vanishing rotation takes the warp path: the same picture as the resize path, but for the seams."""
    pictures = [picture(k, np.random.default_rng(k)) for k in range(4)]
    tiles = place_four(pictures, (150, 170), IMGSZ)
    results = []
    for strength in ({}, dict.fromkeys(KINDS[kind], 1e-7)):
        hyp = Hyp(**strength)
        results.append(composed(tiles, draw_geometry(np.random.default_rng(5), hyp, (2 * IMGSZ, 2 * IMGSZ), IMGSZ)))
    (a, boxes_a, _), (b, boxes_b, _) = results
    np.testing.assert_allclose(boxes_a, boxes_b, atol=1.0)
    assert np.abs(a.astype(int) - b).mean() < 3


def test_tiles_meet_without_a_gap():
    """Where four white pictures meet no fill shows, whatever the geometry."""
    white = np.full((IMGSZ, IMGSZ, 3), 255, np.uint8), np.zeros((0, 4)), np.zeros(0, int)
    for seed in range(40):
        rng = np.random.default_rng(seed)
        hyp = Hyp(scale=0.4, **(KINDS["everything"] if seed % 2 else {}))
        tiles = place_four([white] * 4, (IMGSZ, IMGSZ), IMGSZ)
        geometry = draw_geometry(rng, hyp, (2 * IMGSZ, 2 * IMGSZ), IMGSZ)
        out, _, _ = composed(tiles, geometry)
        x, y, z = geometry.matrix @ (IMGSZ, IMGSZ, 1)
        x, y = int(x / z), int(y / z)
        around = out[max(y - 20, 0) : y + 20, max(x - 20, 0) : x + 20]
        assert around.size and (around == 255).all(), seed


def test_extreme_perspective_stays_finite():
    strong = SimpleNamespace(scale=0.0, translate=0.0, degrees=0.0, shear=0.0, perspective=0.1)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        tiles = place_four([picture(k, rng) for k in range(4)], draw_centre(rng, IMGSZ), IMGSZ)
        out, boxes, _ = composed(tiles, draw_geometry(rng, strong, (2 * IMGSZ, 2 * IMGSZ), IMGSZ))
        assert np.isfinite(boxes).all() and out.shape == (IMGSZ, IMGSZ, 3)


def test_filter_matches_ultralytics():
    from ultralytics.data.augment import RandomPerspective

    rng = np.random.default_rng(0)
    corner, size = rng.uniform(0, 80, (500, 2)), rng.exponential(20, (500, 2))
    before = np.concatenate([corner, corner + size], 1)
    after = before.clip(10, 70)
    theirs = RandomPerspective.box_candidates(before.T, after.T, area_thr=0.1)
    np.testing.assert_array_equal(still_useful(before, after), theirs)


def test_more_of_one_strength_leaves_the_other_draws_alone():
    a = draw_geometry(np.random.default_rng(3), Hyp(), (320, 320), 160)
    b = draw_geometry(np.random.default_rng(3), Hyp(degrees=10), (320, 320), 160)
    assert a.scale == b.scale and a.axis_aligned and not b.axis_aligned
