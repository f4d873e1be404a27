"""A report on a dataset as files, whole, and as lines for the console, shortened where it is long."""

from pathlib import Path

from data.index.copies import Copies
from data.index.index import Index
from data.report.advice import advice
from data.report.counts import Counts
from data.report.text import class_table, copies_lines, overview

SHOWN = 20  # problems on the console
CLASSES = 100  # rows of the table of classes on the console


def write_report(
    folder: Path,
    title: str,
    indexes: dict[str, Index],
    counts: dict[str, Counts],
    copies: Copies,
    problems: list[str],
    imgsz: int,
    everything: bool,
) -> list[str]:
    """Write report.txt, problems.txt and duplicates.txt; returns the lines for the console."""
    names = next(iter(indexes.values())).names
    paths = {split: index.paths for split, index in indexes.items()}
    head = [f"{title}: {len(names)} classes", "", *overview(counts, imgsz), ""]
    todo = [f"advice: {line}" for line in advice(counts, names, copies, imgsz)]
    middle = ["", *(copies_lines(copies, paths) or ["no picture is there twice"]), *([""] if todo else []), *todo, ""]
    found = [f"{len(problems):,} problems:" if problems else "no problems with pictures or labels"]
    _write(folder / "report.txt", [*head, *class_table(counts, names, None), *middle, *found, *problems])
    _write(folder / "problems.txt", problems)
    _write(folder / "duplicates.txt", _groups(copies, paths))
    shown = problems if everything else problems[:SHOWN]
    more = len(problems) - len(shown)
    found += [*shown, *([f"... and {more:,} more: {folder / 'problems.txt'} has all"] if more else [])]
    return [*head, *class_table(counts, names, None if everything else CLASSES), *middle, *found, ""]


def _groups(copies: Copies, paths: dict) -> list[str]:
    """A line 'split path' for each picture that is there more than once, an empty line after each group."""
    lines = []
    for low, high in zip(copies.offsets[:-1].tolist(), copies.offsets[1:].tolist(), strict=True):
        pairs = zip(copies.split[low:high].tolist(), copies.row[low:high].tolist(), strict=True)
        lines += [*(f"{copies.splits[s]} {paths[copies.splits[s]][row]}" for s, row in pairs), ""]
    return lines


def _write(file: Path, lines: list[str]) -> None:
    """Lines as UTF-8 (bytes of a path that are none are kept); no lines, no file."""
    if not lines:
        file.unlink(missing_ok=True)  # of an earlier report, with --exist-ok
        return
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", errors="surrogateescape")
