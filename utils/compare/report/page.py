"""The report on a comparison: report.html (one file, opens offline), report.md, results.csv."""

import csv
import io
from pathlib import Path
from typing import Any
from urllib.parse import quote

from utils.compare.folder import write_text
from utils.compare.report import tables, words
from utils.compare.report.batches import draw_first_batches
from utils.compare.report.curves import draw_curves, draw_gaps
from utils.compare.report.facts import Facts, RunFacts, read_facts
from utils.compare.report.markdown import markdown
from utils.compare.report.pairs import draw_differences, draw_scores
from utils.compare.report.words import command_line, duration, score
from utils.drawing.page import clean, render


def write_report(folder: Path) -> Path:
    """Write the three files into the folder of a comparison and return the path of report.html.

    What is missing or broken among the files of the runs is named in the report and never stops it.
    """
    facts = read_facts(folder)
    rows = io.StringIO()
    results = csv.writer(rows, lineterminator="\n")
    results.writerow(tables.RUN_COLUMNS)
    results.writerows(tables.run_row(run) for run in facts.runs)
    write_text(folder / "results.csv", rows.getvalue())
    write_text(folder / "report.md", markdown(facts))
    page = folder / "report.html"
    write_text(page, html(facts))
    return page


def html(facts: Facts) -> str:
    """The page, with every picture inside it."""
    return render(Path(__file__).with_name("page.html.jinja"), view(facts))


def view(facts: Facts) -> dict[str, Any]:
    """Everything that the template shows, as text, tables and pictures."""
    return {
        "facts": facts,
        "record": facts.record,
        "headlines": words.headlines(facts),
        "declared": words.declared_line(facts),
        "caveats": words.caveats(facts),
        "notes": words.notes(facts),
        "margin": words.margin_words(facts.margin),
        "differences": [p for arm in facts.arms[1:] if (p := draw_differences(facts, arm))],
        "scores": draw_scores(facts),
        "curves": draw_curves(facts),
        "gaps": draw_gaps(facts),
        "first_batches": draw_first_batches(facts),
        "tables": all_tables(facts),
        "runs": [run_view(run) for run in facts.runs],
        "command": command_line(facts.record.command),
    }


def all_tables(facts: Facts) -> dict[str, tables.Table | None]:
    """The tables by the name that the template gives them."""
    return {
        "arms": tables.arms_table(facts),
        "differences": tables.differences_table(facts),
        "secondary": tables.secondary_table(facts),
        "differs": tables.differs_table(facts),
        "shared": tables.shared_table(facts),
        "looks": tables.looks_table(facts),
        "fingerprint": tables.fingerprint_table(facts),
    }


def run_view(run: RunFacts) -> dict[str, Any]:
    """A row of the table of runs."""
    folder = str(run.line.folder or "")
    return {
        "arm": run.arm,
        "seed": run.seed,
        "status": run.status,
        "score": score(run.score),
        "time": duration(run.line.seconds),
        "device": run.line.device or words.NOTHING,
        "folder": clean(folder),
        "link": f"./{quote(folder)}/" if run.there else None,  # relative, whatever the name: the folder may move
        "message": clean(run.line.message) if run.line.message else None,
        "command": command_line(run.line.command),
        "exit": run.line.exit,
    }
