"""The report on a comparison as Markdown, for a pull request or a notebook: the facts without the pictures."""

import re
from collections.abc import Sequence

from utils.compare.report import tables
from utils.compare.report.facts import Facts
from utils.compare.report.words import caveats, command_line, declared_line, headlines, notes
from utils.drawing.page import Table, clean


def markdown(facts: Facts) -> str:
    """The whole text."""
    lines = [f"# {plain(facts.name)}: {plain(', '.join(facts.arms[1:]))} against {plain(facts.reference)}", ""]
    for head in headlines(facts):
        lines += [f"**{plain(head['headline'])}**", "", plain(head["sentence"]), ""]
        lines += [plain(head["plain"]), ""] if head["plain"] else []
    lines += bullets(caveats(facts))
    lines += [plain(declared_line(facts)), ""]
    lines += section("Scores", tables.arms_table(facts))
    lines += section("Differences", tables.differences_table(facts))
    lines += section("Secondary: no tests, no claims", tables.secondary_table(facts))
    lines += section("Runs", tables.runs_table(facts))
    for run in facts.runs:
        if run.line.message:
            lines += [
                f"Last lines of {plain(run.arm)}, {facts.record.pair(run.seed)}:",
                "",
                *fenced(run.line.message),
                "",
            ]
    lines += section("What differs between the arms", tables.differs_table(facts), "Nothing: the arms are equal.")
    lines += bullets(notes(facts))
    lines += section("Looks", tables.looks_table(facts))
    lines += section("Versions", tables.fingerprint_table(facts))
    lines += ["## Again", "", *fenced(command_line(facts.record.command)), ""]
    lines += ["The pictures are in report.html beside this file, every run in results.csv."]
    return "\n".join(lines) + "\n"


def section(title: str, table: Table | None, instead: str = "") -> list[str]:
    """A heading and a table; `instead` where the table has no rows, nothing where there is none."""
    if table is None or not (table.rows or instead):
        return []
    if not table.rows:
        return [f"## {title}", "", instead, ""]
    marks = ["---" if k < table.left else "---:" for k in range(len(table.head))]
    rows = [table.head, *table.rows]
    lines = ["| " + " | ".join(plain(cell) for cell in row) + " |" for row in rows]
    return [f"## {title}", "", lines[0], "| " + " | ".join(marks) + " |", *lines[1:], ""]


def bullets(texts: Sequence[str]) -> list[str]:
    """A list, and the empty line that ends it."""
    return [*(f"- {plain(text)}" for text in texts), ""] if texts else []


def plain(text: str) -> str:
    """Text on one line that Markdown shows as it is: no tag, link, picture or emphasis of a user's name."""
    return re.sub(r"([\\`*\[\]<|~$&]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))", r"\\\1", " ".join(clean(text).split()))


def fenced(text: str) -> list[str]:
    """Lines as they are, between fences longer than any in them."""
    text = clean(text)
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return [fence, *text.splitlines(), fence]
