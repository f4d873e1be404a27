"""The best trials against the default on fresh seeds, by compare.py; how much of the gain was luck; hyps/tuned.yaml."""

import logging
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from utils.compare.cells.declare import as_word
from utils.compare.folder import read_record
from utils.compare.record import ArmVerdict, Record
from utils.compare.report.words import interval, points
from utils.config.schema import Hyp
from utils.env import REPO
from utils.errors import SomeFailed
from utils.files import write_whole
from utils.tune.search.study import Told
from utils.tune.search.trials import show

log = logging.getLogger(__name__)
FRESH = 1000  # added to the seed: no trial has seen these
NAME = "verify"


@dataclass(frozen=True)
class Verified:
    """What a trial is worth on fresh seeds."""

    trial: Told
    verdict: ArmVerdict
    found: float | None  # gain over the default in the search, fraction of mAP; none where the default was not tried

    @property
    def luck(self) -> float | None:
        """What of that gain was luck."""
        if self.found is None or self.verdict.mean is None:
            return None
        return self.found - self.verdict.mean


def compare_best(
    folder: Path, best: Sequence[Told], words: Sequence[str], hyp: Hyp, options: Any, slots: int
) -> Record | None:
    """Run compare.py on the default and the best trials; None when a signal ended it. Repeated, it goes on."""
    command = [sys.executable, str(REPO / "compare.py"), *words, "--seed", str(hyp.seed + FRESH)]
    command += ["--arm", "default"]
    for trial in best:
        command += [
            "--arm",
            f"trial{trial.number}",
            *(f"{key}={as_word(value)}" for key, value in trial.params.items()),
        ]
    command += ["--seeds", str(options.seeds), "--margin", f"{options.margin:g}", "--metric", options.metric]
    command += ["--project", str(folder), "--name", NAME, "--jobs", str(slots)]
    command += ["--engine", options.engine, "--run-gpus", f"{options.run_gpus:g}"]
    command += ["--address", options.address] if options.address else []
    command += ["--threads", str(options.threads)] if options.threads else []
    command += ["--devices", options.devices] if options.devices else []
    process = subprocess.Popen(command)
    try:
        code = process.wait()
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()
    if code:
        raise SomeFailed(f"the comparison on fresh seeds ended with exit code {code}. Repeat the command to go on.")
    return read_record(newest(folder))


def newest(folder: Path) -> Path:
    """The folder of the comparison that was written last: code that changed begins a new one."""
    found = [path for path in folder.glob(f"{NAME}*") if (path / "comparison.json").is_file()]
    return max(found, key=lambda path: (path / "comparison.json").stat().st_mtime)


def judge(record: Record, best: Sequence[Told], default: Told | None) -> list[Verified]:
    """What each of the best trials came to."""
    base = default.value if default else None
    return [
        Verified(trial, record.verdicts[f"trial{trial.number}"], None if base is None else (trial.value or 0) - base)
        for trial in best
        if f"trial{trial.number}" in record.verdicts
    ]


def winner(verified: Sequence[Verified]) -> Verified | None:
    """The trial that certainly helps, the largest mean first; None where none does."""
    sure = [v for v in verified if v.verdict.kind == "helps"]
    return max(sure, key=lambda v: v.verdict.mean or 0, default=None)


def sentence(v: Verified, trials: int, seed: int) -> str:
    """What the search said of a trial, what fresh seeds say, and the difference."""
    d = v.verdict
    fresh = f"on {d.pairs} fresh seeds {points(d.mean, unit=False)}"
    if d.low is not None and d.high is not None:
        fresh += f" (95 % interval {interval(d.low, d.high)})"
    if v.found is None:
        return f"trial {v.trial.number}: {fresh} points against the default, {d.kind}; it was not tried in the search"
    said = f"trial {v.trial.number}: {points(v.found)} against the default in the search, {fresh}: {d.kind}"
    if v.luck and v.luck > 0:
        said += f"; {points(v.luck, unit=False)} were luck of the pick among {trials} trials and of seed {seed}"
    elif v.luck:
        said += f"; the search, on seed {seed}, had found {-100 * v.luck:.2f} less"
    return said


def write_tuned(path: Path, given: Mapping[str, Any], hyp: Hyp, v: Verified, metric: str, where: Path) -> Path:
    """Write what differs from the defaults of the schema, the searched keys with their gain; returns the path.

    given: the settings of all runs; those that say what is trained and where are left out. An existing file is not
    overwritten: the name is numbered.
    """
    own = {"weights", "data", "device", "workers", "project", "name", "seed", "noplots"}
    values = {**hyp.model_dump(), **v.trial.params}
    defaults = Hyp().model_dump()
    kept = {k: val for k, val in values.items() if k not in own and (val != defaults[k] or k in v.trial.params)}
    d = v.verdict
    searched = ", ".join(f"{key} {show(value)}" for key, value in v.trial.params.items())
    head = [
        f"# Found by tune.py search: {searched}.",
        f"# {metric} against the settings it began with: {points(d.mean)} (95 % interval {interval(d.low, d.high)}, "
        f"{d.pairs} fresh pairs), on {given.get('data', hyp.data)}",
        f"# from {given.get('weights', hyp.weights)}. Every run: {where.as_posix()}",
    ]
    number, place = 1, path
    while place.exists():
        number += 1
        place = path.with_name(f"{path.stem}{number}{path.suffix}")
    text = "\n".join(head) + "\n" + yaml.safe_dump(kept, sort_keys=False, allow_unicode=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    write_whole(place, text.encode())
    return place
