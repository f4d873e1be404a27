"""The folder of a comparison: which one it is, reading and writing comparison.json, declaring what decides."""

import glob
import json
import logging
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.compare.arms import Arm
from utils.compare.fingerprint import DataMark
from utils.compare.record import FORMAT, Declared, Record
from utils.compare.statistics.looks import fewest_pairs
from utils.compare.statistics.paired import FEWEST
from utils.errors import UserError
from utils.files import write_whole

log = logging.getLogger(__name__)
NAMES = {  # parts of a fingerprint that must be equal for runs to be compared, as a reader calls them
    "code": "the code of train.py",
    "threads": "the number of threads of a run",
    "device": "the device",
    "python": "Python",
    "versions": "the installed libraries",
    "data": "the content of the data",
    "weights": "the content of the weights",
}
RECORD = "comparison.json"
LEAST = 50e6  # bytes that must be free beside what a run's weights take


@dataclass(frozen=True)
class Place:
    """The comparison of one cell: its folder, its record, and the arms that meet there."""

    name: str  # of the cell; empty when it is the only one
    folder: Path
    record: Record
    arms: list[Arm]


def make_folder(folder: Path) -> None:
    """The folder of the comparison, and the one in it for the settings of its arms."""
    try:
        (folder / "arms").mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise UserError(f"cannot write to {folder}: {e.strerror}. Choose another --project.") from e


def require_space(folder: Path) -> None:
    """UserError when a run could not write its files."""
    free = shutil.disk_usage(folder).free
    if free < LEAST:
        raise UserError(
            f"only {free / 1e6:.0f} MB are free at {folder}. Make room, and repeat the command: finished runs are kept."
        )


def choose_folder(project: str, name: str, fresh: Record) -> Path:
    """The folder of this comparison: the first of project/name, name2, ... that holds it, or the first that is free.

    fresh: a new record; it is the one in a folder when `settings` and `fingerprint` are. Why an earlier folder is not
    gone on with is said.
    """

    def unfit(folder: Path) -> tuple[str, int]:
        record = read_record(folder)
        if record:
            return unlike(record, fresh), sum(run.ended for run in record.runs)
        return ("it holds no comparison, or one over several cells" if occupied(folder) else ""), 0

    return first_fit(project, name, unfit)


def first_fit(project: str, name: str, unfit: Callable[[Path], tuple[str, int]]) -> Path:
    """The first of project/name, name2, ... that `unfit` has nothing against; why earlier ones are not used is said.

    unfit: folder -> why it cannot be gone on with, empty when it can, and how many finished runs it holds.
    """
    number, why = 1, ""
    while True:
        folder = Path(project) / (name if number == 1 else f"{name}{number}")
        difference, finished = unfit(folder)
        if not difference:
            if why and not occupied(folder):
                log.info(why)
            return folder
        runs = f", with {finished} finished runs" if finished else ""
        why = f"{folder} is left as it is{runs}: {difference}"
        number += 1


def occupied(folder: Path) -> bool:
    """Whether a folder holds something else; one that was left before anything was written in it is free."""
    return folder.exists() and (not folder.is_dir() or any(p.name not in ("arms", ".lock") for p in folder.iterdir()))


def unlike(record: Record, fresh: Record) -> str:
    """Why runs of a record cannot stand beside those that are asked for; empty when they can."""
    if (record.folds, record.repeats) != (fresh.folds, fresh.repeats):
        return f"its pairs are {f'{record.folds} folds, dealt {record.repeats} times' if record.folds else 'seeds'}"
    had, wanted = record.settings, fresh.settings
    if list(had) != list(wanted):
        return f"its arms are {', '.join(had)}"
    keys = {key for arm in wanted for key in had[arm].keys() | wanted[arm] if had[arm].get(key) != wanted[arm].get(key)}
    if keys:
        return f"it has other settings ({', '.join(sorted(keys))})"
    before, now = record.fingerprint, fresh.fingerprint
    changed = [
        f"{what} has changed"
        + (f" from {getattr(before, key)} to {getattr(now, key)}" if key in ("threads", "device") else "")
        for key, what in NAMES.items()
        if _plain(key, getattr(before, key)) != _plain(key, getattr(now, key))
    ]
    if changed == [f"{NAMES['threads']} has changed from {before.threads} to {now.threads}"]:
        changed[0] += f" (--threads {before.threads} goes on with it)"
    return ", ".join(changed).replace("libraries has", "libraries have")


def same_maker(a: Record, b: Record) -> bool:
    """Whether the runs of two comparisons are made by the same, from the same data and weights where both name them."""
    parts = [key for key in NAMES if key not in ("data", "weights")]
    if any(getattr(a.fingerprint, key) != getattr(b.fingerprint, key) for key in parts):
        return False
    for key in ("data", "weights"):
        one, other = (_plain(key, getattr(record.fingerprint, key)) for record in (a, b))
        if any(one[name] != other[name] for name in one.keys() & other.keys()):
            return False
    return True


def comparisons(project: str | Path) -> list[tuple[Path, Record]]:
    """Folder and record of every comparison under a project, those of cells too, by name."""
    root = Path(project)
    files = sorted(file for pattern in ("*", "*/*", "*/*/*") for file in root.glob(f"{pattern}/{RECORD}"))
    return [(file.parent, record) for file in files if (record := read_record(file.parent))]


def _plain(key: str, value: Any) -> Any:
    """What of a part of a fingerprint must be equal: of data its content, wherever it lies."""
    return {path: data.content for path, data in value.items()} if key == "data" else value


def read_record(folder: Path) -> Record | None:
    """comparison.json of a folder; None where there is none that can be understood."""
    try:
        text = json.dumps(json.loads((folder / RECORD).read_bytes()), ensure_ascii=False)
        record = Record.model_validate_json(text.encode("utf-8", "replace"))  # a name may hold bytes that are no text
        return record if record.format == FORMAT else None
    except (OSError, ValueError):  # pydantic's error is one of value
        return None


def known_data(project: str, name: str) -> dict[str, DataMark]:
    """State and content of each dataset, by its yaml, as earlier comparisons of this name recorded them, or their
    cells."""
    root, names = Path(project), glob.escape(name)
    files = sorted(file for pattern in (f"{names}*/{RECORD}", f"{names}*/*/{RECORD}") for file in root.glob(pattern))
    records = [read_record(file.parent) for file in files]
    return {yaml: data for record in records if record for yaml, data in record.fingerprint.data.items()}


def write_record(folder: Path, record: Record) -> None:
    """Write beside comparison.json and move over it."""
    record.updated = time.strftime("%Y-%m-%d %H:%M:%S")
    write_text(folder / RECORD, json.dumps(record.model_dump(), indent=1, allow_nan=False))


def write_text(path: Path, text: str) -> None:
    """Write beside the file and move over it: a reader sees the old or the new one; UserError when there is no room."""
    try:
        write_whole(path, text.encode("utf-8", "replace"))  # a name may hold bytes that are no text
    except OSError as e:
        raise UserError(
            f"cannot write {path}: {e.strerror}. Make room, and repeat the command: finished runs are kept."
        ) from e


def _say_too_few(record: Record, options: Any) -> None:
    """Warn before the runs where so many pairs, shared by so many arms, cannot show that an arm helps or hurts."""
    arms, seen = max(len(record.arms) - 1, 1), [look.pairs for look in record.looks if look.pairs < options.seeds]
    last = max(options.max_seeds or 0, record.declared.max_seeds if record.looks else 0)
    if record.looks and options.seeds > last:
        return  # which is said by itself
    enough = fewest_pairs(arms, options.seeds, seen, last)
    if enough > options.seeds:
        shared = f" shared by {arms} arms" if arms > 1 else " kept for later looks"
        log.info(
            f"warning: {options.seeds} pairs cannot show that an arm helps or hurts, whatever they are: of the 5 %,"
            f"{shared}, too little is left for them. --seeds {enough} can."
        )


def declare(record: Record, given_options: set[str], options: Any, reference: str) -> None:
    """Settle metric, margin and last look: free before the first look, and after it what was declared.

    given_options: names of the options on this command line. Raises UserError for one that would change after a look.
    """
    if record.folds and options.seeds < FEWEST:
        log.info(
            f"warning: {options.seeds} folds will claim nothing, whatever they show: give --folds {FEWEST}, or more"
        )
    elif max([options.seeds, *(look.pairs for look in record.looks)]) < FEWEST:
        log.info(
            f"warning: {options.seeds} pairs will claim nothing, whatever they show: under {FEWEST} no difference "
            f"can be significant. --seeds {FEWEST}, now or later, can claim one."
        )
    elif not record.folds:
        _say_too_few(record, options)
    wanted = {
        "metric": options.metric,
        "margin": options.margin / 100,
        "max_seeds": options.max_seeds or options.seeds,
        "reference": reference,
    }
    if not record.looks:
        before = record.declared.model_dump() if record.declared else {}
        keep = {key: value for key, value in before.items() if key not in given_options and key != "max_seeds"}
        record.declared = Declared(**wanted | keep)
        if "max_seeds" in before and "max_seeds" not in given_options:
            record.declared.max_seeds = max(before["max_seeds"], options.seeds)
        return
    declared = record.declared
    if all(look.pairs < FEWEST for look in record.looks):  # they could claim nothing, hence have spent nothing
        last = max(declared.max_seeds, wanted["max_seeds"])
        if last > declared.max_seeds:
            log.info(
                f"so far under {FEWEST} pairs were looked at: nothing could be claimed, and nothing of the 5 % is "
                f"spent. The last look is now at {last} seeds."
            )
        declared.max_seeds = wanted["max_seeds"] = last
    for key in ("metric", "margin", "max_seeds"):
        if key in given_options and wanted[key] != getattr(declared, key):
            had = 100 * declared.margin if key == "margin" else getattr(declared, key)
            raise UserError(
                f"--{key.replace('_', '-')} was declared as {had}, and {record.looks[-1].pairs} pairs have been "
                "looked at: changed afterwards, a result would not mean what it says. Leave it out, or start afresh "
                "with another --name."
            )
    if options.seeds > declared.max_seeds:
        log.info(
            f"--max-seeds {declared.max_seeds} was declared before the first look, and the 5 % are spent: pairs "
            "beyond it narrow the interval, and can claim next to nothing."
        )
