"""What a folder of a comparison tells: comparison.json and the files of its runs, read once; broken ones are named."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from utils.compare.folder import RECORD, read_record
from utils.compare.record import Record, Run
from utils.errors import UserError
from utils.run.log import FLUSH_EVERY, read_metrics

BATCH_TAGS = ("lr/", "momentum", "train/box", "train/cls", "train/dfl", "train/obj", "train/grad_norm")
Curve = dict[int, float]  # epoch or ni -> value


@dataclass(frozen=True)
class RunFacts:
    """One run: its line in comparison.json, and what its own files hold."""

    arm: str
    seed: int
    status: str  # done | diverged | failed | missing
    line: Run
    there: bool = False  # the folder exists
    epochs: Curve = field(default_factory=dict)  # the declared metric
    batches: dict[str, Curve] = field(default_factory=dict)  # tag -> values of the first batches
    broken: tuple[str, ...] = ()  # files that could not be read, and why

    @property
    def score(self) -> float | None:
        """The declared metric, None where there is no finite one."""
        return finite(self.line.score)

    @property
    def counted(self) -> float | None:
        """The score as the statistics count it; None for a run that has not ended."""
        return self.line.counted

    @property
    def ended(self) -> bool:
        return self.line.ended


@dataclass(frozen=True)
class Facts:
    """A comparison and all its runs, in the order of the arms and seeds."""

    name: str  # of the folder
    record: Record
    runs: list[RunFacts]

    @property
    def arms(self) -> list[str]:
        """Names; the first is the reference."""
        return [arm.name for arm in self.record.arms]

    @property
    def reference(self) -> str:
        return self.arms[0]

    @property
    def metric(self) -> str:
        """The declared metric as metrics.csv names it: val/mAP50-95."""
        return self.record.declared.metric

    @property
    def margin(self) -> float:
        return self.record.declared.margin

    def of(self, arm: str) -> list[RunFacts]:
        """The runs of an arm."""
        return [run for run in self.runs if run.arm == arm]

    def pairs(self, arm: str) -> list[tuple[RunFacts, RunFacts]]:
        """(run of the reference, run of the arm) of every seed at which all arms have ended, as the verdict has it."""
        open_seeds = {run.seed for run in self.runs if not run.ended}
        both = zip(self.of(self.reference), self.of(arm), strict=True)
        return [(reference, run) for reference, run in both if run.seed not in open_seeds]


def read_facts(folder: Path) -> Facts:
    """Everything that the report tells about the comparison in `folder`."""
    record = read_record(folder)
    if record is None or record.declared is None:
        raise UserError(f"{folder} holds no comparison: {folder / RECORD} is missing or cannot be understood.")
    far = round(1.5 * record.window)  # batches: half as far again as the longest warm-up
    runs = []
    for arm in record.arms:
        for seed in record.seeds:
            line = record.run_of(arm.name, seed) or Run(arm=arm.name, seed=seed)
            runs.append(_read_run(folder, line, record.declared.metric, far))
    return Facts(folder.resolve().name, record, runs)


def finite(value: Any) -> float | None:
    """A number, or None for null, NaN and infinity."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _read_run(folder: Path, line: Run, metric: str, far: int) -> RunFacts:
    """A run and its files; a file that cannot be read costs its curve, never the report."""
    run = RunFacts(line.arm, line.seed, line.status, line)
    broken, epochs, batches, there = [], {}, {}, False
    try:
        place = folder / line.folder
        there = bool(line.folder) and place.is_dir()
    except (OSError, ValueError):  # a name that no file system takes
        return run
    if there and run.ended:
        try:
            rows = read_metrics(place / "metrics.csv")
            epochs = {int(row["epoch"]): row[metric] for row in rows if finite(row.get(metric)) is not None}
            broken += [] if rows else ["metrics.csv is missing or empty"]
        except Exception as e:  # whatever half a file makes csv and float do
            broken.append(f"metrics.csv cannot be read ({type(e).__name__}: {e})")
        try:
            batches = read_first_batches(place, far)
            broken += [] if batches else ["the TensorBoard events are missing or empty"]
        except Exception as e:  # as above, with protobuf
            broken.append(f"the TensorBoard events cannot be read ({type(e).__name__}: {e})")
    elif run.ended:
        broken.append("the run folder is missing")
    return RunFacts(run.arm, run.seed, run.status, line, there, epochs, batches, tuple(broken))


def read_first_batches(folder: Path, far: int) -> dict[str, Curve]:
    """Scalars of the batches 0 to `far` as {tag: {ni: value}}.

    As `runlog.read_scalars`, but it reads no further than it must (a long run costs no more than a short one), and
    keeps tags that not every batch has, as train/grad_norm.
    """
    from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

    curves: dict[str, Curve] = {}
    for file in sorted(folder.glob("events.out.tfevents.*")):  # by time: what a resume repeated replaces the first try
        for event in LegacyEventFileLoader(str(file)).Load():
            values = [v for v in event.summary.value if v.tag.startswith(BATCH_TAGS)]
            if values and event.step > far + FLUSH_EVERY:  # losses are written up to so many batches after rates
                break
            for value in values:
                if event.step <= far:
                    curves.setdefault(value.tag, {})[event.step] = value.simple_value
    return {tag: dict(sorted(curve.items())) for tag, curve in curves.items()}
