"""The record of a comparison over several cells: cells.json in its folder, and which folder that is."""

import json
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from utils.compare.cells.declare import Asked
from utils.compare.folder import first_fit, occupied, read_record, unlike, write_text
from utils.compare.record import Part, Record
from utils.errors import UserError

log = logging.getLogger(__name__)
FORMAT = 1  # of cells.json: raise it when a key changes its meaning
FAMILY = "cells.json"


class CellMark(Part):
    """A cell; its own comparison stands in the folder of its name."""

    name: str
    """Of the folder."""
    group: str = ""
    """Data set and weights: the name without the value of the swept key."""
    value: Any = None
    """Of the swept key; none without a sweep."""


class Promise(Part):
    """What is fixed before the first run ends, and cannot be changed once an answer was given."""

    metric: str
    """What decides, as metrics.csv names it."""
    margin: float
    """Differences below it do not matter; a fraction of mAP."""
    seeds: int
    """Pairs in each cell."""
    pool: str = "mean"
    """What decides over cells."""
    folds: int | None = None
    """Folds of train + val, when a pair is a fold; none when it is a seed."""
    within: float = 0.01
    """How far below the reference's best mean a value of the swept key is still usable; a fraction of mAP."""
    reference: str
    """The arm that the others are compared with."""

    @property
    def pairs(self) -> str:
        """What pairs are."""
        return "folds" if self.folds else "seeds"


class Effect(Part):
    """The mean paired difference of an arm from the reference in one cell, or over the values of one sweep."""

    group: str
    """The cell, or data set and weights of the sweep."""
    mean: float
    """Arm minus reference, in the unit of its question."""
    sd: float | None = None
    """Of the differences of the pairs."""
    low: float | None = None
    """Lower end of the 95 % interval of the mean."""
    high: float | None = None
    """Upper end."""
    pairs: int
    """How many it rests on."""
    variance: float | None = None
    """Of the mean, by the pairs; of folds, which share training pictures, the corrected one."""
    words: str = ""
    """What else is to be told, as the values that were best."""


class Pooled(Part):
    """The effect over all groups, as far as there are enough."""

    mean: float
    """Random-effects mean."""
    low: float | None = None
    """Lower end of its 95 % interval."""
    high: float | None = None
    """Upper end."""
    tau: float | None = None
    """Standard deviation of the effect between groups."""
    new_low: float | None = None
    """Lower end of the 95 % interval of the effect on a new data set."""
    new_high: float | None = None
    """Upper end."""
    better: float | None = None
    """Share of groups in which the arm is better."""
    p: float | None = None
    """That there is no effect; after Holm over the arms."""


class Answer(Part):
    """What may be said of an arm against the reference over all cells."""

    arm: str
    """Its name."""
    question: str
    """score | best | range: at the same settings; each arm at its best value; how wide the usable range is."""
    unit: str = "points"
    """points of mAP | decades of the swept key."""
    kind: str
    """helps | hurts | no difference | undecided | none; none where nothing is claimed in general."""
    sentence: str
    """The answer with its numbers."""
    effects: list[Effect] = []
    """Of each group."""
    pooled: Pooled | None = None
    """Over the groups; none for a single one."""


class Family(Part):
    """A comparison over several cells."""

    format: int = FORMAT
    """The version of this layout."""
    command: list[str] = []
    """The command that was given last."""
    started: str = "-"
    """When it was begun."""
    updated: str = "-"
    """When it was written last."""
    state: str = "incomplete"
    """complete | incomplete: whether every run has ended."""
    promise: Promise
    """What was declared."""
    key: str | None = None
    """The swept key."""
    cells: list[CellMark] = []
    """In the order of the declaration."""
    answers: list[Answer] = []
    """Of each arm but the first."""
    answered: str | None = None
    """When the first answer was given."""

    @property
    def groups(self) -> list[str]:
        """Data sets and weights, in the order of the declaration."""
        return list(dict.fromkeys(cell.group for cell in self.cells))


def new_family(asked: Asked, argv: Sequence[str]) -> Family:
    """The record of a comparison over several cells that has not begun."""
    options = asked.options
    return Family(
        command=["compare.py", *(word.encode("utf-8", "replace").decode() for word in argv)],
        started=time.strftime("%Y-%m-%d %H:%M:%S"),
        promise=Promise(
            metric=options.metric,
            margin=options.margin / 100,
            seeds=options.seeds,
            pool=options.pool,
            folds=options.folds,
            within=options.within / 100,
            reference=asked.cells[0].arms[0].name,
        ),
        key=asked.key,
        cells=[CellMark(name=cell.name, group=cell.group, value=cell.value) for cell in asked.cells],
    )


def read_family(folder: Path) -> Family | None:
    """cells.json of a folder; None where there is none that can be understood."""
    try:
        family = Family.model_validate_json((folder / FAMILY).read_bytes())
        return family if family.format == FORMAT else None
    except (OSError, ValueError):  # pydantic's error is one of value
        return None


def write_family(folder: Path, family: Family) -> None:
    """Write beside cells.json and move over it."""
    family.updated = time.strftime("%Y-%m-%d %H:%M:%S")
    write_text(folder / FAMILY, json.dumps(family.model_dump(), indent=1, allow_nan=False))


def choose_root(project: str, name: str, family: Family, fresh: Mapping[str, Record]) -> Path:
    """The folder of a comparison over several cells, as `choose_folder`; fresh: a new record of each cell."""

    def unfit(folder: Path) -> tuple[str, int]:
        before = read_family(folder)
        if before is None:
            return ("it holds no comparison over several cells" if occupied(folder) else ""), 0
        records = {cell.name: read_record(folder / cell.name) for cell in before.cells}
        finished = sum(run.ended for record in records.values() if record for run in record.runs)
        if before.key != family.key:
            return f"it sweeps {before.key or 'nothing'}", finished
        if before.answered and list(records) != list(fresh):
            return f"its answer was given over the cells {', '.join(records)}", finished
        why = ((name, unlike(record, fresh[name])) for name, record in records.items() if record and name in fresh)
        return next((f"{name}: {words}" for name, words in why if words), ""), finished

    return first_fit(project, name, unfit)


def open_family(folder: Path, fresh: Family, given_options: set[str]) -> Family:
    """The record as the folder has it, with what is declared now; UserError for what would change after an answer."""
    family = read_family(folder) or fresh
    family.command = fresh.command
    if not family.answered:
        family.promise, family.cells = fresh.promise, fresh.cells
    for key in ("metric", "margin", "seeds", "pool", "within"):
        had, wanted = getattr(family.promise, key), getattr(fresh.promise, key)
        if key in given_options and had != wanted:
            shown = 100 * had if key in ("margin", "within") else had
            raise UserError(
                f"--{key} was declared as {shown}, and the answer over all cells was given on {family.answered}: "
                "changed afterwards, it would not mean what it says. Leave it out, or start afresh with another --name."
            )
    write_family(folder, family)
    return family
