"""Does it help? An A/B of training settings: python compare.py --data data.yaml --weights yolo11n.pt --warmup

Every arm trains with the same seeds, each run as a process of train.py. Ends with a verdict that noise cannot easily
fake, and a report. Repeated, it goes on where it stopped. Read downward.
"""

import utils.env  # noqa: F401, I001  (first: sets the environment that the libraries read on import)

import sys

from data.index.folds import count_training
from data.loading.plan import count_for
from utils.compare.arms import EXAMPLE, SINGLE, Arm, Compare, read_command
from utils.config.options import option_lines
from utils.config.schema import Command, Hyp, save_hyp
from utils.errors import SomeFailed, StoppedBySignal, UserError, answer_first, run_script
from utils.schedule.preview import Variant, show

USAGE = f"""usage: python compare.py --weights W --data D {EXAMPLE} [--key value | key=value ...]

Without options it compares warm-up on and off on the embedded demo.

  --arm NAME [HYP] [key=value ...]   an arm; the first is the reference
  --warmup                           short for two arms: warm, the settings as they are, and cold, without warm-up
"""


def answered(argv: list[str]) -> bool:
    """Whether --help or --plan was all that is asked for; UserError for words that cannot be understood."""
    if {"--help", "-h"} & set(argv):
        print("\n".join([USAGE, *option_lines(Compare, Command, Hyp, without=SINGLE)]))
        return True
    options, command, arms, notes, _ = read_command(argv)
    if command.plan:
        variants = [Variant(arm.name, command, arm.hyp, []) for arm in arms]
        for run in show(variants, count_for, options.project, notes, (options.seeds, options.max_seeds)):
            from models.training import require_trainable  # takes seconds, so after the plan is shown

            require_trainable(*run)
    return command.plan


if __name__ == "__main__":
    answer_first(lambda: answered(sys.argv[1:]))  # before torch is loaded

import logging
import shutil
from pathlib import Path

import torch

from data.definition.dataset_yaml import load_dataset_yaml
from data.index.identity import Identity, identify
from models.weights.find import find_weights
from utils.compare.conclude import conclude
from utils.compare.fingerprint import DataMark, digest_of, fingerprint
from utils.compare.folder import choose_folder, declare, known_data, read_record, write_record
from utils.compare.launch import Job, run_all
from utils.compare.live import Live, table
from utils.compare.record import Record, new_record
from utils.compare.report.page import write_report
from utils.compare.report.words import plainly
from utils.compare.runs import list_runs, record_run, run_words
from utils.env import cores
from utils.files import locked
from utils.run.console import configure_console
from utils.run.ranks import pick_device

log = logging.getLogger(__name__)
ROOM = 50e6  # bytes that must be free beside what a run's weights take


def main(argv: list[str] | None = None) -> Record | None:
    """One comparison, from the command line to its record, which also stands in its folder."""
    argv = sys.argv[1:] if argv is None else [str(word) for word in argv]
    configure_console()
    if answered(argv):
        return None
    options, command, arms, notes, given_options = read_command(argv)
    for note in notes:
        log.info(note)
    slots = device_slots(options, arms)
    threads = options.threads or max(cores() // len(slots), 1)

    fresh, identities = examine(options, command, arms, slots, threads, argv)
    folder = choose_folder(options.project, options.name, fresh)
    make_folder(folder)
    with locked(folder / ".lock") as held:
        if not held:
            raise UserError(f"another compare.py is at work in {folder}. Wait for it, or give --name another.")
        record = read_record(folder) or fresh
        record.command = fresh.command
        declare(record, given_options, options, arms[0].name)
        for arm in arms:
            save_hyp(folder / "arms" / f"{arm.name}.yaml", arm.hyp)
        list_runs(record, options.seeds, folder)
        write_record(folder, record)
        introduce(folder, record, slots, threads)
        try:
            make_runs(folder, record, arms, slots, threads, command, identities)
        except StoppedBySignal:
            log.info(f"kept: {sum(run.ended for run in record.runs)} finished runs. Repeat the command to go on.")
            raise
        conclude(folder, record)
        write_record(folder, record)
        report = write_report(folder)
    for line in table(record, {}):
        log.info(line)
    for verdict in record.verdicts.values():
        log.info(verdict.sentence)
        log.info(f"in plain words: {plainly(verdict, record.declared.margin)}")
    log.info(f"report: {report}")
    failed = [run for run in record.runs if run.status == "failed"]
    if failed:
        shown = ", ".join(f"{run.arm} seed {run.seed}" for run in failed)
        raise SomeFailed(f"{len(failed)} runs ({shown}). Put right what they say, and repeat the command.")
    return record


def device_slots(options: Compare, arms: list[Arm]) -> list[str]:
    """The device of each slot: as many as runs go on at once."""
    words = [word.strip() for word in (options.devices or arms[0].hyp.device).split(",")]
    devices = [pick_device(word) for word in words]
    cpu = devices[0].type == "cpu"
    jobs = options.jobs or (min(2, cores()) if cpu else len(devices))
    names = ["cpu" if device.type == "cpu" else str(device.index) for device in devices]
    return [names[k % len(names)] for k in range(max(jobs, 1))]


def examine(
    options: Compare, command: Command, arms: list[Arm], slots: list[str], threads: int, argv: list[str]
) -> tuple[Record, dict[str, Identity]]:
    """A new record: arms, what differs, what they are made from; and the data sets by the name of their yaml."""
    known = known_data(options.project, options.name)
    identities = {
        data: identify(load_dataset_yaml(data, command.download), known[data].model_dump() if data in known else None)
        for data in {str(arm.hyp.data): None for arm in arms}
    }
    marks = {
        data: DataMark(content=i.content, state=i.state, pictures=sum(index.n for index in i.indexes.values()))
        for data, i in identities.items()
    }
    weights = {name: digest_of(find_weights(name, command.download)) for name in {str(a.hyp.weights): 0 for a in arms}}
    names = [torch.cuda.get_device_name(int(slot)) for slot in slots] if slots[0] != "cpu" else ["cpu"]
    made_by = fingerprint(threads, names[0], marks, weights)
    plain = {arm.name: arm.hyp.model_copy(update={"single_cls": False}) for arm in arms}  # as `identify` reads it
    pictures = {name: count_training(hyp)[0] for name, hyp in plain.items()}
    return new_record(arms, pictures, made_by, sorted(set(names)), argv), identities


def make_folder(folder: Path) -> None:
    """The folder of the comparison, and the one in it for the settings of its arms."""
    try:
        (folder / "arms").mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise UserError(f"cannot write to {folder}: {e.strerror}. Choose another --project.") from e


def introduce(folder: Path, record: Record, slots: list[str], threads: int) -> None:
    """Say what is going to happen."""
    declared, runs = record.declared, record.runs
    log.info(f"folder    {folder}")
    for arm in record.arms:
        own = ", ".join(f"{key} {values[arm.name]}" for key, values in record.differs.items())
        role = " (reference)" if arm.name == declared.reference else ""
        log.info(f"arm       {arm.name}{role}: warm-up {arm.nw} of {arm.total} batches" + (f"; {own}" if own else ""))
    for note in record.notes:
        log.info(f"warning: {note}")
    log.info(
        f"decides   {declared.metric} of the EMA after the last epoch; margin {100 * declared.margin:g} points; "
        f"at most {declared.max_seeds} seeds"
    )
    todo = sum(run.status == "missing" for run in runs)
    log.info(
        f"runs      {len(runs)}, {todo} to make; {len(slots)} at once, {threads} threads each, on {', '.join(slots)}"
    )


def make_runs(
    folder: Path,
    record: Record,
    arms: list[Arm],
    slots: list[str],
    threads: int,
    command: Command,
    identities: dict[str, Identity],
) -> None:
    """Make every run that is missing; each is recorded when it ends."""
    live = Live(record, {arm.name: arm.hyp.epochs for arm in arms}, len(slots))
    by_name = {arm.name: arm for arm in arms}
    jobs = []
    for run in record.runs:
        if run.status == "missing":
            words = run_words(folder, run, by_name[run.arm], threads, command)
            jobs.append(Job(run.arm, run.seed, folder / run.folder, words))

    def require() -> None:
        require_unchanged(identities)
        require_room(folder)

    try:
        for child, code in run_all(jobs, slots, threads, require, live.draw):
            try:
                require_unchanged(identities)
            except UserError:
                shutil.rmtree(child.job.folder, ignore_errors=True)  # nobody knows which of its pictures were new
                raise
            record_run(record, child, code, live)
            write_record(folder, record)
    finally:
        live.clear()


def require_unchanged(identities: dict[str, Identity]) -> None:
    """UserError when a file of a dataset was touched since the comparison began."""
    changed = [data for data, identity in identities.items() if not identity.unchanged()]
    if changed:
        raise UserError(
            f"{changed[0]} has changed since this comparison began: later runs would see other data than earlier ones. "
            "The finished runs are kept; undo the change and repeat the command, or repeat it to begin anew."
        )


def require_room(folder: Path) -> None:
    """UserError when a run could not write its files."""
    free = shutil.disk_usage(folder).free
    if free < ROOM:
        raise UserError(
            f"only {free / 1e6:.0f} MB are free at {folder}. Make room, and repeat the command: finished runs are kept."
        )


if __name__ == "__main__":
    sys.exit(run_script(main))
