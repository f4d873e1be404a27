"""Problems of a split as a whole: one cause behind many rows, and pictures that share a label file."""

from collections.abc import Sequence

import numpy as np

from data.formats.rows import Problem


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
