"""val.py --errors: the kinds of TIDE against a second writing of its definition, and the labels that look wrong."""

from collections import Counter
from html.parser import HTMLParser

import numpy as np
import pytest

from tests.utils.evaluation.test_metrics import random_detections, random_index
from utils.evaluation.coco import coco_results, coco_scores
from utils.evaluation.diagnosis.counts import COLUMNS, count
from utils.evaluation.diagnosis.kinds import KINDS, TRUE, diagnose
from utils.evaluation.diagnosis.labels import OTHER_CLASS, UNLABELLED, UNSEEN, never_found, suspicions
from utils.evaluation.diagnosis.page import write_errors
from utils.evaluation.evaluate import score
from utils.evaluation.truth import truth_of

SEEDS = range(12)


def scattered(index, seed):
    """Detections with scores that are all different: TIDE says nothing about ties."""
    detections = random_detections(index, seed, per_box=2.5)
    rng = np.random.default_rng(seed)
    total = sum(len(found) for found in detections.values())
    scores = iter(rng.permutation(np.arange(1, total + 1)) / (total + 1))
    for row, found in detections.items():
        wrong = rng.random(len(found)) < 0.3
        found[wrong, 5] = rng.integers(0, len(index.names), wrong.sum())
        found[:, 4] = [next(scores) for _ in found]
        detections[row] = found[np.argsort(-found[:, 4])]
    return detections


def iou_of(a, b):
    """Of two boxes, by their corners."""
    w = min(a[2], b[2]) - max(a[0], b[0])
    h = min(a[3], b[3]) - max(a[1], b[1])
    inter = max(w, 0) * max(h, 0)
    return inter / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter)


def tide(index, detections):
    """TIDE box by box, after the paper: kinds {(row, place): word}, missed boxes, mAP50, and its gains."""
    kinds, target, boxes = {}, {}, {}
    hits = set()
    for row, found in detections.items():
        truth, classes, _, _ = truth_of(index, row)
        boxes[row] = classes
        taken = {}
        for place, d in enumerate(found):  # by falling score
            free = [(iou_of(d, t), j) for j, t in enumerate(truth) if classes[j] == d[5] and j not in taken]
            if free and max(free)[0] >= 0.5:
                taken[max(free)[1]] = place
                kinds[row, place] = "hit"
        hits |= {(row, j) for j in taken}
        for place, d in enumerate(found):
            if (row, place) in kinds:
                continue
            own = max(((iou_of(d, t), j) for j, t in enumerate(truth) if classes[j] == d[5]), default=(0, None))
            other = max(((iou_of(d, t), j) for j, t in enumerate(truth) if classes[j] != d[5]), default=(0, None))
            if 0.1 <= own[0] <= 0.5:
                kinds[row, place], target[row, place] = "place", (row, own[1])
            elif other[0] >= 0.5:
                kinds[row, place], target[row, place] = "class", (row, other[1])
            elif own[0] >= 0.5:
                kinds[row, place] = "duplicate"
            elif max(own[0], other[0]) <= 0.1:
                kinds[row, place] = "background"
            else:
                kinds[row, place] = "both"
    best = {}
    for at, box in target.items():
        if box not in hits and (
            box not in best or detections[at[0]][at[1]][4] > detections[best[box][0]][best[box][1]][4]
        ):
            best[box] = at
    everything = {(row, j) for row, classes in boxes.items() for j in range(len(classes))}
    missed = everything - hits - set(best)

    def mean_ap(mend=None):
        asked = Counter(int(boxes[row][j]) for row, j in everything)
        left = asked - Counter(int(boxes[row][j]) for row, j in missed) if mend == "missed" else asked
        listed = []
        for at, word in kinds.items():
            d = detections[at[0]][at[1]]
            if word == "hit":
                listed.append((d[4], int(d[5]), True))
            elif word != mend:
                listed.append((d[4], int(d[5]), False))
            elif at in best.values():
                row, j = target[at]
                listed.append((d[4], int(boxes[row][j]), True))
        return float(np.mean([ap(sorted((s, ok) for s, c, ok in listed if c == cls), left[cls]) for cls in asked]))

    words = list(KINDS.values())
    whole = mean_ap()
    return kinds, missed, whole, {word: max(mean_ap(word) - whole, 0) for word in words}


def ap(rising, boxes):
    """101-point AP of (score, hit) pairs by rising score."""
    if not boxes:
        return 0.0
    points, true = [], 0
    for n, (_, ok) in enumerate(reversed(rising), 1):
        true += ok
        points.append((true / boxes, true / n))
    return float(np.mean([max((p for r, p in points if r >= at), default=0) for at in np.linspace(0, 1, 101)]))


@pytest.mark.parametrize("seed", SEEDS)
def test_kinds_and_gains_are_those_of_tide(seed):
    index = random_index(seed, pictures=8, crowds=False)
    detections = scattered(index, seed)
    judged = diagnose(index, detections)
    kinds, missed, whole, gain = tide(index, detections)
    words = {TRUE: "hit"} | KINDS
    ours = {(int(r), int(p)): words[int(k)] for r, p, k in zip(judged.row, judged.place, judged.kind, strict=True)}
    assert ours == kinds
    assert set(np.flatnonzero(judged.missed)) == {int(index.offsets[row]) + j for row, j in missed}
    assert judged.mAP50 == pytest.approx(whole, abs=1e-12)
    assert judged.gain == pytest.approx(gain, abs=1e-12)


def test_the_random_data_has_every_kind():
    seen = set()
    for seed in SEEDS:
        index = random_index(seed, pictures=8, crowds=False)
        judged = diagnose(index, scattered(index, seed))
        seen |= set(judged.kind.tolist()) | ({6} if judged.missed.any() else set())
    assert seen == {TRUE, *KINDS}


@pytest.mark.parametrize("seed", range(6))
def test_the_score_that_is_explained_is_cocos(seed):
    index = random_index(seed)  # with crowds, and most scores tied
    detections = random_detections(index, seed)
    scores = coco_scores(index, coco_results(index, detections))
    assert diagnose(index, detections).mAP50 == pytest.approx(scores.metrics["val/mAP50"], abs=1e-9)


def test_perfect_detections_have_no_error_and_no_suspicious_label():
    index = random_index(3, crowds=False)
    detections = {}
    for row in range(len(index.image_ids)):
        truth, classes, _, _ = truth_of(index, row)
        detections[row] = np.column_stack([truth, np.full(len(truth), 0.9), classes])
    judged = diagnose(index, detections)
    assert judged.mAP50 == pytest.approx(1) and not any(judged.gain.values()) and not judged.missed.any()
    assert not suspicions(index, detections, judged, never_found(index, detections))
    counts = count(index, judged, 0.5)
    assert dict(zip(COLUMNS, counts.total, strict=True))["hits"] == len(index.boxes) and not counts.wrong.any()


@pytest.mark.parametrize("seed", range(4))
def test_each_picture_counts_its_boxes_once(seed):
    index = random_index(seed)
    judged = diagnose(index, random_detections(index, seed))
    counts = count(index, judged, 0.4)
    boxes = np.add.reduceat(np.append(~index.crowd, False), index.offsets[:-1]) * (np.diff(index.offsets) > 0)
    assert (counts.pictures[:, 0] + counts.pictures[:, 1] == boxes).all()
    assert (counts.pictures.sum(0) == counts.classes.sum(0)).all()
    shown = np.bincount(judged.row[judged.score >= 0.4], minlength=len(index.image_ids))
    assert (counts.pictures[:, [0, *range(2, 7)]].sum(1) == shown).all()


def test_a_label_taken_away_and_one_renamed_are_found():
    index = random_index(5, pictures=20, nc=3, crowds=False)
    detections = {}
    for row in range(len(index.image_ids)):  # a detector that knows what was true
        truth, classes, _, _ = truth_of(index, row)
        detections[row] = np.column_stack([truth, np.full(len(truth), 0.9), classes])
    renamed = int(np.flatnonzero(index.classes == 0)[0])
    index.classes[renamed] = 1
    blank = int(np.flatnonzero(np.diff(index.offsets) > 0)[-1])  # a picture whose labels nobody drew
    detections[blank][:, :4] += 10_000
    judged = diagnose(index, detections)
    doubts = suspicions(index, detections, judged, never_found(index, detections))
    assert [(s.found, s.label) for s in doubts if s.what == OTHER_CLASS] == [("class 0", "class 1")]
    boxes = int(np.diff(index.offsets)[blank])
    assert Counter(s.what for s in doubts if s.row == blank) == {UNLABELLED: boxes, UNSEEN: boxes}
    other = {row: found.copy() for row, found in detections.items()}
    other[blank][:, :4] -= 10_000  # another seed has found them
    assert not never_found(index, detections, other).any()


class Page(HTMLParser):
    """The pictures and the text of a page."""

    def __init__(self):
        super().__init__()
        self.pictures, self.text = [], ""

    def handle_starttag(self, tag, attrs):
        if tag == "img":
            self.pictures.append(dict(attrs)["src"])
        assert tag not in ("script", "link")

    def handle_data(self, data):
        self.text += data


def test_the_page_shows_the_worst_pictures_and_loads_nothing(tmp_path):
    index = random_index(1, crowds=False)
    index.names[0] = "<b>$odd_{name}"
    index.paths = [f"/somewhere/picture {row}.jpg" for row in range(len(index.image_ids))]
    detections = random_detections(index, 1)
    result = score(index, detections, {})
    grey = lambda row: np.full((40, 50, 3), 127, np.uint8)  # noqa: E731  (smaller than the picture)
    said = write_errors(tmp_path, index, result, grey, 3, "a & b")
    page = Page()
    page.feed((tmp_path / "errors.html").read_text(encoding="utf-8"))
    assert all(src.startswith("data:image/jpeg;base64,") for src in page.pictures)
    judged = diagnose(index, detections)
    counts = count(index, judged, float(result.f1.confidence[result.f1.best]))
    names = [f"picture {row}.jpg" for row in counts.worst(3)]
    assert all(name in page.text for name in names) and "a & b" in page.text and "<b>$odd_{name}" in page.text
    rows = (tmp_path / "errors.csv").read_text().splitlines()
    assert rows[0] == ",".join(("picture", *COLUMNS)) and len(rows) == 1 + len(index.paths)
    assert str(counts.total[0]) in said[0] and "errors.html" in said[-1]
