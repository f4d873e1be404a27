"""The result of a comparison as comparison.json holds it: declared, made by, run, seen when, and what may be said."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from utils.compare.arms import Arm, cautions, split_settings
from utils.compare.fingerprint import Fingerprint
from utils.compare.statistics.paired import counted
from utils.schedule.plan import group_names
from utils.schedule.rates import build_schedule, within_pictures
from utils.schedule.warn import of_batch

FORMAT = 1  # of comparison.json: raise it when a key changes its meaning
ENDED = ("done", "diverged")  # a run of this status has a score; others are made again


class Part(BaseModel):
    """Keys that a file lacks have their default, and keys of later versions are passed over."""

    model_config = ConfigDict(use_attribute_docstrings=True)


class Run(Part):
    """One run of train.py: an arm with a seed."""

    arm: str
    """The name of its arm."""
    seed: int
    """The number of its pair; the seed of the training is this plus the arm's own."""
    status: str = "missing"
    """missing | done | diverged | failed; a failed run is made again."""
    folder: str = ""
    """Where its files are, relative to the folder of the comparison."""
    exit: int | None = None
    """The exit code of train.py."""
    command: list[str] | None = None
    """The command that made it."""
    seconds: float | None = None
    """How long it took."""
    device: str | None = None
    """What it ran on: cpu, or the number of a GPU."""
    score: float | None = None
    """The declared metric after the last epoch; none unless it is done."""
    message: str | None = None
    """The last lines of one that did not come to its end."""
    secondary: dict[str, float | None] | None = None
    """Measures that are shown and not tested."""

    @property
    def ended(self) -> bool:
        """Whether it came to a score, be it that of a run that diverged."""
        return self.status in ENDED

    @property
    def counted(self) -> float | None:
        """The score as the statistics count it; None for a run that has not ended."""
        return float(counted(float("nan") if self.score is None else self.score)) if self.ended else None


class ArmPlan(Part):
    """One setting under comparison."""

    name: str
    """What it is called; also the name of its folder."""
    words: list[str] = []
    """The hyp file and key=value words it was given."""
    nw: int = 0
    """Batches of warm-up."""
    nb: int = 0
    """Batches of an epoch."""
    total: int = 0
    """Batches of the run."""
    seed_offset: int = 0
    """What is added to the seed of each pair."""


class Declared(Part):
    """What is fixed before the first look."""

    metric: str
    """What decides, as metrics.csv names it."""
    margin: float
    """Differences below it do not matter; a fraction of mAP."""
    max_seeds: int
    """Seeds of the last look."""
    reference: str
    """The arm that the others are compared with."""


class Look(Part):
    """A look at the scores."""

    pairs: int
    """How many pairs were seen."""
    when: str = "-"
    """The date and time."""
    verdicts: dict[str, str] = {}
    """What was said of each arm: helps | hurts | no difference | undecided."""


class ArmVerdict(Part):
    """What may be said of an arm against the reference; differences are fractions of mAP."""

    kind: str
    """helps | hurts | no difference | undecided."""
    sentence: str
    """The verdict with its numbers."""
    pairs: int
    """Pairs it rests on."""
    mean: float | None = None
    """Mean difference."""
    sd: float | None = None
    """Standard deviation of the differences."""
    low: float | None = None
    """Lower end of the 95 % interval of the mean."""
    high: float | None = None
    """Upper end of it."""
    low_pictures: float | None = None
    """Lower end of its 95 % interval over the pictures of val and the seeds; none for folds or where draws lack."""
    high_pictures: float | None = None
    """Upper end of it."""
    p_t: float | None = None
    """p of the paired t test."""
    p_sign_flip: float | None = None
    """p of the sign-flip test."""
    p: float | None = None
    """The larger of the two."""
    p_adjusted: float | None = None
    """The same after Holm over the arms."""
    level: float | None = None
    """What it may be at most for an effect to be claimed at this look."""
    p_equivalence: float | None = None
    """p of equivalence within the margin, after Holm over the arms."""
    level_equivalence: float | None = None
    """What it may be at most for equivalence to be claimed."""
    seeds_more: int = 0
    """Seeds to add for a decision with a power of 80 %."""
    diverged: list[int] = []
    """Runs of the reference and of the arm that diverged."""


class Difference(Part):
    """Mean paired difference of a secondary measure with its 95 % interval."""

    mean: float
    """Arm minus reference."""
    low: float | None
    """Lower end; none for a single pair."""
    high: float | None
    """Upper end."""
    pairs: int
    """Pairs in which both runs have the measure."""


class Record(Part):
    """A comparison."""

    format: int = FORMAT
    """The version of this layout."""
    state: str = "incomplete"
    """complete | incomplete: whether every run has ended."""
    command: list[str] = []
    """The command that was given last."""
    started: str = "-"
    """When it was begun."""
    updated: str = "-"
    """When it was written last."""
    declared: Declared | None = None
    """What is fixed before the first look."""
    seeds: list[int] = []
    """The pairs, as far as they are asked for."""
    folds: int | None = None
    """Folds of train + val, when a pair is a fold; none when it is a seed."""
    repeats: int = 1
    """How often the folds are dealt."""
    arms: list[ArmPlan] = []
    """The settings under comparison; the first is the reference."""
    settings: dict[str, dict[str, Any]] = {}
    """Everything that the runs of each arm are told."""
    differs: dict[str, dict[str, Any]] = {}
    """Keys in which the arms differ, with the value of each."""
    shared: dict[str, Any] = {}
    """All other keys."""
    window: int = 1
    """Batches of the longest warm-up, over which loss and gradient are looked at."""
    notes: list[str] = []
    """What a reader must know about the arms."""
    fingerprint: Fingerprint = Field(default_factory=Fingerprint)
    """What the runs were made by and from."""
    looks: list[Look] = []
    """When scores were looked at, and what was said."""
    runs: list[Run] = []
    """Every run, made or missing."""
    verdicts: dict[str, ArmVerdict] = {}
    """What may be said of each arm but the first."""
    secondary: dict[str, dict[str, Difference]] = {}
    """Differences of the secondary measures of each arm but the first."""

    def pair(self, seed: int) -> str:
        """What a pair is called: seed 3, or fold 4/6."""
        if self.folds is None:
            return f"seed {seed}"
        again = f" of deal {seed // self.folds + 1}" if self.repeats > 1 else ""
        return f"fold {seed % self.folds + 1}/{self.folds}{again}"

    @property
    def share(self) -> float | None:
        """Pictures of a fold's val / those of its train, by which folds depend on each other; None for seeds."""
        if self.folds is None:
            return None
        fractions = [own.get("fraction", 1.0) for own in self.settings.values()]
        return 1 / ((self.folds - 1) * min(fractions, default=self.shared.get("fraction", 1.0)))

    def run_of(self, arm: str, seed: int) -> Run | None:
        """The run of an arm with a seed."""
        return next((run for run in self.runs if (run.arm, run.seed) == (arm, seed)), None)


def new_record(
    arms: Sequence[Arm],
    pictures: Mapping[str, int],
    made_by: Fingerprint,
    devices: Sequence[str],
    argv: Sequence[str],
    folds: int | None = None,
    repeats: int = 1,
) -> Record:
    """The record of a comparison that has not begun: its arms, what differs between them, what they are made from.

    pictures: that each arm trains on, before `fraction`. devices: names of those that runs are spread over. folds: of
    train + val, dealt so many times, when a pair is a fold.
    """
    plans, notes = [], []
    for arm in arms:
        hyp, _, nb = within_pictures(pictures[arm.name], arm.hyp)
        schedule = build_schedule(hyp, nb, hyp.batch, group_names(hyp))
        plan = {"name": arm.name, "words": list(arm.words), "nw": schedule.nw, "nb": nb, "total": schedule.total}
        plans.append(ArmPlan(**plan, seed_offset=arm.hyp.seed))
        notes += [f"{arm.name}: {line}" for line in of_batch(arm.hyp.batch, hyp.batch)]
    differs, shared = split_settings(arms)
    notes = cautions(differs) + notes
    notes += [f"runs are spread over unlike devices: {', '.join(devices)}"] if len(devices) > 1 else []
    notes += [] if differs else ["the arms are identical (an A/A test): what they differ by is noise"]
    return Record(
        command=["compare.py", *(word.encode("utf-8", "replace").decode() for word in argv)],
        started=time.strftime("%Y-%m-%d %H:%M:%S"),
        arms=plans,
        settings={arm.name: arm.settings() for arm in arms},
        differs=differs,
        shared=shared,
        window=max(plan.nw for plan in plans) or max(plans[0].total // 10, 1),
        notes=notes,
        fingerprint=made_by,
        folds=folds,
        repeats=repeats,
    )
