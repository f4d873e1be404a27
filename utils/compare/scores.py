"""What a run of a comparison came to: its score, and measures beside it."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from utils.compare.record import Difference, Record
from utils.compare.statistics.folds import expected
from utils.compare.statistics.paired import t_interval
from utils.run.log import read_metrics, read_scalars

SECONDARY = ("best", "best_epoch", "mAP50", "area", "epochs_to_90", "loss_spike", "grad_norm")
MAP = "val/mAP50-95"
LOSSES = ("train/box", "train/cls", "train/dfl", "train/obj")


def final_score(folder: Path, metric: str) -> float | None:
    """The metric after the last epoch of a run; None where it is not in metrics.csv, or no number."""
    try:
        rows = read_metrics(folder / "metrics.csv")
    except (OSError, ValueError):
        return None
    value = rows[-1].get(metric) if rows else None
    return value if value is not None and math.isfinite(value) else None


def secondary(folder: Path, window: int, target: float | None) -> dict[str, float | None]:
    """Measures that are shown and not tested.

    window: batches over which loss and gradient are looked at; target: mAP50-95 to be reached, of the reference's run
    with the same seed.
    """
    try:
        rows = [row for row in read_metrics(folder / "metrics.csv") if MAP in row]
        losses = read_scalars(folder, LOSSES, most=0) if folder.is_dir() else {}
        norms = read_scalars(folder, ("train/grad_norm",), most=0) if folder.is_dir() else {}
    except (OSError, ValueError):
        return dict.fromkeys(SECONDARY)
    epoch, score = (np.array([row[key] for row in rows]) for key in ("epoch", MAP))
    measures: dict[str, float | None] = dict.fromkeys(SECONDARY)
    if len(rows):
        k = int(score.argmax())
        measures |= {"best": score[k], "best_epoch": epoch[k], "mAP50": rows[-1].get("val/mAP50")}
        measures["area"] = _area(epoch, score)
        reached = epoch[score >= 0.9 * target] if target is not None else epoch[:0]
        measures["epochs_to_90"] = reached[0] if len(reached) else None
    loss = sum((np.array(losses[tag]) for tag in LOSSES if tag in losses), np.zeros(len(losses.get("ni", []))))[:window]
    if len(loss) and loss[0] > 0:
        measures["loss_spike"] = loss.max() / loss[0]
    norm = [n for ni, n in zip(norms.get("ni", []), norms.get("train/grad_norm", []), strict=True) if ni < window]
    measures["grad_norm"] = max((n for n in norm if math.isfinite(n)), default=None)
    return {key: None if value is None or not math.isfinite(value) else float(value) for key, value in measures.items()}


def expected_scores(record: Record) -> dict[str, tuple[float, float, float]]:
    """What one model of each arm can be expected to score on new pictures: mean over all folds, 95 % interval.

    Empty where pairs are seeds, which tell nothing of other pictures, and until every fold has ended.
    """
    if record.share is None or len(record.seeds) < 2 or not all(run.ended for run in record.runs):
        return {}
    scores = {arm.name: [record.run_of(arm.name, seed).counted for seed in record.seeds] for arm in record.arms}
    return {arm: expected(its, record.share) for arm, its in scores.items()}


def _area(epoch: np.ndarray, score: np.ndarray) -> float:
    """Mean height of the mAP curve over the epochs of a run; before its first point it is 0 at epoch 0."""
    if epoch[0] > 0:
        epoch, score = np.concatenate([[0], epoch]), np.concatenate([[0], score])
    return float(np.trapezoid(score, epoch) / epoch[-1]) if epoch[-1] else float(score[-1])


def mean_differences(
    arm: Sequence[Mapping[str, float | None]], reference: Sequence[Mapping[str, float | None]]
) -> dict[str, Difference]:
    """Mean paired difference of every secondary measure with its 95 % t interval; pairs that lack it are left out."""
    found = {}
    for key in SECONDARY:
        d = np.array([a[key] - r[key] for a, r in zip(arm, reference, strict=True) if None not in (a[key], r[key])])
        if len(d) == 0:
            continue
        low, high = t_interval(d.mean(), d.std(ddof=1), len(d)) if len(d) > 1 else (None, None)
        found[key] = Difference(mean=float(d.mean()), low=low, high=high, pairs=len(d))
    return found
