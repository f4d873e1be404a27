"""More epochs for a run (train.py --extend RUN --epochs N): the longer one goes on from what both have alike."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.config.schema import Command, Hyp, check
from utils.config.values import read_yaml
from utils.errors import UserError, suggest
from utils.run.state.settings import FREE, TAIL, change, given_settings, others
from utils.schedule.past import Alike, alike, stable_part
from utils.schedule.plan import group_names
from utils.schedule.rates import build_schedule, group_factor

LEAST = 0.01  # of lr0: the rate that is offered where a run ends at 0


@dataclass(frozen=True)
class Extension:
    """A run, and the longer one that is to go on from it."""

    folder: Path  # of the run
    before: Hyp  # its settings
    hyp: Hyp  # those of the longer one

    def begins_at(self, nb: int, two_branches: bool = False, kept_at: int | None = None) -> int:
        """The batch that the longer run goes on before; UserError where it would have another past.

        nb: batches per epoch; two_branches: as `alike` has it; kept_at: where a state is, None: where one is to be.
        """
        schedule = build_schedule(self.before, nb, self.before.batch, group_names(self.before))
        part = stable_part(schedule, self.before, two_branches)
        at, same = part.batches if kept_at is None else kept_at, alike(self.before, self.hyp, nb, two_branches)
        if not at or same.batches < at:
            never = not at and same.batches > max(schedule.nw, nb)  # of these two alone it would not be true
            raise self.refused((part if never else same).why, nb)
        return at

    def refused(self, why: str, nb: int) -> UserError:
        """The error that says why not, and offers the nearest thing."""
        return UserError(
            f"{self.folder} cannot be extended to {self.hyp.epochs} epochs: {why}. The nearest thing is a new run from "
            f"its weights at the rate of its end: {shlex.join(self.nearest(nb))}. With decay=wsd or decay=constant, "
            "a number for ema_tau, and a warm-up that warmup_max does not cut, a run can be extended."
        )

    def nearest(self, nb: int) -> list[str]:
        """The command of a run that goes on from the weights where the run's own schedule ends."""
        hyp, weights = self.before, self.folder / "weights"
        best = weights / ("best.pt" if (weights / "best.pt").is_file() else "last.pt")
        schedule = build_schedule(hyp, nb, hyp.batch, group_names(hyp))
        name = next((name for name in schedule.lr if name.endswith("weight")), next(iter(schedule.lr)))
        rate = schedule(schedule.total - 1).lr[name] / group_factor(name, hyp, hyp.batch)
        rate = max(float(f"{rate or LEAST * hyp.lr0:.6g}"), hyp.min_lr or 0.0)
        words = ["python", "train.py", "--hyp", str(self.folder / "hyp.yaml"), "--weights", str(best)]
        words += ["--epochs", str(self.hyp.epochs - hyp.epochs), f"lr0={rate:g}", "decay=constant", "warmup=none"]
        words += [] if hyp.recipe == "preheat" else ["recipe=preheat"]
        own = [key for key in ("warmup_epochs_backbone", "warmup_epochs_head") if getattr(hyp, key) is not None]
        return words + [f"{key}=null" for key in own] + (["snapshots=false"] if hyp.snapshots else [])


def find_run(command: Command) -> Path:
    """The folder of the run that --extend names, by itself or by a file in its weights/."""
    together = [key for key in ("resume", "resume_anyway", "exist_ok") if getattr(command, key)]
    if together:
        words = ", ".join(f"--{key.replace('_', '-')}" for key in together)
        raise UserError(
            f"--extend does not go with {words}: it makes a new run, in a new folder, that equals one planned with so "
            f"many epochs or none at all. Leave out {words}."
        )
    path = Path(command.extend)
    for folder in (path, path.parent, path.parent.parent):
        if (folder / "hyp.yaml").is_file() and (folder / "weights").is_dir():
            return folder
    near = [run.parent.name for run in path.parent.glob("*/hyp.yaml")] if path.parent.is_dir() else []
    raise UserError(
        f"no run at {path}: --extend wants the folder of one, as runs/train/exp, with hyp.yaml and weights/ in it."
        f"{suggest(path.name, near)}"
    )


def extension(folder: Path, before: Mapping[str, Any], hyp: Hyp) -> Extension:
    """The longer run, of what is given on the command line and what the run was made with."""
    given, old = given_settings(hyp, without=()), before["epochs"]
    if "epochs" not in given or given["epochs"] <= old:
        told = f"{given['epochs']} is not more than" if "epochs" in given else "say how many, more than"
        raise UserError(f"--extend wants --epochs, of the whole run: {told} the {old} epochs of {folder}.")
    places = {"project", "name"}
    differ = others(given, before, (FREE - {"batch"}) | TAIL | places)
    if differ:
        raise UserError(
            f"--extend goes on with a run as it was started: {', '.join(sorted(differ))} cannot change "
            f"({change(differ, before)}). What may: {', '.join(sorted(TAIL))}, and where it runs."
        )
    return Extension(folder, check(dict(before)), check({**before, **given}))


def extension_of_yaml(command: Command, hyp: Hyp) -> Extension:
    """The same by the run's hyp.yaml alone, for a plan."""
    folder = find_run(command)
    return extension(folder, read_yaml(folder / "hyp.yaml"), hyp)


def extend_lines(stable: Alike, hyp: Hyp) -> list[str]:
    """What a plan says of more epochs: from where on, or, of a decay that seems to be made for them, why not."""
    if stable.batches:
        return [f"extend    more epochs can go on from batch {stable.batches} (--extend)"]
    return [f"extend    not by --extend: {stable.why}"] if hyp.decay in ("wsd", "constant") else []
