"""The trials on record, in a database that many machines may share: Optuna's study, opened, asked and told."""

import logging
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.errors import UserError
from utils.tune.search.space import Axis, grid_of

log = logging.getLogger(__name__)
SPACE = "preheat_space"  # attribute of a study: what it searches, and the settings of its runs
FOLDER, AGAIN, DEFAULT = "folder", "again", "default"  # attributes of a trial
STARTUP = 4  # trials that the median is taken over before anything is pruned
STEPS = 1  # epochs that no trial is pruned in


@dataclass(frozen=True)
class Told:
    """A trial as the pages and tables have it."""

    number: int
    params: dict[str, Any]
    state: str  # complete | pruned | failed | running | waiting
    value: float | None  # of a complete trial; 0 where it diverged
    curve: dict[int, float]  # epoch -> metric
    folder: str
    default: bool  # the settings as they were given


class Study:
    """An Optuna study of this search."""

    def __init__(self, folder: Path, storage: str | None, name: str, promise: str):
        """Open it, or begin it; `promise`: its space and settings in words, which must be those it began with."""
        optuna = open_optuna()
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.folder = folder.absolute()
        self.url = storage or f"sqlite:///{(self.folder / 'trials.db').as_posix()}"
        self.optuna = optuna
        try:
            self.study = optuna.create_study(
                study_name=name, storage=self.url, direction="maximize", load_if_exists=True
            )  # fmt: skip
            had = self.study.user_attrs.get(SPACE)
            if had is None:
                self.study.set_user_attr(SPACE, promise)
        except Exception as e:  # drivers and databases raise what they like
            raise UserError(
                f"the database of the trials, {_public(self.url)}, cannot be opened ({type(e).__name__}: "
                f"{first_line(e)}). --storage takes an address as sqlite:///trials.db or postgresql://user@host/name, "
                "and needs the driver of that database."
            ) from e
        if had not in (None, promise):
            raise UserError(
                f"the search '{name}' in {_public(self.url)} has another space, other settings or other code than "
                "what is asked for. Give this one another --name."
            )

    def sample_by(self, sampler: str, seed: int, axes: Sequence[Axis], pruner: str, epochs: int) -> None:
        """How values are chosen (tpe | random | grid) and trials are ended early (median | hyperband | none)."""
        samplers, pruners = self.optuna.samplers, self.optuna.pruners
        seed = seed + len(self.study.trials)  # gone on with, it does not draw the same again
        self.study.sampler = samplers.RandomSampler(seed=seed) if sampler != "tpe" else samplers.TPESampler(seed=seed)
        if pruner == "median":
            self.study.pruner = pruners.MedianPruner(n_startup_trials=STARTUP, n_warmup_steps=STEPS)
        elif pruner == "hyperband":
            self.study.pruner = pruners.HyperbandPruner(min_resource=1, max_resource=max(epochs, 2))
        else:
            self.study.pruner = pruners.NopPruner()
        if sampler == "grid":
            for point in grid_of(axes):
                self.study.enqueue_trial(point, skip_if_exists=True)

    def try_early(self, point: Mapping[str, Any], default: bool = False) -> None:
        """Have a point tried before what the sampler chooses."""
        attributes = {DEFAULT: True} if default else {}
        self.study.enqueue_trial(dict(point), user_attrs=attributes, skip_if_exists=True)

    def take_up(self) -> int:
        """Put trials that a program which is gone had begun in this folder to the front again; how many."""
        lost = [t for t in self.study.trials if t.state.name == "RUNNING" and self._is_ours(t)]
        for trial in lost:
            self.study.tell(trial.number, state=self.optuna.trial.TrialState.FAIL)
            again = {AGAIN: trial.user_attrs.get(AGAIN, trial.number)}
            again |= {DEFAULT: True} if trial.user_attrs.get(DEFAULT) else {}
            self.study.enqueue_trial(trial.params, user_attrs=again)
        return len(lost)

    def _is_ours(self, trial: Any) -> bool:
        return trial.user_attrs.get(FOLDER, "").startswith(f"{socket.gethostname()}:{self.folder}{os.sep}")

    def ask(self, axes: Sequence[Axis]) -> Any:
        """The next trial."""
        made = self.optuna.distributions
        distributions = {}
        for axis in axes:
            if axis.values:
                distributions[axis.key] = made.CategoricalDistribution(axis.values)
            elif axis.whole:
                distributions[axis.key] = made.IntDistribution(int(axis.low), int(axis.high), log=axis.log)
            else:
                distributions[axis.key] = made.FloatDistribution(axis.low, axis.high, log=axis.log)
        return self.study.ask(distributions)

    def place(self, trial: Any) -> Path:
        """The run folder of a trial; one that is taken up again has that of its first time."""
        folder = self.folder / "trials" / f"{trial.user_attrs.get(AGAIN, trial.number):04d}"
        trial.set_user_attr(FOLDER, f"{socket.gethostname()}:{folder}")
        return folder

    def tell(self, trial: Any, state: str, value: float | None = None) -> None:
        """What a trial came to: complete with its value | pruned | failed."""
        states = self.optuna.trial.TrialState
        known = {"complete": states.COMPLETE, "pruned": states.PRUNED, "failed": states.FAIL}
        self.study.tell(trial, value if state == "complete" else None, state=known[state])

    def taken(self) -> int:
        """Trials that count: ended, or under way somewhere."""
        return sum(t.state.name in ("COMPLETE", "PRUNED", "RUNNING") for t in self.study.trials)

    def told(self) -> list[Told]:
        """All trials by number; those that were taken up again stand once."""
        words = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "running"}
        trials = self.study.trials
        again = {t.user_attrs[AGAIN] for t in trials if AGAIN in t.user_attrs}
        newest = {t.user_attrs.get(AGAIN, t.number): t.number for t in trials if t.state.name != "WAITING"}
        found = []
        for t in trials:
            if t.state.name == "WAITING" or (t.number in again and newest[t.number] != t.number):
                continue
            curve = {int(epoch): float(value) for epoch, value in t.intermediate_values.items()}
            value = None if t.values is None or t.state.name != "COMPLETE" else float(t.values[0])
            params = {k: t.params[k] for k in sorted(t.params)}
            folder = t.user_attrs.get(FOLDER, "").partition(":")[2]
            default = bool(t.user_attrs.get(DEFAULT))
            found.append(Told(t.number, params, words[t.state.name], value, curve, folder, default))
        return found


def open_optuna() -> Any:
    """The module; UserError when it is not installed."""
    try:
        import optuna
    except ImportError as e:
        raise UserError(
            "tune.py search needs Optuna, which is not installed: pip install -r requirements-extra.txt"
        ) from e
    return optuna


def best_first(trials: Sequence[Told]) -> list[Told]:
    """Complete trials, the best first; of equal ones the earlier."""
    return sorted((t for t in trials if t.value is not None), key=lambda t: (-(t.value or 0), t.number))


def first_line(error: BaseException) -> str:
    """What an error says, without what follows it."""
    return (str(error).splitlines() or [""])[0][:300]


def _public(url: str) -> str:
    """An address without its password."""
    head, slashes, rest = url.partition("://")
    user, at, place = rest.rpartition("@")
    return f"{head}{slashes}{user.partition(':')[0]}{at}{place}" if slashes else url
