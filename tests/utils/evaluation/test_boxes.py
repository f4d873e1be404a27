"""Boxes against torchvision, and round trips."""

import numpy as np
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st

from utils.boxes import area, clip_xyxy, pairwise_iou, xywhn_to_xyxy, xyxy_to_xywhn


def random_boxes(n: int, seed: int) -> torch.Tensor:
    """n xyxy boxes in a picture of 100 x 100 pixels."""
    corners = torch.rand(n, 2, 2, generator=torch.Generator().manual_seed(seed)) * 100
    return torch.cat([corners.amin(1), corners.amax(1)], 1)


def test_iou_matches_torchvision():
    a, b = random_boxes(7, seed=0), random_boxes(5, seed=1)
    torch.testing.assert_close(pairwise_iou(a, b), torchvision.ops.box_iou(a, b))


def test_iou_of_empty_boxes_is_zero():
    assert pairwise_iou(torch.zeros(1, 4), torch.zeros(1, 4)).item() == 0


def test_area_matches_torchvision_and_is_zero_inside_out():
    boxes = random_boxes(9, seed=2)
    torch.testing.assert_close(area(boxes), torchvision.ops.box_area(boxes))
    assert area(np.array([[5.0, 5, 2, 9]])) == 0


@given(st.integers(1, 2000), st.integers(1, 2000), st.integers(0, 99))
def test_fractions_to_pixels_and_back(w, h, seed):
    boxes = np.random.default_rng(seed).uniform(0.1, 0.9, (5, 4))
    np.testing.assert_allclose(xyxy_to_xywhn(xywhn_to_xyxy(boxes, w, h), w, h), boxes, rtol=1e-9)


def test_numpy_and_torch_agree():
    boxes = np.random.default_rng(0).uniform(0, 1, (6, 4))
    ours = xywhn_to_xyxy(boxes, 640, 480, padw=3, padh=7)
    np.testing.assert_array_equal(ours, xywhn_to_xyxy(torch.from_numpy(boxes), 640, 480, 3, 7).numpy())
    np.testing.assert_array_equal(clip_xyxy(ours, 100, 50), clip_xyxy(torch.from_numpy(ours), 100, 50).numpy())


def test_clip_matches_torchvision():
    boxes = random_boxes(9, seed=3) * 1.5 - 20
    torch.testing.assert_close(clip_xyxy(boxes, 80, 60), torchvision.ops.clip_boxes_to_image(boxes, (60, 80)))
