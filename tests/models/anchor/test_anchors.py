"""Anchors: their fit by its definition, and a search that finds better ones."""

import numpy as np
import pytest
import torch

from models.anchor.anchors import better_anchors, fit_of, fitness, settle_anchors
from tests.models.anchor.test_anchor import tiny
from utils.config.schema import Hyp
from utils.errors import UserError


def boxes(seed: int = 0) -> np.ndarray:
    """Widths and heights (200, 2) in two heaps, far from the anchors of the tiny network."""
    g = np.random.default_rng(seed)
    return np.concatenate([g.normal((6, 300), (0.5, 20), (100, 2)), g.normal((250, 9), (20, 0.7), (100, 2))])


def test_fit_counts_the_anchors_that_are_to_find_a_box():
    """The rule of the loss: no side differs by a factor of anchor_t or more."""
    wh, anchors = np.array([[10, 10], [39, 10], [41, 10], [10, 2.4], [100, 100]]), np.array([[[10, 10], [30, 30]]])
    near = [[max(w / a, a / w, h / b, b / h) < 4 for a, b in anchors[0]] for w, h in wh]
    recall, each = fit_of(wh, anchors, 4.0)
    assert recall == pytest.approx(np.mean([any(row) for row in near]))
    assert each == pytest.approx(np.mean([sum(row) for row in near]))


def test_search_finds_anchors_that_suit_the_boxes():
    model, wh = tiny(), boxes()
    old = model.model[-1].pixels.double().numpy()
    new = better_anchors(wh, old, 4.0, seed=0)
    assert new.shape == old.shape and fit_of(wh, old, 4.0)[0] == 0 and fit_of(wh, new, 4.0)[0] == 1
    assert fitness(wh, new, 4.0) > 0.85
    areas = new.prod(2).ravel()
    assert (np.diff(areas) >= 0).all(), "small ones for the fine level"
    assert np.array_equal(new, better_anchors(wh, old, 4.0, seed=0))


def test_anchors_are_replaced_only_where_that_is_asked_for_and_better():
    wh, model = boxes(), tiny()
    before = model.model[-1].pixels.clone()
    lines = settle_anchors(model, wh, Hyp())
    assert "recall 0.0000" in lines[0] and "--autoanchor" in lines[0]
    assert torch.equal(model.model[-1].pixels, before)
    lines = settle_anchors(model, wh, Hyp(autoanchor=True))
    after = model.model[-1].pixels
    assert "recall 1.0000" in lines[1] and not torch.equal(after, before)
    listed = torch.tensor(model.yaml["anchors"]).view_as(after)
    torch.testing.assert_close(listed, after, rtol=0, atol=1e-3)
    assert "stay" in settle_anchors(model, after.numpy().reshape(-1, 2), Hyp(autoanchor=True))[0]


def test_without_anchors_there_are_none_to_replace():
    assert settle_anchors(torch.nn.Identity(), boxes(), Hyp()) == []
    with pytest.raises(UserError, match="no anchors"):
        settle_anchors(torch.nn.Identity(), boxes(), Hyp(autoanchor=True))
