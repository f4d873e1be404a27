"""What to do about what a dataset consists of: one line each, and only where it matters."""

from collections.abc import Sequence

import numpy as np

from data.index.copies import Copies
from data.report.counts import TINY, Counts
from data.report.text import leaks, share, some

UNEVEN = 10  # times as many boxes of one class as of another
RARE = 10  # boxes of a class in train
EMPTY = 0.3  # share of backgrounds
SMALL = 0.05  # share of tiny boxes
LONG = 30  # one side of a box this many times the other


def advice(splits: dict[str, Counts], names: Sequence[str], copies: Copies, imgsz: int) -> list[str]:
    """Lines of advice on the splits that could be read."""
    lines = []
    for a, b, groups in leaks(copies):
        one, other = copies.splits[a], copies.splits[b]
        if len(groups) == splits[one].pictures == splits[other].pictures:
            lines.append(f"{other} is {one}: its scores say nothing about other pictures. Keep some out of {one}")
            continue
        lines.append(
            f"remove the {len(groups):,} shared pictures from {one} or from {other}: while {one} holds them, scores on "
            f"{other} are too good"
        )
    for a, b in (("train", "val"), ("val", "train"), ("test", "train")):
        if a in splits and b in splits:
            lines += _missing_classes(splits[a], splits[b], names, a, b)
    if "train" in splits:
        lines += _classes(splits["train"], names)
    for split, c in splits.items():
        lines += _pictures(split, c)
    return [*lines, *_boxes(splits, imgsz)]


def _missing_classes(here: Counts, there: Counts, names: Sequence[str], split: str, other: str) -> list[str]:
    """Classes of a split that the other lacks."""
    lost = [names[k] for k in np.flatnonzero((here.class_boxes > 0) & (there.class_boxes == 0))]
    if not lost:
        return []
    why = "the model cannot learn them" if other == "train" else "how well they are learned is not measured"
    return [f"{some(lost)}: in {split}, but not in {other}; {why}. Move pictures with them from one to the other"]


def _classes(train: Counts, names: Sequence[str]) -> list[str]:
    there = np.flatnonzero(train.class_boxes)
    boxes = train.class_boxes[there]
    lines = []
    if len(boxes) > 1 and boxes.max() >= UNEVEN * boxes.min():
        most, least = names[there[boxes.argmax()]], names[there[boxes.argmin()]]
        lines.append(
            f"classes are uneven ('{most}' : '{least}' = {boxes.max() / boxes.min():,.3g} : 1): try balance=0.5, which "
            "shows pictures with rare classes more often"
        )
    rare = [names[k] for k in there[boxes < RARE]]
    if rare:
        lines.append(f"fewer than {RARE} boxes in train: {some(rare)}. Label more of them, or expect little")
    return lines


def _pictures(split: str, c: Counts) -> list[str]:
    lines = []
    if c.unlabelled > EMPTY * c.pictures:
        lines.append(
            f"{share(c.unlabelled, c.pictures)} of {split} have no label file and count as background. If objects are "
            "on them, their labels are missing or lie elsewhere"
        )
    elif c.backgrounds > EMPTY * c.pictures:
        lines.append(
            f"{share(c.backgrounds, c.pictures)} of {split} are background. Ten percent are plenty; more make an epoch "
            "longer and teach little"
        )
    return lines


def _boxes(splits: dict[str, Counts], imgsz: int) -> list[str]:
    lines = []
    tiny = {split: c.tiny(imgsz) for split, c in splits.items()}
    if max(tiny.values()) > SMALL:
        doubled = max(c.tiny(2 * imgsz) for c in splits.values())
        lines.append(
            f"boxes with a side below {TINY} px at imgsz {imgsz}, which a network of stride {TINY} hardly sees: "
            f"{', '.join(f'{t:.1%} of {split}' for split, t in tiny.items())}. At imgsz {2 * imgsz} it is {doubled:.1%}"
        )
    for split, c in splits.items():
        long = int((c.sizes.max(1, initial=0) > LONG * c.sizes.min(1, initial=np.inf)).sum())
        if long:
            lines.append(f"{long:,} boxes of {split} have one side more than {LONG} times the other: look at them")
    return lines
