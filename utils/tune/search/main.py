"""The command: trials until there are enough, then the best against the default, then what may be said."""

import hashlib
import json
import logging
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from utils.compare.arms import OWN
from utils.compare.fingerprint import code_hash
from utils.compare.launch.cluster import engine
from utils.compare.launch.local import device_slots
from utils.compare.statistics.looks import fewest_pairs
from utils.env import REPO, cores
from utils.errors import StoppedBySignal, UserError
from utils.files import locked
from utils.tune.options import run_words
from utils.tune.search.asked import Asked
from utils.tune.search.page import look, write_result, write_search
from utils.tune.search.space import settings_of
from utils.tune.search.study import Study, Told, best_first, first_line, open_optuna
from utils.tune.search.trials import Trials, show
from utils.tune.search.verify import Verified, compare_best, judge, winner, write_tuned

log = logging.getLogger(__name__)


def search(asked: Asked, argv: Sequence[str]) -> dict[str, Any]:
    """One search, from what is asked for to what came of it, which also stands in its folder; argv: as given."""
    for note in asked.notes:
        log.info(note)
    options = asked.options
    open_optuna()
    slots = device_slots(options.devices or asked.hyp.device, options.jobs)
    threads = options.threads or max(cores() // len(slots), 1)
    folder = Path(options.project) / options.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise UserError(f"cannot write to {folder}: {e.strerror}. Choose another --project.") from e
    with locked(folder / ".lock") as held, answering():
        if not held:
            raise UserError(f"another tune.py is at work in {folder}. Wait for it, or give --name another.")
        study = begin(asked, folder)
        settings = settings_of(asked.axes, asked.hyp)
        make_trials(asked, study, slots, threads)
        trials = study.told()
        best = [t for t in best_first(trials) if t.params != settings][: options.best]
        default = next((t for t in trials if t.params == settings and t.value is not None), None)
        finish = Finish(asked, argv, folder, study)
        finish.write([], "The best trials have not been compared with the default yet.")
        if not best or not options.best:
            why = "nothing was compared on fresh seeds" if best else "no trial but the default was completed"
            return finish.write([], f"Nothing is claimed: {why}.")
        names = ", ".join(f"trial {t.number} ({t.value:.4f})" for t in best)
        options = options.model_copy(update={"seeds": options.seeds or fewest_pairs(len(best))})
        log.info(f"on {options.seeds} fresh seeds: {names} against the default")
        words = run_words({k: v for k, v in asked.given.items() if k != "noplots"})
        record = compare_best(folder, best, words, asked.hyp, options, len(slots))
        verified = judge(record, best, default) if record else []
        top = winner(verified)
        if top is None:
            return finish.write(verified, "Nothing is written to hyps/: no trial is certainly better than the default.")
        place = write_tuned(REPO / options.out, asked.given, asked.hyp, top, options.metric, folder)
        return finish.write(
            verified, f"Written: {options.out if place.name == Path(options.out).name else place.name}", place
        )


def begin(asked: Asked, folder: Path) -> Study:
    """The study, with what is to be tried first."""
    options, axes = asked.options, asked.axes
    settings = {k: v for k, v in asked.hyp.model_dump().items() if k not in OWN}
    content = [[f"{axis.key}={axis.word}" for axis in axes], settings, options.metric, code_hash()]
    promise = hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]
    study = Study(folder, options.storage, options.name, promise)
    again = study.take_up()
    if again:
        log.info(f"{again} trials that were under way are taken up again")
    study.sample_by(options.sampler, asked.hyp.seed, axes, options.prune, asked.hyp.epochs)
    settings = settings_of(axes, asked.hyp)
    if settings:
        study.try_early(settings, default=True)
    else:
        outside = [a.key for a in axes if not a.holds(getattr(asked.hyp, a.key))]
        log.info(
            f"the settings as given are outside of the space ({', '.join(outside)}): they are not tried in the search"
        )
    if asked.early:
        study.try_early(asked.early)
    return study


def make_trials(asked: Asked, study: Study, slots: list[str], threads: int) -> None:
    """Make trials until there are as many as asked for."""
    options = asked.options
    given = asked.given | {"workers": asked.hyp.workers}
    trials = Trials(study, asked.axes, given, asked.command, options.metric, options.trials, threads)
    had = sum(t.state in ("complete", "pruned") for t in study.told())
    space = " ".join(f"{axis.key}={axis.word}" for axis in asked.axes)
    log.info(f"folder    {study.folder}")
    log.info(f"space     {space}")
    log.info(
        f"trials    {options.trials}, {max(options.trials - had, 0)} to make; {len(slots)} at once; {options.sampler}"
    )
    if options.engine == "ray" and options.prune != "none":
        log.info("trials on a Ray cluster are not ended early: --prune has no meaning there")
    try:
        for child, code in engine(options)(trials.jobs(), slots, threads, lambda: None, trials.watch):
            trials.ended(child, code)
    except StoppedBySignal:
        done = sum(t.state in ("complete", "pruned") for t in study.told())
        log.info(f"kept: {done} finished trials. Repeat the command to go on.")
        raise


@contextmanager
def answering() -> Iterator[None]:
    """UserError in place of what a database raises that does not answer any more."""
    try:
        yield
    except Exception as e:
        if type(e).__module__.partition(".")[0] not in ("sqlalchemy", "sqlite3", "optuna"):
            raise
        raise UserError(
            f"the database of the trials does not answer any more ({type(e).__name__}: {first_line(e)}). "
            "Finished trials are kept: mend it (a full disk? a lost connection?), and repeat the command."
        ) from e


class Finish:
    """Writes what is known, before and after the comparison on fresh seeds."""

    def __init__(self, asked: Asked, argv: Sequence[str], folder: Path, study: Study):
        self.asked, self.folder, self.study = asked, folder, study
        self.command = "python tune.py search " + shlex.join(argv)

    def write(self, verified: Sequence[Verified], ended: str, tuned: Path | None = None) -> dict[str, Any]:
        """Page, table, JSON and console; returns what the JSON holds."""
        asked, trials = self.asked, self.study.told()
        options, axes = asked.options, asked.axes
        view = look(
            self.folder.name, trials, axes, options.metric, verified, ended, self.command, asked.hyp.seed, self.folder
        )
        page = write_search(self.folder, view, trials, axes)
        best = best_first(trials)
        result = {
            "best": _plain(best[0]) if best else None,
            "verified": [
                {"trial": v.trial.number, "found": v.found, "luck": v.luck, "verdict": v.verdict.model_dump()}
                for v in verified
            ],
            "tuned": None if tuned is None else str(tuned),
            "space": {axis.key: axis.word for axis in axes},
            "options": options.model_dump(),
            "settings": asked.hyp.model_dump(),
        }
        write_result(self.folder, result)
        if verified or tuned is not None or "claimed" in ended:
            for line in view["sentences"]:
                log.info(line)
            log.info(f"report: {page}")
        return result


def _plain(t: Told) -> dict[str, Any]:
    return {
        "trial": t.number,
        "score": t.value,
        "params": {k: show(v) for k, v in t.params.items()},
        "folder": t.folder,
    }
