"""Matches and resampled scores against COCO's own numbers, and whether the interval holds what it promises."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

import val
from tests.helpers.runs import replaced, run_train
from tests.utils.evaluation.test_metrics import Columns, random_detections, random_index
from utils.evaluation.bootstrap import (
    RESAMPLES,
    Resamples,
    draws,
    interval_lines,
    keep_draws,
    mean_ap,
    read_draws,
    resample,
)
from utils.evaluation.coco import coco_results, coco_scores
from utils.evaluation.matches import THRESHOLDS, Matches, find_matches


def unresampled(matches: Matches) -> np.ndarray:
    """(10,) mean AP at each threshold."""
    return mean_ap(matches, np.ones((matches.pictures, 1)))[0]


@pytest.mark.parametrize("seed", range(8))
def test_the_score_of_the_matches_is_that_of_coco(seed):
    """Full of ties, crowds and empty pictures."""
    index = random_index(seed)
    detections = random_detections(index, seed)
    scores = coco_scores(index, coco_results(index, detections))
    matches = find_matches(index, detections, scores.counted)
    np.testing.assert_allclose(unresampled(matches).mean(), scores.metrics["val/mAP50-95"], atol=1e-9)
    np.testing.assert_allclose(unresampled(matches), np.nanmean(scores.ap, 1), atol=1e-9)
    assert resample(matches, resamples=1).value["mAP75"] == pytest.approx(scores.metrics["val/mAP75"], abs=1e-6)


@pytest.mark.parametrize("counted", [100, 1000])
def test_more_than_100_detections_of_a_class_in_a_picture(counted):
    index = random_index(1, pictures=2, nc=2)
    detections = random_detections(index, 1, per_box=30, noise=250)
    if counted == 100:
        expected = coco_scores(index, coco_results(index, detections)).metrics["val/mAP50-95"]
        assert unresampled(find_matches(index, detections, 100)).mean() == pytest.approx(expected, abs=1e-9)
    assert np.bincount(find_matches(index, detections, counted).picture).max() > 100


def test_nothing_found_is_zero_and_nothing_to_find_is_nan():
    index = random_index(0)
    assert (unresampled(find_matches(index, {})) == 0).all()
    bare = random_index(0, empty=True)
    found = resample(find_matches(bare, random_detections(bare, 0)), resamples=3)
    assert np.isnan(found.value["mAP50"]) and np.isnan(found.interval("mAP50")).all() and interval_lines(found) == []


def copied(index: Columns, detections: dict, counts: np.ndarray) -> tuple[Columns, dict]:
    """A data set in which each picture stands so many times, with ids of its own."""
    rows = np.repeat(np.arange(len(counts)), counts)
    boxes = np.concatenate([np.arange(index.offsets[r], index.offsets[r + 1]) for r in rows]).astype(int)
    sizes = np.diff(index.offsets)[rows]
    columns = {name: getattr(index, name)[boxes] for name in ("boxes", "classes", "crowd", "area")}
    columns |= {"shapes": index.shapes[rows], "image_ids": list(range(1, len(rows) + 1))}
    whole = replace(index, offsets=np.concatenate([[0], sizes.cumsum()]), **columns)
    return whole, {k: detections[r] for k, r in enumerate(rows)}


@pytest.mark.parametrize("seed", range(4))
def test_a_picture_drawn_three_times_counts_as_three_pictures(seed):
    index = random_index(seed)
    detections = random_detections(index, seed)
    for row, found in detections.items():  # without ties: their order is the only thing left open
        found[:, 4] -= np.linspace(0, 0.05, len(found)) + row * 1e-4
    matches = find_matches(index, detections)
    (weights,) = draws(matches.pictures, seed, 3)
    assert (weights[:, 0] == 1).all() and (weights.sum(0) == matches.pictures).all()
    ours = mean_ap(matches, weights.astype(float))
    for column in (1, 2, 3):
        whole, found = copied(index, detections, weights[:, column].astype(int))
        theirs = coco_scores(whole, coco_results(whole, found)).ap
        np.testing.assert_allclose(ours[column], np.nanmean(theirs, 1), atol=1e-9)


def plainly(matches: Matches, weights: np.ndarray) -> list[float]:
    """Mean AP at each threshold when pictures count as weights (pictures,) say, by COCO's definition, one by one."""
    each = []
    for t in range(10):
        ap = []
        for c in range(len(matches.starts) - 1):
            to_find = weights[matches.boxes[matches.box_starts[c] : matches.box_starts[c + 1]]].sum()
            rows = slice(matches.starts[c], matches.starts[c + 1])
            w, hit, ignored = weights[matches.picture[rows]], matches.hit[t, rows], matches.ignored[t, rows]
            true, seen = np.cumsum(w * hit), np.cumsum(w * ~ignored)
            recall, precision = true / max(to_find, 1), true / np.maximum(seen, 1)
            best = [precision[recall >= r].max(initial=0) for r in np.linspace(0, 1, 101)]
            ap += [np.mean(best)] if to_find else []
        each.append(np.mean(ap) if ap else np.nan)
    return each


@pytest.mark.parametrize(("seed", "hidden"), [(0, 0.0), (1, 0.2), (2, 0.05)])
def test_the_interval_is_that_of_a_plain_loop_to_the_digit(seed, hidden):
    """Hits at any thresholds, also with gaps between them, and detections that count neither way at some of them."""
    rng = np.random.default_rng(seed)
    matches = world(rng, 12)
    matches = replace(matches, hit=matches.hit ^ (rng.random(matches.hit.shape) < 0.1))
    matches = replace(matches, ignored=~matches.hit & (rng.random(matches.hit.shape) < hidden))
    fast = resample(matches, seed, 20)
    (weights,) = draws(12, seed, 20)
    slow = np.array([plainly(matches, column) for column in weights.T.astype(float)])
    np.testing.assert_allclose(fast.drawn["mAP50-95"], slow[1:].mean(1), atol=1e-6)
    plain = Resamples(12, {"mAP50-95": slow[0].mean()}, {"mAP50-95": slow[1:].mean(1)})
    np.testing.assert_allclose(fast.interval("mAP50-95"), plain.interval("mAP50-95"), atol=1e-6)


def test_draws_are_the_same_however_many_are_held_at_once(monkeypatch):
    (whole,) = draws(7, 0, 20)
    monkeypatch.setattr("utils.evaluation.bootstrap.CELLS", 30)
    parts = list(draws(7, 0, 20))
    assert len(parts) > 1
    np.testing.assert_array_equal(np.concatenate(parts, 1), whole)


def test_draws_are_kept_beside_a_run(tmp_path):
    index = random_index(0)
    found = resample(find_matches(index, random_detections(index, 0)), resamples=20)
    assert read_draws(tmp_path, "last", "mAP50") is None
    keep_draws(tmp_path, "last", found)
    keep_draws(tmp_path, "best", replace(found, pictures=3))
    drawn, pictures = read_draws(tmp_path, "last", "mAP50")
    np.testing.assert_allclose(drawn, found.drawn["mAP50"], atol=1e-7)
    assert pictures == 12 and read_draws(tmp_path, "best", "mAP75")[1] == 3
    (tmp_path / "bootstrap.npz").write_bytes(b"no zip")
    assert read_draws(tmp_path, "last", "mAP50") is None


def test_a_run_and_an_evaluation_tell_the_interval(toy_args, toy, tmp_path, capsys):
    folder = run_train(*replaced(toy_args, "--epochs", 1), project=tmp_path)
    trained = [line for line in capsys.readouterr().out.splitlines() if line.startswith("95 % interval")]
    words = ["--weights", folder, "--data", toy, "--noplots", "--device", "cpu", "--workers", 0, "--batch", 8]
    scores = val.main([*words, "--project", tmp_path / "val"])
    evaluated = [line for line in capsys.readouterr().out.splitlines() if line.startswith("95 % interval")]
    assert trained == evaluated and "over the 8 pictures: mAP50-95 0." in trained[0] and len(trained) == 1
    low, high = json.loads((tmp_path / "val/exp/metrics.json").read_text())["interval_95"]["val/mAP50-95"]
    assert 0 <= low <= scores["val/mAP50-95"] <= high
    assert f"mAP50-95 {low:.4f} to {high:.4f}" in trained[0]
    assert all(len(read_draws(folder, which, "mAP50-95")[0]) == RESAMPLES for which in ("last", "best"))


def test_a_wide_interval_is_a_warning():
    drawn = 0.5 + 0.01 * np.linspace(-2, 2, 101)
    narrow = Resamples(50, dict.fromkeys(("mAP50-95", "mAP50"), 0.5), dict.fromkeys(("mAP50-95", "mAP50"), drawn))
    assert len(interval_lines(narrow)) == 1
    wide = replace(narrow, drawn={name: 2 * drawn for name in narrow.drawn})
    assert "warning: the interval of mAP50-95 spans 7." in interval_lines(wide)[1]


def world(rng: np.random.Generator, pictures: int, nc: int = 3) -> Matches:
    """What a detector might find in pictures of which some are harder than others."""
    easy = rng.normal(0, 0.7, pictures)
    parts = []
    boxes = [np.repeat(np.arange(pictures), rng.poisson(3, pictures)) for _ in range(nc)]
    for c, owner in enumerate(boxes):
        owner = owner[rng.random(len(owner)) < 1 / (1 + np.exp(-1.2 - easy[owner]))]
        iou = rng.beta(6 + 2 * np.exp(easy[owner] / 2), 2)
        wrong = np.repeat(np.arange(pictures), rng.poisson(2 * np.exp(-easy / 2)))
        score = np.concatenate([rng.beta(4, 2, len(owner)), rng.beta(1.5, 4, len(wrong))])
        iou = np.concatenate([iou, np.zeros(len(wrong))])
        parts.append(np.stack([np.full(len(iou), c), -score, np.concatenate([owner, wrong]), iou]))
    rows = np.concatenate(parts, 1)
    rows = rows[:, np.lexsort(rows[[1, 0]])]
    return Matches(
        pictures=pictures,
        picture=rows[2].astype(np.int32),
        starts=np.searchsorted(rows[0], np.arange(nc + 1)),
        hit=rows[3] >= THRESHOLDS[:, None],
        ignored=np.zeros((10, rows.shape[1]), bool),
        boxes=np.concatenate(boxes).astype(np.int32),
        box_starts=np.concatenate([[0], np.cumsum([len(owner) for owner in boxes])]),
    )


@pytest.mark.slow
def test_the_interval_holds_the_score_of_other_pictures_95_times_in_100():
    """As far as 80 simulations can tell: two of their standard errors are 0.05."""
    rng = np.random.default_rng(0)
    expected = np.mean([unresampled(world(rng, 50)).mean() for _ in range(200)])
    ends = np.array([resample(world(rng, 50), resamples=150).interval("mAP50-95") for _ in range(80)])
    assert ((ends[:, 0] <= expected) & (expected <= ends[:, 1])).mean() >= 0.88


def test_the_matches_need_nothing_but_columns():
    index = random_index(2)
    plain = SimpleNamespace(**vars(index))
    detections = random_detections(index, 2)
    assert (find_matches(plain, detections).hit == find_matches(index, detections).hit).all()
