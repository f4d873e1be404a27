"""errors.html: what is wrong with the detections, the worst pictures, and the labels to look at."""

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from utils.drawing.page import Picture, Table, render
from utils.drawing.sheet import picture_sheet
from utils.evaluation.diagnosis.counts import COLUMNS, FALSE, Counts, count, errors_csv, lines, suspicions_csv
from utils.evaluation.diagnosis.kinds import KINDS, MEANING, MISSED, Diagnosis, diagnose
from utils.evaluation.diagnosis.labels import OTHER_CLASS, SURE, UNLABELLED, UNSEEN, Suspicion, never_found, suspicions
from utils.evaluation.truth import truth_of

Read = Callable[[int], np.ndarray]  # row of the index -> uint8 RGB (h, w, 3) at any size
CELL = 420  # pixels of the long side of a picture on the page
AROUND = 0.5  # of a box's size, shown around it on either side
LOOK = {
    UNLABELLED: "The detector is sure of an object where no label is. Is a label missing?",
    OTHER_CLASS: "The detector is sure of another class than the label says. Is the label wrong?",
    UNSEEN: "No detection comes near this label, at any score{of}. Is it wrong, too small, or of something rare?",
}


def write_errors(
    folder: Path,
    index: Any,
    result: Any,
    read: Read,
    worst: int,
    title: str,
    others: Sequence[dict[int, np.ndarray]] = (),
) -> list[str]:
    """Write errors.html, errors.csv and labels-to-check.csv into the folder, and return lines for the console.

    result: an Evaluation of the pictures of the index. At most `worst` pictures are shown, and as many labels of each
    kind. others: detections of the detectors of other seeds; a label that one of them finds is not called never found.
    """
    judged = diagnose(index, result.detections, result.counted)
    counts = count(index, judged, float(result.f1.confidence[result.f1.best]))
    unseen = never_found(index, result.detections, *others)
    doubts = suspicions(index, result.detections, judged, unseen)
    (folder / "errors.csv").write_text(errors_csv(index, counts), encoding="utf-8")
    (folder / "labels-to-check.csv").write_text(suspicions_csv(index, doubts), encoding="utf-8")
    said = lines(judged, counts)
    if others:
        alone, n = int(never_found(index, result.detections).sum()), 1 + len(others)
        said.append(f"labels that it never finds: {alone}; that none of all {n} finds: {int(unseen.sum())}")
    shown = view(index, result.detections, judged, counts, doubts, read, worst, title, 1 + len(others))
    page = render(Path(__file__).with_name("errors.html.jinja"), {**shown, "sentences": said})
    (folder / "errors.html").write_text(page, encoding="utf-8")
    many = f"; {len(doubts)} labels to look at are in labels-to-check.csv" if doubts else ""
    return [*said, f"why: {folder / 'errors.html'}{many}"]


def view(
    index: Any,
    detections: dict[int, np.ndarray],
    judged: Diagnosis,
    counts: Counts,
    doubts: list[Suspicion],
    read: Read,
    worst: int,
    title: str,
    detectors: int = 1,
) -> Mapping[str, Any]:
    """What the template shows beside the sentences; detectors: how many have looked for labels that none finds."""
    of = f", of any of {detectors} detectors" if detectors > 1 else ""
    best = max(judged.gain, key=judged.gain.__getitem__)
    named = {what: [s for s in doubts if s.what == what] for what in LOOK}
    return {
        "name": title,
        "headline": headline(judged, best),
        "kinds": kinds_table(judged, counts),
        "classes": classes_table(index, counts),
        "threshold": f"{counts.threshold:.3f}",
        "pictures": [
            (picture_words(index, counts, row), draw(index, detections, row, counts.threshold, read))
            for row in counts.worst(worst)
        ],
        "wrong": int((counts.wrong > 0).sum()),
        "labels": [
            (
                what,
                LOOK[what].format(of=of),
                len(its),
                [(doubt_words(index, s), draw_doubt(s, read, index)) for s in its[:worst]],
            )
            for what, its in named.items()
            if its
        ],
        "sure": f"{SURE:g}",
        "by_any": f" by any of {detectors} detectors" if detectors > 1 else "",
    }


def headline(judged: Diagnosis, best: str) -> str:
    """The score, and what would raise it most."""
    if np.isnan(judged.mAP50):
        return "There is no box to find"
    if not judged.gain[best]:
        return f"mAP50 {judged.mAP50:.3f}: no kind of error stands out"
    return f"mAP50 {judged.mAP50:.3f}: most is lost by '{best}', {100 * judged.gain[best]:.1f} points"


def kinds_table(judged: Diagnosis, counts: Counts) -> Table:
    """A row for each kind."""
    total = dict(zip(COLUMNS, counts.total.tolist(), strict=True))
    rows = []
    for number, word in KINDS.items():
        whole = judged.missed.sum() if number == MISSED else (judged.kind == number).sum()
        at = "" if number == MISSED else str(total[word])
        rows.append([word, MEANING[word], f"{100 * judged.gain[word]:+.2f}", at, str(int(whole))])
    head = ("kind", "meaning", "mAP50 if mended, points", f"at score {counts.threshold:.3f}", "at any score")
    return Table("Errors by kind", head, rows, left=2)


def classes_table(index: Any, counts: Counts) -> Table:
    """A row for each class that is in the data or was claimed."""
    rows = [
        [str(name), *(str(n) for n in row)]
        for name, row in zip(index.names, counts.classes.tolist(), strict=True)
        if any(row)
    ]
    return Table(f"Each class, at score {counts.threshold:.3f}", ("class", *COLUMNS), rows)


def picture_words(index: Any, counts: Counts, row: int) -> str:
    """What is wrong in a picture."""
    numbers = dict(zip(COLUMNS, counts.pictures[row].tolist(), strict=True))
    wrong = [f"{numbers['misses']} missed"] if numbers["misses"] else []
    wrong += [f"{numbers[word]} {word}" for word in FALSE if numbers[word]]
    return f"{Path(index.paths[row]).name}: {numbers['hits']} found, {', '.join(wrong)}"


def draw(index: Any, detections: dict[int, np.ndarray], row: int, threshold: float, read: Read) -> Picture:
    """Truth beside what was found."""
    image = read(row)
    h, w = index.shapes[row].tolist()
    gain = np.tile([image.shape[1] / w, image.shape[0] / h], 2)
    truth, classes, _, _ = truth_of(index, row)
    found = detections.get(row, np.zeros((0, 6)))
    found = found[found[:, 4] >= threshold]
    planes = [image.transpose(2, 0, 1)] * 2
    boxes = [truth * gain, found[:, :4] * gain]
    sheet = picture_sheet(
        planes,
        boxes,
        [classes, found[:, 5]],
        index.names,
        [None, found[:, 4]],
        ["truth", "found"],
        columns=2,
        cell=CELL,
    )
    return as_jpeg(sheet, f"{Path(index.paths[row]).name}: truth on the left, found on the right")


def doubt_words(index: Any, s: Suspicion) -> str:
    """A label to look at in a line."""
    said = f"found {s.found} ({s.score:.2f})" if s.score is not None else ""
    label = f"labelled {s.label}" if s.label else ""
    return f"{Path(index.paths[s.row]).name}: {', '.join(part for part in (said, label) if part)}"


def draw_doubt(s: Suspicion, read: Read, index: Any) -> Picture:
    """The place with some of its surroundings."""
    image = read(s.row)
    h, w = index.shapes[s.row].tolist()
    gain = np.tile([image.shape[1] / w, image.shape[0] / h], 2)
    x1, y1, x2, y2 = np.array(s.box) * gain
    dx, dy = max(AROUND * (x2 - x1), 24), max(AROUND * (y2 - y1), 24)
    left, top = int(max(x1 - dx, 0)), int(max(y1 - dy, 0))
    part = image[top : int(y2 + dy) + 1, left : int(x2 + dx) + 1]
    box = np.array([[x1, y1, x2, y2]]) - (left, top, left, top)
    cls = index.names.index(s.found or s.label)
    scores = None if s.score is None else [np.array([s.score])]
    sheet = picture_sheet([part.transpose(2, 0, 1)], [box], [np.array([cls])], index.names, scores, cell=CELL // 2)
    return as_jpeg(sheet, doubt_words(index, s))


def as_jpeg(sheet: np.ndarray, alt: str) -> Picture:
    """A sheet (h, w, 3) as a picture of the page."""
    content = io.BytesIO()
    Image.fromarray(sheet).save(content, format="JPEG", quality=80)
    src = "data:image/jpeg;base64," + base64.b64encode(content.getvalue()).decode("ascii")
    return Picture(src, alt, sheet.shape[1] / 96)
