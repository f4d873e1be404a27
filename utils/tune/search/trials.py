"""Trials as runs of train.py: started when a slot is free, watched, ended early where the pruner says so."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from utils.compare.launch.local import Child, Job
from utils.compare.runs import STATUS, last_lines, train_words
from utils.compare.scores import final_score
from utils.config.options import resolve
from utils.config.schema import Command, Hyp, save_hyp
from utils.config.values import read_yaml
from utils.errors import SomeFailed, UserError
from utils.run.folder import drop_states
from utils.run.log import read_metrics
from utils.tune.search.space import Axis
from utils.tune.search.study import Study, best_first

log = logging.getLogger(__name__)
PATIENCE = 3  # trials that may fail in a row


@dataclass
class Trials:
    """The trials of one search on this machine."""

    study: Study
    axes: Sequence[Axis]
    given: Mapping[str, Any]  # settings of all runs, as resolve() takes them
    command: Command
    metric: str
    wanted: int  # trials in all, wherever they are made
    threads: int
    under_way: dict[Path, Any] = field(default_factory=dict)  # run folder -> its trial
    seen: dict[Path, tuple[int, int]] = field(default_factory=dict)  # run folder -> rows that were reported, size
    pruned: set[Path] = field(default_factory=set)
    failed: int = 0  # in a row

    def jobs(self) -> Iterator[Job]:
        """A run for each trial; its values are chosen when it is asked for, knowing what the earlier ones came to."""
        while self.study.taken() < self.wanted:
            trial = self.study.ask(self.axes)
            folder = self.study.place(trial)
            self.under_way[folder] = trial
            try:
                _, hyp, _ = resolve({**self.given, **trial.params})
            except UserError as e:  # values that do not go together
                self.study.tell(trial, "failed")
                del self.under_way[folder]
                log.info(f"trial {trial.number}: {e}")
                self._count_failure(str(e))
                continue
            yield Job(f"trial {trial.number}", hyp.seed, folder, self._words(folder, hyp))

    def _words(self, folder: Path, hyp: Hyp) -> list[str]:
        """The options of a run of train.py, a new one or one that was interrupted."""
        settings = folder.with_suffix(".yaml")
        settings.parent.mkdir(parents=True, exist_ok=True)
        save_hyp(settings, hyp)
        return train_words(folder, settings, [], hyp.workers, self.threads, self.command)

    def watch(self, running: list[Child]) -> None:
        """Report new epochs of the runs under way, and end those that are not worth going on with."""
        for child in running:
            folder = child.job.folder
            if folder not in self.pruned and self._report(folder) and child.process is not None:
                self.pruned.add(folder)
                child.process.terminate()

    def _report(self, folder: Path) -> bool:
        """Whether the trial should be ended early, asked when its metrics.csv has grown."""
        file, trial = folder / "metrics.csv", self.under_way[folder]
        done, size = self.seen.get(folder, (0, -1))
        try:
            now = file.stat().st_size
            rows = read_metrics(file) if now != size else []
        except (OSError, ValueError):  # not there yet, or half a row of it
            return False
        known = [(int(row["epoch"]), row[self.metric]) for row in rows if row.get(self.metric) is not None]
        for epoch, value in known[done:]:
            if value == value:  # nan is no score
                trial.report(value, epoch)
        self.seen[folder] = (max(len(known), done), now)
        return len(known) > done and trial.should_prune()

    def ended(self, child: Child, code: int) -> None:
        """Record what a run came to, and say so; raises SomeFailed when one after the other fails."""
        folder = child.job.folder
        self._report(folder)
        trial = self.under_way.pop(folder)
        shown = ", ".join(f"{key} {show(value)}" for key, value in sorted(trial.params.items()))
        status = STATUS.get(code, "failed")
        score = final_score(folder, self.metric) if status == "done" else None
        if folder in self.pruned and code != 0:
            said, state = "pruned", "pruned"
        elif status == "done" and score is not None:
            said, state = f"{score:.4f}", "complete"
            self._require_applied(folder, trial.params)
        elif status == "diverged":
            said, state, score = "diverged, counts as 0", "complete", 0.0
        else:
            said, state = f"failed (exit code {code})", "failed"
        self.study.tell(trial, state, score)
        best = best_first(self.study.told())
        known = f"; best {best[0].value:.4f} (trial {best[0].number})" if best else ""
        log.info(f"trial {trial.number}: {said} ({child.seconds:.0f} s)  {shown}{known}")
        drop_states(folder)  # only an interrupted trial is gone on with
        if state == "failed":
            self._count_failure(last_lines(folder / "console.txt"))
        else:
            self.failed = 0

    def _count_failure(self, why: str) -> None:
        self.failed += 1
        if self.failed >= PATIENCE:
            raise SomeFailed(
                f"{self.failed} trials in a row have failed, the last with:\n{why}\nFinished trials are kept."
            )

    def _require_applied(self, folder: Path, params: Mapping[str, Any]) -> None:
        """UserError when a run was not told what its trial says: its score would be that of something else."""
        used = read_yaml(folder / "hyp.yaml")
        wrong = [f"{key}: {used.get(key)!r}, not {value!r}" for key, value in params.items() if used.get(key) != value]
        if wrong:
            raise UserError(f"{folder} was trained with other values than its trial says ({'; '.join(wrong)}).")


def show(value: Any) -> str:
    """A value of a key in a line."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
