"""What a comparison says on the console: what it is going to do, how far it is, what came of it."""

import logging
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from utils.compare.folder import Place
from utils.compare.launch.local import Child
from utils.compare.record import Record, Run
from utils.compare.report.words import expected_words, plainly
from utils.compare.scores import expected_scores
from utils.run.log import read_metrics

log = logging.getLogger(__name__)
WIDTH = 8  # of a column


class Live:
    """Keeps a table at the bottom of a terminal; elsewhere it says nothing of its own."""

    def __init__(self, records: Mapping[str, Record], epochs: Mapping[tuple[str, str], int], slots: int) -> None:
        """records: by the name of their cell; epochs: of a run, by (cell, arm)."""
        self.records, self.epochs, self.slots = records, epochs, slots
        self.lines = 0  # drawn at the moment
        self.last: list[str] = []
        self.times: list[float] = []  # seconds of the runs that ended
        self.terminal = sys.stdout.isatty()

    def say(self, text: str) -> None:
        """A line above the table."""
        self.clear()
        log.info(text)

    def draw(self, running: Sequence[Child]) -> None:
        """Bring the table up to date."""
        if not self.terminal:
            return
        lines = []
        for cell, record in self.records.items():
            under_way = {(c.job.arm, c.job.seed): self._epoch(c) for c in running if c.job.cell == cell}
            if under_way or len(self.records) == 1:  # of many cells those that are at work
                lines += [cell] * bool(cell) + table(record, under_way)
        lines.append(self._left(running))
        if lines == self.last and self.lines:
            return
        self.clear()
        size = shutil.get_terminal_size()
        shown = [line[: size.columns - 1] for line in lines][: max(size.lines - 1, 1)]
        sys.stdout.write("\n".join(shown) + "\n")
        sys.stdout.flush()
        self.lines, self.last = len(shown), lines

    def clear(self) -> None:
        """Take the table away."""
        if self.lines:
            sys.stdout.write(f"\x1b[{self.lines}F\x1b[J")
            sys.stdout.flush()
            self.lines = 0

    def _epoch(self, child: Child) -> str:
        """How far a run is: epochs done of all."""
        try:
            rows = read_metrics(child.job.folder / "metrics.csv")
        except (OSError, ValueError):
            rows = []
        return f"{int(rows[-1]['epoch']) if rows else 0}/{self.epochs[child.job.cell, child.job.arm]}"

    def _left(self, running: Sequence[Child]) -> str:
        """How many runs are done, and about how long the others will take."""
        runs = [run for record in self.records.values() for run in record.runs]
        ended = sum(run.status != "missing" for run in runs)
        text = f"{ended} of {len(runs)} runs done, {len(running)} under way"
        if self.times:
            mean = sum(self.times) / len(self.times)
            waiting = len(runs) - ended - len(running)
            seconds = (waiting * mean + sum(max(mean - c.seconds, 0) for c in running)) / self.slots
            text += f", about {_duration(seconds)} left"
        return text


def table(record: Record, running: dict[tuple[str, int], str]) -> list[str]:
    """A line for each arm, a column for each seed: its score, how far it is, or how it ended."""
    seeds, arms = record.seeds, [arm.name for arm in record.arms]
    runs = {(run.arm, run.seed): run for run in record.runs}
    title, first = ("fold", 1) if record.folds else ("seed", 0)
    width = max(map(len, [title, *arms])) + 1
    lines = [title.ljust(width) + "".join(f"{first + seed:>{WIDTH}}" for seed in seeds)]
    for arm in arms:
        cells = []
        for seed in seeds:
            run = runs.get((arm, seed), Run(arm=arm, seed=seed))
            text = running.get((arm, seed)) or {"missing": ".", "diverged": "NaN"}.get(run.status, run.status)
            cells.append(f"{run.score:.4f}" if run.status == "done" else text)
        lines.append(arm.ljust(width) + "".join(f"{cell:>{WIDTH}}" for cell in cells))
    return lines


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{max(minutes, 1)} min"


def introduce(cells: Sequence[Place], slots: list[str], threads: int) -> None:
    """Say what is going to happen."""
    for cell in cells:
        record = cell.record
        log.info(f"{'cell' if cell.name else 'folder':<9} {cell.folder}")
        for arm in record.arms:
            own = ", ".join(f"{key} {values[arm.name]}" for key, values in record.differs.items())
            role = " (reference)" if arm.name == record.declared.reference else ""
            what = f"warm-up {arm.nw} of {arm.total} batches" + (f"; {own}" if own else "")
            log.info(f"arm       {arm.name}{role}: {what}")
        for note in record.notes:
            log.info(f"warning: {note}")
    declared, runs = cells[0].record.declared, [run for cell in cells for run in cell.record.runs]
    log.info(
        f"decides   {declared.metric} of the EMA after the last epoch; margin {100 * declared.margin:g} points; "
        + (f"{runs[-1].seed + 1} folds" if cells[0].record.folds else f"at most {declared.max_seeds} seeds")
    )
    todo = sum(run.status == "missing" for run in runs)
    log.info(
        f"runs      {len(runs)}, {todo} to make; {len(slots)} at once, {threads} threads each, on {', '.join(slots)}"
    )


def say_results(folder: Path, cells: Sequence[Place], answers: Sequence[str]) -> None:
    """Scores and verdicts of each cell, the answers over all cells, and where the report is."""
    for cell in cells:
        for line in [cell.name] * bool(cell.name) + table(cell.record, {}):
            log.info(line)
        for arm, own in expected_scores(cell.record).items():
            log.info(f"{arm}: one model on new pictures, expected {own[0]:.4f}, 95 % {expected_words(own)}")
        for verdict in cell.record.verdicts.values():
            log.info(verdict.sentence)
            log.info(f"in plain words: {plainly(verdict, cell.record.declared.margin)}")
    for sentence in answers:
        log.info(sentence)
    log.info(f"report: {folder / 'report.html'}")
