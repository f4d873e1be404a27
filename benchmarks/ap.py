"""Seconds from detections to COCO AP, by each library in turn: python benchmarks/ap.py --pictures 5000 --detections 100

The pictures are random, as many boxes in each as COCO has on the average; a third of the detections are true boxes,
shifted. `all scores` is what evaluation does with them after the last picture: AP, precision and recall at the best
F1, and the confusion matrix. The metrics of both libraries have to be the same to 1e-9. The bootstrap over pictures
comes once, at the end of a run.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import numpy as np

from utils.evaluation import coco
from utils.evaluation.bootstrap import RESAMPLES, resample
from utils.evaluation.evaluate import score
from utils.evaluation.matches import find_matches
from utils.evaluation.truth import truth_of

CLASSES, BOXES = 80, 7.3  # COCO's; boxes a picture


def random_truth(pictures: int, rng: np.random.Generator) -> Any:
    """The columns of an index; class k is as frequent as 1 / (k + 1)."""
    counts = rng.poisson(BOXES, pictures)
    size = rng.uniform(0.02, 0.5, (counts.sum(), 2))
    boxes = np.concatenate((rng.uniform(size / 2, 1 - size / 2), size), 1).astype(np.float32)  # xywhn
    shapes = rng.integers(400, 640, (pictures, 2)).astype(np.int32)
    return SimpleNamespace(
        shapes=shapes, boxes=boxes, classes=rng.choice(CLASSES, len(boxes), p=often()).astype(np.int32),
        crowd=rng.random(len(boxes)) < 0.01, area=0.6 * (size * np.repeat(shapes[:, ::-1], counts, 0)).prod(1),
        offsets=np.concatenate(([0], counts.cumsum())), names=[f"class {c}" for c in range(CLASSES)],
        image_ids=rng.permutation(pictures) + 1, category_ids=list(range(1, CLASSES + 1)),
    )  # fmt: skip


def often() -> np.ndarray:
    """Probability of each class."""
    p = 1 / np.arange(1, CLASSES + 1)
    return p / p.sum()


def random_detections(truth: Any, each: int, rng: np.random.Generator) -> dict[int, np.ndarray]:
    """`each` detections (each, 6) a picture, xyxy, score, class: true boxes, shifted, and inventions."""
    detections = {}
    for row, (h, w) in enumerate(truth.shapes):
        boxes, classes, _, _ = truth_of(truth, row)
        n = each // 3 if len(boxes) else 0
        again = rng.integers(0, max(len(boxes), 1), n)
        size = np.tile(boxes[again, 2:] - boxes[again, :2], 2)
        invented = np.sort(rng.uniform(0, (w, h), (each - n, 2, 2)), axis=1).reshape(-1, 4)
        found = np.concatenate((boxes[again] + rng.normal(0, 0.08, (n, 4)) * size, invented))
        cls = np.concatenate((classes[again], rng.choice(CLASSES, each - n, p=often())))
        sure = np.concatenate((rng.beta(3, 2, n), rng.beta(1, 10, each - n)))
        rows = np.concatenate((found, sure[:, None], cls[:, None]), 1)
        detections[row] = rows[np.argsort(-sure, kind="stable")]
    return detections


def timed(function: Callable[[], Any], first_user: int) -> tuple[float, float, Any]:
    """Wall and CPU seconds of a function, and its answer; `first_user` chooses the library."""
    coco._first_user = first_user
    wall, cpu = time.perf_counter(), time.process_time()
    answer = function()
    return time.perf_counter() - wall, time.process_time() - cpu, answer


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=5000)
    parser.add_argument("--detections", type=int, default=100, help="in each picture")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    truth = random_truth(args.pictures, rng)
    found = random_detections(truth, args.detections, rng)
    libraries = {"ultrafast-pycocotools": 0, "faster-coco-eval": os.getpid() + 1}
    parts = {
        "AP": lambda: coco.coco_scores(truth, coco.coco_results(truth, found)).metrics,
        "all scores": lambda: score(truth, found, {}).metrics,
    }
    print(f"{args.pictures} pictures, {args.detections} detections each, medians of {args.rounds} in turns\n")
    print("| part | library | wall seconds | CPU seconds |\n| --- | --- | --- | --- |")
    for part, function in parts.items():
        rounds = [[timed(function, user) for user in libraries.values()] for _ in range(args.rounds)]
        for name, times in zip(libraries, zip(*rounds, strict=True), strict=True):
            wall, cpu = (statistics.median(t[k] for t in times) for k in (0, 1))
            print(f"| {part} | {name} | {wall:.2f} | {cpu:.2f} |", flush=True)
        for ours, theirs in ((row[0][2], row[1][2]) for row in rounds):
            assert all(abs(ours[key] - theirs[key]) < 1e-9 for key in ours), (ours, theirs)
    counted = score(truth, found, {}).counted
    times = [timed(lambda: resample(find_matches(truth, found, counted)), 0) for _ in range(args.rounds)]
    wall, cpu = (statistics.median(t[k] for t in times) for k in (0, 1))
    print(f"| intervals: bootstrap of {RESAMPLES} draws | ours | {wall:.2f} | {cpu:.2f} |")


if __name__ == "__main__":
    main()
