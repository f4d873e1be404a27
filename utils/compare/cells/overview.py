"""All comparisons of a project, and their reports drawn again: nothing is trained."""

import logging
from collections.abc import Sequence
from pathlib import Path

from utils.compare.arms import Compare
from utils.compare.cells.family import FAMILY, Family, read_family
from utils.compare.cells.words import answer_words
from utils.compare.folder import comparisons, read_record
from utils.compare.record import Record
from utils.compare.report.words import kind_words
from utils.config.words import parse_tokens
from utils.errors import UserError
from utils.run.console import configure_console

log = logging.getLogger(__name__)


def overview(argv: Sequence[str]) -> None:
    """--list [--project P], or --report-only FOLDER ...; UserError for words that belong to neither."""
    configure_console()
    words = [word for word in argv if word not in ("--list", "--report-only")]
    if "--list" in argv:
        given, _ = parse_tokens(words, {"project": Compare.model_fields["project"]})
        for line in listed(str(given.get("project", Compare.model_fields["project"].default))):
            log.info(line)
        return
    if not words or any(word.startswith("--") for word in words):
        raise UserError("--report-only needs folders of comparisons, and nothing else: runs/compare/exp. All: --list")
    for word in words:
        log.info(f"report: {draw_again(Path(word))}")


def listed(project: str) -> list[str]:
    """A line for each comparison of a project: folder, state, what was found; cells stand under their family."""
    families = {file.parent: read_family(file.parent) for file in sorted(Path(project).rglob(FAMILY))}
    rows = {folder: _of_record(record) for folder, record in comparisons(project)}
    rows |= {folder: _of_family(family) for folder, family in families.items() if family}
    if not rows:
        raise UserError(f"no comparison is kept in {project}. Give the --project that you gave when you compared.")
    width = max(len(str(folder)) for folder in rows)
    return [f"{str(folder):<{width}}  {rows[folder]}" for folder in sorted(rows)]


def _of_record(record: Record) -> str:
    ended = sum(run.ended for run in record.runs)
    margin = record.declared.margin if record.declared else 0.01
    verdicts = [
        f"{arm}: {kind_words(v.kind, margin)}" + ("" if v.mean is None else f" ({100 * v.mean:+.2f})")
        for arm, v in record.verdicts.items()
    ]
    return f"{ended}/{len(record.runs)} runs  {'; '.join(verdicts) or 'no verdict'}"


def _of_family(family: Family) -> str:
    """The answers in short; they stand in full in report.html."""
    margin = family.promise.margin
    answers = [f"{a.arm}, {a.question}: {answer_words(a, margin)}" for a in family.answers]
    return f"{len(family.cells)} cells  {'; '.join(answers) or 'no answer yet'}"


def draw_again(folder: Path) -> Path:
    """Write the report of a comparison, or those of a family and its cells, again; returns the path of report.html."""
    from utils.compare.cells.page import write_family_report  # matplotlib, and the reader of TensorBoard's events
    from utils.compare.report.page import write_report

    family = read_family(folder)
    if family is None and read_record(folder) is None:
        raise UserError(f"{folder} holds no comparison. All comparisons of a project: --list")
    if family is None:
        return write_report(folder)
    for cell in family.cells:
        write_report(folder / cell.name)
    return write_family_report(folder)
