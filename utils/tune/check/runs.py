"""The steps of a check that are made by runs of train.py."""

from pathlib import Path
from typing import Any

from utils.compare.runs import last_lines
from utils.errors import SomeFailed
from utils.run.log import read_metrics
from utils.tune.check.curves import of_curves
from utils.tune.check.lab import Lab, OutOfTime
from utils.tune.check.lecture import Finding, Trial, of_grid, of_longer
from utils.tune.check.trials import as_plain, first_complaint, make_trials, plan_grid, plan_longer


def run_grid(lab: Lab) -> Finding:
    """Step 4: runs of train.py over rates and weight decays, as many and as long as half of the time allows."""
    hyp, rate = lab.bench.hyp, lab.numbers["rate"]
    plan = lab.numbers.get("grid") or plan_grid(hyp, rate, lab.left / 2, lab.epoch, len(lab.slots))
    points, epochs = plan
    if not points:
        raise OutOfTime
    lab.numbers["grid"] = [points, epochs]
    trials, _ = make_trials(lab, points, epochs)
    require_some(lab.folder / "runs", trials)
    lab.numbers["trials4"] = as_plain(trials)
    return of_grid(trials, epochs, len(points) - len(trials))


def run_longer(lab: Lab) -> Finding:
    """Step 5: the best of them for as long as the time allows."""
    before, hyp = [Trial(**t) for t in lab.numbers["trials4"]], lab.bench.hyp
    plan = lab.numbers.get("longer")
    plan = plan or plan_longer(hyp, lab.numbers["grid"][1], 0.8 * lab.left, lab.epoch, len(lab.slots))
    runs, epochs = plan
    if not runs:
        raise OutOfTime
    lab.numbers["longer"] = [runs, epochs]
    order = sorted(before, key=lambda t: t.score or 0.0, reverse=True)[:runs]
    trials, places = make_trials(lab, [(t.lr0, t.weight_decay) for t in order], epochs)
    require_some(lab.folder / "runs", trials)
    lab.numbers["trials5"] = as_plain(trials)
    k = max(range(len(trials)), key=lambda k: trials[k].score or 0.0)
    lab.numbers["best"] = str(places[k])
    return of_longer(trials, before, epochs)


def require_some(folder: Path, trials: list[Trial]) -> None:
    """SomeFailed with what a run said where none came to an end."""
    if not trials:
        raise SomeFailed(f"no run of {folder} came to an end. One of them said:\n{first_complaint(folder, last_lines)}")


def read_curves(lab: Lab) -> Finding:
    """Step 6: the learning curves of the best run."""
    return of_curves(read_metrics(Path(lab.numbers["best"]) / "metrics.csv"))


def best_trial(trials: list[dict[str, Any]]) -> Trial | None:
    """The one with the highest score."""
    return max((Trial(**t) for t in trials), key=lambda t: t.score or 0.0, default=None)
