"""The numbers of a dataset as lines of text: a column for each split."""

from collections.abc import Callable, Sequence

import numpy as np

from data.index.copies import Copies
from data.report.counts import TINY, Counts

NAME = 40  # letters of a class name that are shown
FEW = 3  # copies that are named on the console


def overview(splits: dict[str, Counts], imgsz: int) -> list[str]:
    """Pictures, boxes and their sizes."""
    rows = [["", *splits]]

    def add(title: str, value: Callable[[Counts], object], always: bool = True) -> None:
        values = [value(c) for c in splits.values()]
        if always or any(values):
            rows.append([title, *(f"{v:,}" if isinstance(v, int) else str(v) for v in values)])

    add("pictures", lambda c: c.pictures)
    add("  of them in an epoch", lambda c: c.per_epoch, always=False)
    add("  left out: cannot be used", lambda c: c.left_out, always=False)
    add("  backgrounds: without a box", lambda c: c.backgrounds)
    add("    without a label file too", lambda c: c.unlabelled, always=False)
    add("boxes", lambda c: c.boxes)
    add("  crowds, ignored in training", lambda c: c.crowds, always=False)
    add("boxes per picture, median", lambda c: f"{np.median(c.per_picture):g}")
    add("  most", lambda c: int(c.per_picture.max()))
    for title, at in (("picture size, smallest", 0.0), ("  median", 0.5), ("  largest", 1.0)):
        add(title, lambda c, at=at: _size(c.shapes, at))
    add(f"  long side above {2 * imgsz}", lambda c: c.larger_than(2 * imgsz))
    for at, where in ((None, ""), (imgsz, f" at imgsz {imgsz}")):
        for k, title in enumerate((f"boxes{where}, small (below 32x32 px)", "  medium", "  large (from 96x96 px)")):
            add(title, lambda c, at=at, k=k: share(c.by_area(at)[k], c.boxes))
    add(f"  with a side below {TINY} px", lambda c: f"{c.tiny(imgsz):.1%}")
    for title, at in (("box width : height, 1st percentile", 0.01), ("  99th percentile", 0.99)):
        add(title, lambda c, at=at: _aspect(c, at))
    return table(rows)


def class_table(splits: dict[str, Counts], names: Sequence[str], most: int | None) -> list[str]:
    """Boxes, their share and pictures of each class; of more than `most` classes the most and least frequent."""
    rows = [["class", *(f"{split} {word}" for split in splits for word in ("boxes", "share", "pictures"))]]
    total = sum(c.class_boxes for c in splits.values())
    shown: Sequence[int] = range(len(names))
    if most is not None and len(names) > most:
        order = np.argsort(-total, kind="stable")
        shown = [*order[: most // 2], *order[-(most // 2) :]]
    for k in shown:
        cells = [
            [f"{c.class_boxes[k]:,}", share(c.class_boxes[k], c.boxes), f"{c.class_pictures[k]:,}"]
            for c in splits.values()
        ]
        rows.append([shorten(names[k], NAME), *(cell for group in cells for cell in group)])
    lines = table(rows)
    if len(shown) < len(names):
        lines.append(f"({len(shown)} of {len(names)} classes, the most and the least frequent; report.txt has all)")
    for split, c in splits.items():
        there = c.class_boxes[c.class_boxes > 0]
        if len(there) > 1:
            most_name, least_name = (names[k] for k in (c.class_boxes.argmax(), _rarest(c.class_boxes)))
            ratio = there.max() / there.min()
            lines.append(f"{split}: {ratio:,.3g} times as many boxes of '{most_name}' as of '{least_name}'")
        absent = [names[k] for k in np.flatnonzero(c.class_boxes == 0)]
        if absent:
            lines.append(f"{split}: no box of {some(absent)} ({len(absent)} of {len(names)} classes)")
    return lines


def copies_lines(copies: Copies, paths: dict[str, Sequence[str]]) -> list[str]:
    """Pictures that two splits share (leaks), then those that a split has more than once."""
    counts, lines = copies.counts(), []
    for a, b, groups in leaks(copies):
        lines.append(f"LEAK: {len(groups):,} pictures of {copies.splits[a]} are in {copies.splits[b]} too")
        for g in groups[:FEW]:
            first, second = (paths[copies.splits[s]][copies.first(g, s)] for s in (a, b))
            lines.append(f"  {first} is {second}" if first != second else f"  {first}, the same file")
    for s, split in enumerate(copies.splits):
        twice = np.flatnonzero(counts[:, s] > 1)
        if len(twice):
            extra = int((counts[twice, s] - 1).sum())
            lines.append(f"{split}: {extra:,} pictures are copies of others in {split}")
            for g in twice[:FEW]:
                lines.append(f"  {' is '.join(paths[split][copies.first(g, s, k)] for k in (0, 1))}")
    return lines


def leaks(copies: Copies) -> list[tuple[int, int, np.ndarray]]:
    """Pairs of splits, by number, that share pictures, and the groups of those."""
    there = copies.counts() > 0
    pairs = [(a, b) for a in range(there.shape[1]) for b in range(a + 1, there.shape[1])]
    found = [(a, b, np.flatnonzero(there[:, a] & there[:, b])) for a, b in pairs]
    return [(a, b, groups) for a, b, groups in found if len(groups)]


def table(rows: list[list[str]]) -> list[str]:
    """Lines with the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join([f"{row[0]:<{widths[0]}}", *(f"{t:>{w}}" for t, w in zip(row[1:], widths[1:], strict=True))]).rstrip()
        for row in rows
    ]


def share(part: float, whole: float) -> str:
    """A part in percent, or a dash where there is no whole."""
    return f"{part / whole:.1%}" if whole else "-"


def shorten(name: str, most: int) -> str:
    """A name of at most so many letters: the middle goes, for long names often differ at the end."""
    tail = most // 2 - 1
    return name if len(name) <= most else f"{name[: most - 1 - tail]}…{name[-tail:]}"


def some(names: Sequence[str]) -> str:
    """The first names of a list, and how many more there are."""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(f"'{shorten(name, NAME)}'" for name in names[:5]) + more


def _rarest(boxes: np.ndarray) -> int:
    """The class with the fewest boxes among those that have any."""
    return int(np.where(boxes > 0, boxes, boxes.max() + 1).argmin())


def _size(shapes: np.ndarray, at: float) -> str:
    """Width x height of the picture at a quantile of the number of pixels."""
    pixels = shapes[:, 0].astype(np.int64) * shapes[:, 1]
    k = round(at * (len(pixels) - 1))
    h, w = shapes[np.argpartition(pixels, k)[k]]
    return f"{w}x{h}"


def _aspect(c: Counts, at: float) -> str:
    """Width : height of the box at a quantile."""
    return f"{np.quantile(c.sizes[:, 0] / c.sizes[:, 1].clip(1e-9), at):.2f}" if c.boxes else "-"
