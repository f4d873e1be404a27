"""Colour against ultralytics, flips, blending, and the `albumentations:` list."""

import numpy as np
import pytest
from ultralytics.data.augment import RandomHSV

from data.augment import PixelTransforms, blend, change_hsv, draw_flips, flip
from utils.config import Hyp
from utils.errors import UserError

IMG = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("gains", [(0.015, 0.7, 0.4), (0.5, 1.0, 1.0), (0.0, 0.0, 0.3)])
def test_hsv_is_that_of_ultralytics(seed, gains):
    h, s, v = gains
    np.random.seed(seed)
    theirs = RandomHSV(h, s, v).apply_image({"img": IMG.copy()})["img"]
    ours = change_hsv(IMG.copy(), np.random.RandomState(seed), Hyp(hsv_h=h, hsv_s=s, hsv_v=v))
    np.testing.assert_array_equal(ours, theirs)


def test_hsv_of_zero_changes_nothing():
    ours = change_hsv(IMG.copy(), np.random.default_rng(0), Hyp(hsv_h=0, hsv_s=0, hsv_v=0))
    np.testing.assert_array_equal(ours, IMG)


@pytest.mark.parametrize("flips", [(False, True), (True, False), (True, True)])
def test_flipping_twice_is_nothing(flips):
    boxes = np.array([[3.0, 5, 20, 30]])
    img, moved = flip(*flip(IMG, boxes, flips), flips)
    np.testing.assert_array_equal(img, IMG)
    np.testing.assert_allclose(moved, boxes)


def test_flip_matches_numpy():
    up, _ = flip(IMG, np.zeros((0, 4)), (True, False))
    left, _ = flip(IMG, np.zeros((0, 4)), (False, True))
    np.testing.assert_array_equal(up, IMG[::-1])
    np.testing.assert_array_equal(left, IMG[:, ::-1])


def test_flips_come_as_often_as_asked():
    drawn = np.array([draw_flips(np.random.default_rng(k), Hyp(flipud=0.2, fliplr=0.5)) for k in range(2000)])
    np.testing.assert_allclose(drawn.mean(0), [0.2, 0.5], atol=0.04)


def test_blend_lies_between():
    low, high = np.minimum(IMG, 255 - IMG), np.maximum(IMG, 255 - IMG)
    out = blend(IMG, 255 - IMG, np.random.default_rng(0))
    assert (out >= low).all() and (out <= high).all() and (out[high > low + 2] != IMG[high > low + 2]).all()


def test_pixel_transforms_repeat_by_seed():
    specs = [{"name": "GaussNoise", "p": 1.0}, {"name": "GaussianBlur", "p": 0.5, "blur_limit": [3, 5]}]
    transforms = PixelTransforms(specs)
    first = [transforms(IMG, seed) for seed in (1, 2)]
    again = [PixelTransforms(specs)(IMG, seed) for seed in (2, 1)][::-1]
    np.testing.assert_array_equal(first, again)
    assert (first[0] != first[1]).any()


def test_pixel_transforms_see_rgb():
    """Grey by the weights of red, green and blue, in that order: a pure red BGR picture becomes 76."""
    red = np.zeros((8, 8, 3), np.uint8)
    red[..., 2] = 255
    grey = PixelTransforms([{"name": "ToGray", "p": 1.0}])(red, 0)
    assert abs(int(grey[0, 0, 0]) - 76) <= 1


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"name": "GaussianBlurr"}, "Did you mean 'GaussianBlur'"),
        ({"name": "HorizontalFlip"}, "boxes would not follow"),
        ({"name": "Compose"}, "no transform 'Compose'"),
        ({"name": "GaussianBlur", "p": 3}, "GaussianBlur does not accept"),
        ({"name": "GaussianBlur", "blur_limits": 3}, "Did you mean 'blur_limit'"),
        ({"p": 0.1}, "has no name"),
    ],
)
def test_wrong_transforms_are_refused(spec, words):
    with pytest.raises(UserError, match=words):
        PixelTransforms([spec])
