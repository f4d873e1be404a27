"""Colour against ultralytics, flips, blending, and the `albumentations:` list."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ultralytics.data.augment import RandomHSV

from data.loading.augment import (
    PixelTransforms,
    blend,
    change_colour,
    colour_matrix,
    draw_flips,
    draw_gains,
    flip_boxes,
    multiply,
    split_flipped,
    through_hsv,
)
from utils.config.schema import Hyp
from utils.errors import UserError

IMG = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


def work() -> tuple[np.ndarray, np.ndarray]:
    """Room for intermediate pictures, full of other things."""
    return np.full_like(IMG, 77), np.full((3, *IMG.shape[:2]), 78, np.uint8)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("gains", [(0.015, 0.7, 0.4), (0.5, 1.0, 1.0), (0.0, 0.0, 0.3)])
def test_hsv_is_that_of_ultralytics(seed, gains):
    h, s, v = gains
    np.random.seed(seed)
    theirs = RandomHSV(h, s, v).apply_image({"img": IMG.copy()})["img"]
    ours = change_colour(
        IMG.copy(), work(), draw_gains(np.random.RandomState(seed), Hyp(hsv_h=h, hsv_s=s, hsv_v=v)), "exact"
    )
    np.testing.assert_array_equal(ours, theirs)


def test_hsv_of_zero_changes_nothing():
    ours = change_colour(
        IMG.copy(), work(), draw_gains(np.random.default_rng(0), Hyp(hsv_h=0, hsv_s=0, hsv_v=0)), "exact"
    )
    np.testing.assert_array_equal(ours, IMG)


@given(factor=st.floats(0, 2))
def test_levels_are_multiplied_as_by_a_table(factor):
    """The quick way and the table agree at every level, also where a product is nearly a whole number."""
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    plane = levels.copy()
    multiply(plane, factor)
    np.testing.assert_array_equal(plane, np.clip(levels * factor, 0, 255).astype(np.uint8))


@pytest.mark.parametrize("gains", [(0.1, 0.0, 0.0), (-0.1, 0.0, 0.0), (0.0, 0.0, 0.3)])
def test_colour_matrix_goes_the_way_of_hsv(gains):
    """It is nearer to the way through HSV than the untouched picture is, and far nearer than its opposite."""
    calm = (IMG // 3 + 80).astype(np.uint8)  # nothing is cut off at 255
    exact = through_hsv(calm.copy(), work(), *gains).astype(float)
    wrong = [-gain for gain in gains]
    there, still, back = (
        np.abs(np.einsum("ij,hwj->hwi", matrix, calm.astype(float)) - exact).mean()
        for matrix in (colour_matrix(*gains), np.eye(3), colour_matrix(*wrong))
    )
    assert there < 0.8 * still and there < 0.5 * back


def test_colour_matrix_keeps_grey_and_stretches_colour():
    np.testing.assert_allclose(colour_matrix(0.3, 0.5, 0.0) @ [1, 1, 1], [1, 1, 1])
    np.testing.assert_allclose(colour_matrix(0.0, 0.5, 0.0) @ [1, -1, 0], [1.5, -1.5, 0])
    np.testing.assert_allclose(colour_matrix(0.0, 0.0, 0.0), np.eye(3), atol=1e-12)
    hyp = Hyp(hsv_mode="matrix", hsv_h=0.0, hsv_s=0.0, hsv_v=0.5)
    gain = 1 + np.random.default_rng(3).uniform(-1, 1, 3)[2] * 0.5
    ours = change_colour(IMG.copy(), work(), draw_gains(np.random.default_rng(3), hyp), hyp.hsv_mode)
    np.testing.assert_allclose(ours, np.clip(IMG * gain, 0, 255), atol=0.51)


@pytest.mark.parametrize("flips", [(False, False), (False, True), (True, False), (True, True)])
def test_flips_match_numpy(flips):
    planes = np.empty((3, *IMG.shape[:2]), np.uint8)
    split_flipped(IMG, flips, planes)
    up, left = (slice(None, None, -1 if flip else 1) for flip in flips)
    np.testing.assert_array_equal(planes, IMG[up, left, ::-1].transpose(2, 0, 1))
    boxes = np.array([[3.0, 5, 20, 30]])
    moved = flip_boxes(boxes, flips, 40)
    np.testing.assert_allclose(moved[0, [0, 2]], [20, 37] if flips[1] else [3, 20])
    np.testing.assert_allclose(moved[0, [1, 3]], [10, 35] if flips[0] else [5, 30])
    np.testing.assert_allclose(flip_boxes(moved, flips, 40), boxes)


def test_flips_come_as_often_as_asked():
    drawn = np.array([draw_flips(np.random.default_rng(k), Hyp(flipud=0.2, fliplr=0.5)) for k in range(2000)])
    np.testing.assert_allclose(drawn.mean(0), [0.2, 0.5], atol=0.04)


def test_blend_lies_between():
    low, high = np.minimum(IMG, 255 - IMG), np.maximum(IMG, 255 - IMG)
    out = IMG.copy()
    blend(out, 255 - IMG, np.random.default_rng(0))
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
