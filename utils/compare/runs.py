"""The runs of a comparison: which are to be made, their command lines, and what each came to."""

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

from utils.compare.arms import Arm
from utils.compare.folder import Place, comparisons, same_maker, write_record
from utils.compare.launch.local import Child, Job
from utils.compare.live import Live
from utils.compare.record import Record, Run
from utils.compare.scores import final_score
from utils.config.schema import Command
from utils.run.folder import drop_states

log = logging.getLogger(__name__)
STATUS = {0: "done", 3: "diverged"}  # by the exit code of train.py; any other has failed


def list_runs(record: Record, seeds: int, folder: Path) -> None:
    """Bring the list of runs up to `seeds` pairs, or as many as there are; what did not end is to be made again."""
    most = max([seeds, *(look.pairs for look in record.looks), *(r.seed + 1 for r in record.runs if r.ended)])
    record.seeds = list(range(most))
    runs = []
    for seed in record.seeds:
        for arm in record.arms:
            run = record.run_of(arm.name, seed)
            blank = Run(arm=arm.name, seed=seed, folder=f"runs/{arm.name}/seed{seed}")
            runs.append(run if run and reusable(folder, run, record.declared.metric) else blank)
    record.runs = runs


def reusable(folder: Path, run: Run, metric: str) -> bool:
    """Whether a run needs not be made again: it ended, and what it left is still there."""
    place = folder / run.folder
    return place.is_dir() and (run.status == "diverged" or (run.ended and final_score(place, metric) is not None))


def list_jobs(cells: Sequence[Place], threads: int, command: Command) -> list[Job]:
    """What is to be made, pair by pair over all cells: an interrupted comparison has whole pairs everywhere."""
    jobs = []
    for cell in cells:
        arms = {arm.name: arm for arm in cell.arms}
        for run in (run for run in cell.record.runs if run.status == "missing"):
            words = run_words(cell.folder, run, arms[run.arm], threads, command, cell.record.folds)
            jobs.append(Job(run.arm, run.seed, cell.folder / run.folder, words, cell.name))
    return sorted(jobs, key=lambda job: job.seed)  # in a pair the order of cells and arms stays


def take_over(cells: Sequence[Place], project: str) -> None:
    """Copy what other comparisons of the project have made already: the same settings, seed, data, code.

    Repeated, such a run would give the very same weights.
    """
    others = comparisons(project)
    for cell in cells:
        taken = _take_over(cell.folder, cell.record, others)
        if taken:
            log.info(f"{taken} runs of {cell.folder} are taken over from other comparisons in {project}")
            write_record(cell.folder, cell.record)


def _take_over(folder: Path, record: Record, others: Sequence[tuple[Path, Record]]) -> int:
    """The same for one cell; how many were taken."""
    taken = 0
    for run in (run for run in record.runs if run.status == "missing" and not (folder / run.folder).exists()):
        for place, other in others:
            twin = _twin(record, run, other) if place.resolve() != folder.resolve() else None
            if twin and twin.status == "done" and reusable(place, twin, record.declared.metric):
                shutil.copytree(place / twin.folder, folder / run.folder)
                score = final_score(folder / run.folder, record.declared.metric)
                own = {"arm": run.arm, "seed": run.seed, "folder": run.folder, "score": score, "secondary": None}
                record.runs[record.runs.index(run)] = twin.model_copy(update=own)
                taken += 1
                break
    return taken


def _twin(record: Record, run: Run, other: Record) -> Run | None:
    """The run of another comparison that is told the same as `run`, and made by the same; None where there is none."""
    if not same_maker(other, record) or other.folds != record.folds or other.declared is None:
        return None
    own = record.settings[run.arm]
    for arm, settings in other.settings.items():
        if settings | {"seed": 0} == own | {"seed": 0}:
            return other.run_of(arm, run.seed + own["seed"] - settings["seed"])
    return None


def run_words(folder: Path, run: Run, arm: Arm, threads: int, command: Command, folds: int | None = None) -> list[str]:
    """The options of a run of train.py, a new one or one that was interrupted; its device comes later.

    folds: when the pairs are folds; each deal has its own seed.
    """
    hyp, own = arm.hyp, ["--seed", str(arm.hyp.seed + run.seed)]
    if folds:
        own += ["--fold", f"{run.seed % folds + 1}/{folds}", "--fold-seed", str(hyp.fold_seed + run.seed // folds)]
    return train_words(folder / run.folder, folder / "arms" / f"{run.arm}.yaml", own, hyp.workers, threads, command)


def train_words(
    place: Path, settings: Path, own: Sequence[str], workers: int | None, threads: int, command: Command
) -> list[str]:
    """The options of the run in the folder `place`, a new one of a hyp file and `own` words, or one to go on with."""
    loading = ["--workers", str(max(threads - 1, 1) if workers is None else min(workers, threads))]
    last = place / "weights/last.pt"
    if last.is_file():  # going on gives the very weights of a run that was never interrupted
        return ["--resume", str(last), *loading]
    shutil.rmtree(place, ignore_errors=True)
    words = ["--hyp", str(settings), *own, "--project", str(place.parent), "--name", place.name, "--exist-ok", *loading]
    return words + ["--download"] * command.download + ["--keep-gains"] * command.keep_gains


def record_run(record: Record, child: Child, code: int, live: Live) -> None:
    """Enter what a run came to, and say so."""
    job, declared = child.job, record.declared
    run = record.run_of(job.arm, job.seed)
    score = final_score(job.folder, declared.metric) if code == 0 else None
    status = "failed" if code == 0 and score is None else STATUS.get(code, "failed")
    run.status, run.exit, run.score = status, code, score
    run.command, run.device = ["train.py", *job.words, "--device", child.device], child.device
    run.seconds = round(child.seconds, 1)
    run.message = None if status == "done" else last_lines(job.folder / "console.txt")
    drop_states(job.folder)  # only a run that was interrupted is gone on with
    name = f"{job.cell} {job.arm} {record.pair(job.seed)}".lstrip()
    if status == "done":
        live.times.append(child.seconds)
        live.say(f"{name}: {declared.metric} {score:.4f} ({child.seconds:.0f} s)")
    else:
        live.say(f"{name}: {status} (exit code {code}), its last lines:\n{run.message}")


def last_lines(path: Path, n: int = 8) -> str:
    """The end of what a run printed."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return "\n".join([line.rstrip() for line in lines if line.strip()][-n:])
