"""Problems of a split as a whole: one cause behind many rows, and pictures that share a label file."""

import os
from collections.abc import Sequence

import numpy as np

from data.formats.rows import Problem
from data.sources.share import Share


def shared_labels(pictures: Sequence[str], labels: Sequence[str]) -> list[Problem]:
    """Pictures with one stem (a.jpg and a.png) read the same label file, which fits at most one of them."""
    if len(set(labels)) == len(labels):
        return []
    first: dict[str, str] = {}
    problems = []
    for picture, label in zip(pictures, labels, strict=True):
        other = first.setdefault(label, picture)
        if other is not picture:
            message = f"{other} has the same label file, {label}: both use it. Rename one picture and its label."
            problems.append(Problem(picture, None, message, "file"))
    return problems


NO_LABELS = {  # files that tools write beside labels
    "_darknet.labels", "classes", "labels", "license", "notes", "obj", "predefined_classes", "readme", "readme.dataset",
    "readme.roboflow", "test", "train", "trainval", "val", "valid",
}  # fmt: skip


def unused_labels(pictures: Sequence[str], labels: Sequence[str]) -> list[Problem]:
    """Label files that no picture reads, a problem a folder: of no picture's name, named .TXT, beside the pictures."""
    problems = []
    folders = {(os.path.dirname(p), os.path.dirname(x)) for p, x in zip(pictures, labels, strict=True)}
    for pictures_in, labels_in in sorted(folders):
        there = _names(pictures_in)
        stems = {os.path.splitext(name)[0] for name in there if not name.lower().endswith(".txt")}
        texts = [name for name in _names(labels_in) if name.lower().endswith(".txt")]
        lost = [n for n in texts if n.endswith(".txt") and n[:-4] not in stems and n[:-4].lower() not in NO_LABELS]
        upper = [name for name in texts if not name.endswith(".txt") and name[:-4] in stems]
        beside = []
        if labels_in != pictures_in:
            known = set(texts)
            names = [name for name in there if name.lower().endswith(".txt")]
            beside = [name for name in names if name[:-4] in stems and name not in known]
        for found, folder, why in (
            (lost, labels_in, "belong to no picture of this name; they are not used. Rename pictures or labels"),
            (upper, labels_in, "are named in capitals; they are not used. Rename them to .txt"),
            (beside, pictures_in, f"lie beside the pictures; they are not used. Move them to {labels_in}"),
        ):
            if found:
                text = f"{len(found)} label files {why}. The first is {min(found)}."
                problems.append(Problem(folder, None, text, "file"))
    return problems


def _names(folder: str) -> list[str]:
    """Names in a folder; none where it cannot be read."""
    try:
        return os.listdir(folder)
    except OSError:
        return []


def all_background(group: np.ndarray, offsets: np.ndarray, shares: Sequence[Share]) -> list[Problem]:
    """A problem for each share (of pictures (n,) by group) that has no box at all, where it stands beside others."""
    used = np.bincount(group, minlength=len(shares))
    boxes = np.bincount(group, np.diff(offsets[: len(group) + 1]), len(shares))
    text = "none of its {} pictures here has a box of the classes: as background they teach that there is nothing."
    return [
        Problem(share.name, None, text.format(n), "cause")
        for share, n, found in zip(shares, used.tolist(), boxes.tolist(), strict=True)
        if n and not found
    ]


def counted_from_one(classes: np.ndarray, problems: Sequence[Problem], names: Sequence[str]) -> Problem | None:
    """Ids that all start at 1: class nc occurs, where the rows were refused, and class 0 never does."""
    nc = len(names)
    if (classes == 0).any():
        return None
    refused = [p for p in problems if p.kind == "past_last"]
    if not refused:
        return None
    return Problem(
        refused[0].path,
        refused[0].line,
        f"class {nc} occurs ({len(refused)} rows left out) and class 0 ('{names[0]}') never does: the ids seem to "
        f"count from 1. If so, every box has a wrong class: subtract 1 from every id in the labels, or put a first "
        f"name in front of 'names'.",
        "cause",
    )


FEWEST, SHARE, OTHERS = (
    3,
    0.1,
    0.05,
)  # rows that reach outside, at least; their share; at most of rows that are no corners


def written_as_corners(boxes: np.ndarray, problems: Sequence[Problem], upper_left: bool) -> Problem | None:
    """Corners x1 y1 x2 y2 in place of boxes: all rows have x2 > x1 and y2 > y1, and many reach outside as a box.

    boxes: (m, 4) xywhn as they were read, clipped ones among them. upper_left: the format wants x and y of the upper
    left corner, as COCO does, else of the centre.
    """
    kinds = [problem.kind for problem in problems]
    found, n = kinds.count("corners"), len(boxes) + kinds.count("row") + kinds.count("corners")
    if found < max(FEWEST, SHARE * n):
        return None
    low, high = boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2
    first = low if upper_left else boxes[:, :2]
    clipped = (low < 1e-4).any(1) | (high > 1 - 1e-4).any(1)
    others = int((~(boxes[:, 2:] > first).all(1) & ~clipped).sum()) + kinds.count("row")
    if others > OTHERS * n:
        return None
    problem = problems[kinds.index("corners")]
    way = (
        "[x1, y1, x2 - x1, y2 - y1]" if upper_left else "x = (x1 + x2) / 2, y = (y1 + y2) / 2, w = x2 - x1, h = y2 - y1"
    )
    pixels = "" if upper_left else ", as shares of the picture's width and height"
    text = (
        f"the {n} boxes seem to be written as corners, x1 y1 x2 y2: the last two numbers are larger than the "
        f"first two, and {found} reach outside the picture as this format reads them. If so, every box is wrong: "
        f"write {way}{pixels}."
    )
    return Problem(problem.path, problem.line, text, "cause")
