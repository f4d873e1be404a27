"""Letterbox against ultralytics', and the way back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ultralytics.data.augment import LetterBox

from data.pictures.letterbox import letterbox, letterbox_geometry, long_side_shape

SIDE = st.integers(1, 500)


@pytest.mark.parametrize("hw", [(48, 64), (64, 48), (31, 97), (200, 133), (1, 300), (64, 64)])
@pytest.mark.parametrize("shape", [(64, 64), (96, 64), (65, 97)])
@pytest.mark.parametrize("scaleup", [True, False])
def test_same_picture_as_ultralytics(hw, shape, scaleup):
    img = np.random.default_rng(0).integers(0, 256, (*hw, 3), dtype=np.uint8)
    ours, _ = letterbox(img, shape, scaleup)
    np.testing.assert_array_equal(ours, LetterBox(shape, scaleup=scaleup)(image=img))


@given(SIDE, SIDE, SIDE, SIDE, st.booleans())
def test_picture_fits_and_boxes_come_back(h, w, out_h, out_w, scaleup):
    box = letterbox_geometry((h, w), (out_h, out_w), scaleup)
    assert 0 <= box.pad_left <= out_w - box.new_w and 0 <= box.pad_top <= out_h - box.new_h
    boxes = np.array([[0, 0, w, h], [w * 0.2, h * 0.3, w * 0.7, h * 0.9]])
    np.testing.assert_allclose(box.undo(box.apply(boxes), clip_to=(h, w)), boxes, atol=1e-9 * max(h, w))
    placed = [box.pad_left, box.pad_top, box.pad_left + box.new_w, box.pad_top + box.new_h]
    np.testing.assert_allclose(box.apply(boxes)[0], placed)  # the whole picture maps to where it was placed


def test_undo_clips_to_the_picture():
    box = letterbox_geometry((100, 200), (64, 64))
    np.testing.assert_allclose(box.undo(np.array([[-9.0, -9, 99, 99]]), clip_to=(100, 200)), [[0, 0, 200, 100]])


def test_long_side_is_imgsz():
    assert long_side_shape((480, 640), 224) == (168, 224)
    assert long_side_shape((640, 480), 320) == (320, 240)
    assert long_side_shape((1, 3000), 64) == (1, 64)
    assert long_side_shape((64, 50), 64) == (64, 50)
