"""What to do about what a dataset consists of: one line each, and only where it matters."""

from collections.abc import Sequence

import numpy as np

from data.duplicates import Copies
from data.report_counts import TINY, Counts
from data.report_text import leaks, share, some

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
        lines.append(
            f"remove the {len(groups):,} pictures from {one} or from {other}: scores on {other} are too good while it "
            f"shares pictures with {one}"
        )
    for a, b in (("train", "val"), ("val", "train"), ("test", "train")):
        if a in splits and b in splits:
            lines += _missing_classes(splits[a], splits[b], names, a, b)
    if "train" in splits:
        lines += _classes(splits["train"], names)
    for split, c in splits.items():
        lines += _pictures(split, c)
        lines += _boxes(split, c, imgsz)
    return lines


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


def _boxes(split: str, c: Counts, imgsz: int) -> list[str]:
    lines = []
    tiny, doubled = c.tiny(imgsz), c.tiny(2 * imgsz)
    if tiny > SMALL:
        lines.append(
            f"{tiny:.1%} of the boxes of {split} have a side below {TINY} px at imgsz {imgsz}, which a network of stride "
            f"{TINY} hardly sees; at imgsz {2 * imgsz} it would be {doubled:.1%}"
        )
    ratio = c.sizes.max(1) / c.sizes.min(1).clip(1e-9) if c.boxes else np.zeros(0)
    if (ratio > LONG).any():
        lines.append(
            f"{int((ratio > LONG).sum()):,} boxes of {split} are more than {LONG} times as long as wide: look at them"
        )
    return lines
