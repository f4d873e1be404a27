"""Does it help? An A/B of training settings: python compare.py --data data.yaml --weights yolo11n.pt --warmup

Every arm trains with the same seeds, each run as a process of train.py. Ends with a verdict that noise cannot easily
fake, and a report. Repeated, it goes on where it stopped. Read downward.
"""

import utils.env  # noqa: F401, I001  (first: sets the environment that the libraries read on import)

import sys

from data.index.folds import counting, dealt_splits
from data.loading.plan import count_for
from utils.compare.arms import EXAMPLE, SINGLE, Compare
from utils.compare.cells.declare import Asked, read_asked
from utils.config.help import option_lines
from utils.config.schema import Command, Hyp, save_hyp
from utils.errors import SomeFailed, StoppedBySignal, UserError, answer_first, run_script
from utils.schedule.preview import Variant, show

USAGE = f"""usage: python compare.py --weights W --data D {EXAMPLE} [--key value | key=value ...]

Without options it compares warm-up on and off on the embedded demo.

  --arm NAME [HYP] [key=value ...]   an arm; the first is the reference
  --warmup                           short for two arms: warm, the settings as they are, and cold, without warm-up
  --data A B C  --weights W V        the arms meet in a cell for each pair, and an answer over all cells is given
  --sweep lr0=0.001,0.003,0.01       the arms meet at each value of one key
  FILE.yaml                          a comparison as a declaration.yaml says it; other words count more
  --list                             all comparisons of a --project, with their verdicts; makes no run
  --report-only FOLDER ...           draw the reports of folders again, from what stands in them; makes no run
"""


def answered(argv: list[str]) -> bool:
    """Whether --help or --plan was all that is asked for; UserError for words that cannot be understood."""
    if {"--help", "-h"} & set(argv):
        print("\n".join([USAGE, *option_lines(Compare, Command, Hyp, without=SINGLE)]))
        return True
    if {"--list", "--report-only"} & set(argv):
        from utils.compare.cells.overview import overview  # draws, which takes a while to import

        overview(argv)
        return True
    planned, runs = [asked for asked in read_asked(argv) if asked.command.plan], []
    for asked in planned:
        pairs = asked.options.seeds, asked.options.max_seeds
        variants = [
            Variant(f"{cell.name}  {a.name}".strip(), asked.command, a.hyp.model_copy(update=asked.first_fold), [])
            for cell, a in asked.all
        ]
        kind = "folds" if asked.options.folds else "seeds"
        runs += show(variants, count_for, asked.options.project, asked.notes, pairs, kind)
    if runs:
        from models.training.state import check_planned  # takes seconds, so after the plan

        check_planned(runs)
    return bool(planned)


if __name__ == "__main__":
    answer_first(lambda: answered(sys.argv[1:]))  # before torch is loaded

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch

from data.definition.dataset_yaml import load_dataset_yaml
from data.index.identity import Identity, identify, require_unchanged
from models.weights.darknet import files_of
from models.weights.find import find_weights
from utils.compare.cells.answer import answer
from utils.compare.cells.declare import Cell, write_declaration
from utils.compare.cells.family import Family, choose_root, new_family, open_family, write_family
from utils.compare.cells.page import write_family_report
from utils.compare.conclude import conclude
from utils.compare.fingerprint import DataMark, digest_of, fingerprint
from utils.compare.folder import (
    Place,
    choose_folder,
    declare,
    known_data,
    make_folder,
    read_record,
    require_space,
    write_record,
)  # fmt: skip
from utils.compare.launch.cluster import engine
from utils.compare.launch.local import device_slots
from utils.compare.live import Live, introduce, say_results
from utils.compare.record import Record, new_record
from utils.compare.report.page import write_report
from utils.compare.runs import list_jobs, list_runs, record_run, take_over
from utils.env import cores
from utils.files import locked
from utils.run.console import configure_console

log = logging.getLogger(__name__)


def main(argv: list[str] | None = None) -> Record | Family | None:
    """One comparison or several, from the command line to the record of the last, which also stands in its folder."""
    argv = sys.argv[1:] if argv is None else [str(word) for word in argv]
    configure_console()
    if answered(argv):
        return None
    records = [compare(asked, argv) for asked in read_asked(argv)]
    return records[-1]


def compare(asked: Asked, argv: list[str]) -> Record | Family:
    """The arms in each cell, and what follows; raises SomeFailed when runs failed."""
    for note in asked.notes:
        log.info(note)
    options = asked.options
    slots = device_slots(options.devices or asked.cells[0].arms[0].hyp.device, options.jobs)
    threads = options.threads or max(cores() // len(slots), 1)
    fresh, identities = examine(asked, slots, threads, argv)
    family = new_family(asked, argv) if list(fresh) != [""] else None
    choose = choose_root(options.project, options.name, family, fresh) if family else None
    folder = choose or choose_folder(options.project, options.name, fresh[""])
    make_folder(folder)
    with locked(folder / ".lock") as held:
        if not held:
            raise UserError(f"another compare.py is at work in {folder}. Wait for it, or give --name another.")
        if family:
            family = open_family(folder, family, asked.words.given_options)
            log.info(f"folder    {folder}: {len(fresh)} cells")
        cells = [open_cell(asked, cell, folder / cell.name, fresh[cell.name]) for cell in asked.cells]
        write_declaration(asked, folder)
        take_over(cells, options.project)
        introduce(cells, slots, threads)
        try:
            make_runs(cells, asked.command, slots, threads, identities, engine(options))
        except StoppedBySignal:
            ended = sum(run.ended for cell in cells for run in cell.record.runs)
            log.info(f"kept: {ended} finished runs. Repeat the command to go on.")
            raise
        for cell in cells:
            conclude(cell.folder, cell.record)
            write_record(cell.folder, cell.record)
            write_report(cell.folder)
        if family:
            answer(family, [cell.record for cell in cells])
            write_family(folder, family)
            write_family_report(folder)
    say_results(folder, cells, [found.sentence for found in family.answers] if family else [])
    failed = [(cell, run) for cell in cells for run in cell.record.runs if run.status == "failed"]
    if failed:
        shown = ", ".join(f"{cell.name} {run.arm} {cell.record.pair(run.seed)}".lstrip() for cell, run in failed)
        raise SomeFailed(f"{len(failed)} runs ({shown}). Put right what they say, and repeat the command.")
    return family or cells[0].record


def examine(
    asked: Asked, slots: list[str], threads: int, argv: list[str]
) -> tuple[dict[str, Record], dict[str, Identity]]:
    """A new record of each cell: arms, what differs, what they are made from; and data sets by their yaml."""
    options, command = asked.options, asked.command
    known, arms = known_data(options.project, options.name), [arm for _, arm in asked.all]
    identities = {}
    for data in dict.fromkeys(data for arm in arms for data in arm.scored):
        config = load_dataset_yaml(data, command.download)
        splits = dealt_splits(config) if options.folds else ("train", "val")
        identities[data] = identify(config, known[data].model_dump() if data in known else None, splits)
    marks = {
        data: DataMark(content=i.content, state=i.state, pictures=sum(index.n for index in i.indexes.values()))
        for data, i in identities.items()
    }
    files = {name: files_of(find_weights(name, command.download)) for name in {str(a.hyp.weights): 0 for a in arms}}
    weights = {name: "+".join(map(digest_of, its)) for name, its in files.items()}
    names = [torch.cuda.get_device_name(int(slot)) for slot in slots] if slots[0] != "cpu" else ["cpu"]
    made_by = fingerprint(threads, names[0], {}, {})
    fresh, counted = {}, counting()
    for cell in asked.cells:
        own = {
            "data": {data: marks[data] for arm in cell.arms for data in arm.scored},
            "weights": {str(arm.hyp.weights): weights[str(arm.hyp.weights)] for arm in cell.arms},
        }
        as_read = {"single_cls": False} | asked.first_fold  # by `identify`
        plain = {arm.name: arm.hyp.model_copy(update=as_read) for arm in cell.arms}
        pictures = {name: counted(hyp) for name, hyp in plain.items()}
        by = made_by.model_copy(update=own)
        fresh[cell.name] = new_record(cell.arms, pictures, by, sorted(set(names)), argv, options.folds, options.repeats)
    return fresh, identities


def open_cell(asked: Asked, cell: Cell, folder: Path, fresh: Record) -> Place:
    """The comparison of a cell as its folder has it, or a new one, with the list of its runs brought up to date."""
    make_folder(folder)
    record = read_record(folder) or fresh
    record.command = fresh.command
    declare(record, asked.words.given_options, asked.options, cell.arms[0].name)
    for arm in cell.arms:
        save_hyp(folder / "arms" / f"{arm.name}.yaml", arm.hyp)
    list_runs(record, asked.options.seeds, folder)
    write_record(folder, record)
    return Place(cell.name, folder, record, cell.arms)


def make_runs(
    cells: Sequence[Place], command: Command, slots: list[str], threads: int, identities: dict[str, Identity], run_all
) -> None:
    """Make every run that is missing, pair by pair over all cells; each is recorded when it ends."""
    epochs = {(cell.name, arm.name): arm.hyp.epochs for cell in cells for arm in cell.arms}
    live = Live({cell.name: cell.record for cell in cells}, epochs, len(slots))
    by_name = {cell.name: cell for cell in cells}

    def require() -> None:
        require_unchanged(identities)
        require_space(cells[0].folder)

    try:
        for child, code in run_all(list_jobs(cells, threads, command), slots, threads, require, live.draw):
            try:
                require_unchanged(identities)
            except UserError:
                shutil.rmtree(child.job.folder, ignore_errors=True)  # nobody knows which of its pictures were new
                raise
            cell = by_name[child.job.cell]
            record_run(cell.record, child, code, live)
            write_record(cell.folder, cell.record)
    finally:
        live.clear()


if __name__ == "__main__":
    sys.exit(run_script(main))
