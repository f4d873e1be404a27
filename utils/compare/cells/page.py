"""The report over all cells: report.html (one file, opens offline), report.md, results.csv."""

import csv
import io
from pathlib import Path
from typing import Any
from urllib.parse import quote

from utils.compare.cells.declare import DECLARATION
from utils.compare.cells.family import Answer, Family, read_family
from utils.compare.cells.pictures import draw_forest, draw_sweep
from utils.compare.cells.words import answer_words
from utils.compare.folder import write_text
from utils.compare.report import tables, words
from utils.compare.report.facts import Facts, read_facts
from utils.compare.report.markdown import bullets, fenced, plain, section
from utils.compare.report.pairs import draw_differences, draw_scores
from utils.drawing.page import Table, render
from utils.errors import UserError


def write_family_report(folder: Path) -> Path:
    """Write the three files into the folder of a comparison over several cells and return the path of report.html."""
    family = read_family(folder)
    if family is None:
        raise UserError(
            f"{folder} holds no comparison over several cells: cells.json is missing or cannot be understood."
        )
    facts = {cell.name: read_facts(folder / cell.name) for cell in family.cells}
    rows = io.StringIO()
    results = csv.writer(rows, lineterminator="\n")
    results.writerow(("cell", "group", "value", *tables.RUN_COLUMNS))
    for cell in family.cells:
        own = (cell.name, cell.group, "" if cell.value is None else cell.value)
        for run in facts[cell.name].runs:
            results.writerow((*own, *tables.run_row(run)))
    write_text(folder / "results.csv", rows.getvalue())
    write_text(folder / "report.md", markdown(folder, family, facts))
    page = folder / "report.html"
    write_text(page, html(folder, family, facts))
    return page


def html(folder: Path, family: Family, facts: dict[str, Facts]) -> str:
    """The page, with every picture inside it."""
    first = facts[family.cells[0].name]
    arms = first.arms
    view = {
        "name": folder.resolve().name,
        "family": family,
        "arms": arms,
        "reference": family.promise.reference,
        "headlines": headlines(family, arms),
        "declared": declared_line(family),
        "caveats": caveats(family, facts),
        "sweeps": [(g, p) for g in family.groups if family.key and (p := draw_sweep(family, facts, g))],
        "forests": [p for told in family.answers if (p := draw_forest(family, told, arms.index(told.arm)))],
        "effects": [effects_table(family, told) for told in family.answers if told.effects],
        "scores": scores_table(family, facts),
        "cells": [cell_view(name, its) for name, its in facts.items()],
        "declaration": declaration_text(folder),
        "command": words.command_line(family.command),
    }
    return render(Path(__file__).with_name("cells.html.jinja"), view)


def headlines(family: Family, arms: list[str]) -> list[dict[str, str]]:
    """For each answer: kind (for its colour), headline, sentence; what is missing where there is none yet."""
    if not family.answers:
        who = f"{', '.join(arms[1:])} against {family.promise.reference}"
        sentence = "The answer over all cells is given once, when every run has ended: cells and seeds were declared."
        return [{"kind": "none", "headline": f"{who}: no answer yet", "sentence": sentence}]
    return [{"kind": a.kind, "headline": headline(family, a), "sentence": a.sentence} for a in family.answers]


def headline(family: Family, told: Answer) -> str:
    """An answer without its numbers."""
    asked = {"score": "", "best": f", each at its best {family.key}", "range": f", usable range of {family.key}"}
    kind = answer_words(told, family.promise.margin)
    return f"{told.arm} against {family.promise.reference}{asked[told.question]}: {kind}"


def declared_line(family: Family) -> str:
    """What was fixed before the first run."""
    p = family.promise
    swept = f", within {words.margin_words(p.within)} of the best a value is usable" if family.key else ""
    dealt = (
        f" (a pair is a fold: train and val of each data set together in {p.folds}, each val once; intervals and p "
        "inside a cell are corrected for the training pictures that folds share, Nadeau and Bengio 2003)"
        if p.folds
        else ""
    )
    return (
        f"Declared before: {p.metric} of the EMA weights after the last epoch, margin {words.margin_words(p.margin)}, "
        f"{p.seeds} pairs in each of {len(family.cells)} cells{dealt}{swept}; what decides over data sets and weights "
        "is the mean of their differences, all with the same weight. The verdict of a cell is at 5 % for itself: of "
        "twenty cells without any effect one claims something."
    )


def caveats(family: Family, facts: dict[str, Facts]) -> list[str]:
    """What keeps the comparison from being whole, cell by cell."""
    return [f"{name}: {line}" if name else line for name, its in facts.items() for line in words.caveats(its)]


def effects_table(family: Family, told: Answer) -> Table:
    """The effect in every group, then over all."""
    scale = 100 if told.unit == "points" else 1

    def cells(mean: float | None, low: float | None, high: float | None) -> list[str]:
        return [words.NOTHING if v is None else f"{scale * v:+.2f}" for v in (mean, low, high)]

    rows = [
        [e.group or "all", *cells(e.mean, e.low, e.high), "" if e.sd is None else f"{scale * e.sd:.2f}", str(e.pairs)]
        for e in told.effects
    ]
    if told.pooled:
        p = told.pooled
        rows.append(["mean of all", *cells(p.mean, p.low, p.high), "", ""])
        rows.append(["a new data set", *cells(p.mean, p.new_low, p.new_high), "", ""])
        rows.append(["sd between them", "" if p.tau is None else f"{scale * p.tau:.2f}", "", "", "", ""])
    head = ("data set and weights", f"difference, {told.unit}", "95 % from", "to", "sd of a pair", "pairs")
    return Table(headline(family, told), head, rows)


def scores_table(family: Family, facts: dict[str, Facts]) -> Table:
    """Mean score of every arm in every cell, and what pairing bought."""
    arms = next(iter(facts.values())).arms
    rows = []
    for name, its in facts.items():
        means = []
        for arm in arms:
            scores = [run.counted for run in its.of(arm) if run.counted is not None]
            means.append(words.score(sum(scores) / len(scores)) if scores else words.NOTHING)
        kinds = ", ".join(words.kind_words(v.kind, its.margin) for v in its.record.verdicts.values()) or words.NOTHING
        rows.append([name, *means, kinds])
    return Table(
        f"{family.promise.metric}, mean over the {family.promise.pairs}", ("cell", *arms, "verdict of the cell"), rows
    )


def cell_view(name: str, facts: Facts) -> dict[str, Any]:
    """A cell, folded."""
    return {
        "name": name,
        "headline": "; ".join(head["headline"] for head in words.headlines(facts)),
        "sentences": [head["sentence"] for head in words.headlines(facts)],
        "differences": [p for arm in facts.arms[1:] if (p := draw_differences(facts, arm))],
        "scores": draw_scores(facts),
        "arms": tables.arms_table(facts),
        "link": f"./{quote(name)}/report.html",
    }


def declaration_text(folder: Path) -> str:
    """declaration.yaml as it stands in the folder; empty where it is missing."""
    try:
        return words.clean((folder / DECLARATION).read_text(encoding="utf-8"))
    except OSError:
        return ""


def markdown(folder: Path, family: Family, facts: dict[str, Facts]) -> str:
    """The same for a pull request: the facts without the pictures."""
    arms = next(iter(facts.values())).arms
    lines = [f"# {plain(folder.resolve().name)}: {plain(', '.join(arms[1:]))} against {plain(arms[0])}", ""]
    for head in headlines(family, arms):
        lines += [f"**{plain(head['headline'])}**", "", plain(head["sentence"]), ""]
    lines += bullets(caveats(family, facts))
    lines += [plain(declared_line(family)), ""]
    for told in family.answers:
        lines += section(headline(family, told), effects_table(family, told) if told.effects else None)
    lines += section("Scores", scores_table(family, facts))
    for name, its in facts.items():
        lines += [f"## {plain(name)}", "", *(plain(head["sentence"]) for head in words.headlines(its)), ""]
    lines += ["## Declared", "", *fenced(declaration_text(folder)), ""]
    lines += ["## Again", "", *fenced(words.command_line(family.command)), ""]
    lines += ["The pictures are in report.html beside this file, every run in results.csv."]
    return "\n".join(lines) + "\n"
