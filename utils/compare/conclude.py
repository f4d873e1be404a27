"""From the runs of a comparison to what may be said of it, entered into its record."""

import logging
import math
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np

from utils.compare.record import ArmVerdict, Look, Record, Run
from utils.compare.scores import mean_differences, secondary
from utils.compare.statistics.pictures import over_pictures
from utils.compare.statistics.verdict import Verdict, fold_verdicts, verdicts
from utils.evaluation.bootstrap import read_draws

log = logging.getLogger(__name__)
CLAIMS = ("helps", "hurts", "no difference")


def conclude(folder: Path, record: Record) -> None:
    """Fill in secondary measures, verdicts and today's look; pairs are the seeds for which every arm has ended."""
    arms = [arm.name for arm in record.arms]
    runs = {(run.arm, run.seed): run for run in record.runs}
    _measure(folder, record, runs)
    ended = {key for key, run in runs.items() if run.ended}
    seeds = [seed for seed in record.seeds if all((arm, seed) in ended for arm in arms)]
    record.state = "complete" if len(ended) == len(runs) else "incomplete"
    record.verdicts, record.secondary = {}, {}
    seen = [look.pairs for look in record.looks]
    reference, *others = arms
    for arm in others:
        pairs = [(runs[arm, seed].secondary, runs[reference, seed].secondary) for seed in seeds]
        record.secondary[arm] = mean_differences([a for a, _ in pairs], [r for _, r in pairs]) if pairs else {}
    if len(seeds) < max([2, *seen]):
        log.info(f"no verdict: {len(seeds)} whole pairs, {max([2, *seen])} are needed")
        return
    scores = {arm: [_score(runs[arm, seed]) for seed in seeds] for arm in arms}
    declared = record.declared
    theirs = {arm: scores[arm] for arm in others}
    if record.folds:
        if record.state != "complete":
            log.info("no verdict: it is over all folds")
            return
        found = fold_verdicts(scores[reference], theirs, record.share, declared.margin)
    else:
        found = verdicts(scores[reference], theirs, seen, declared.max_seeds, declared.margin)
    for arm, verdict in found.items():
        record.verdicts[arm] = _entry(verdict, _claimed(record.looks, arm, len(seeds)))
        if not record.folds and not {"data", "fold", "fold_seed"} & record.differs.keys():  # the same pictures
            ends = _over_pictures(folder, record, [(runs[arm, seed], runs[reference, seed]) for seed in seeds])
            record.verdicts[arm].low_pictures, record.verdicts[arm].high_pictures = ends
    kinds = {arm: entry.kind for arm, entry in record.verdicts.items()}
    look = Look(pairs=len(seeds), when=time.strftime("%Y-%m-%d %H:%M:%S"), verdicts=kinds)
    record.looks = [*(old for old in record.looks if old.pairs != len(seeds)), look]


def _over_pictures(folder: Path, record: Record, pairs: list[tuple[Run, Run]]) -> tuple[float | None, float | None]:
    """Interval of the mean difference over pictures and seeds; a run that diverged scores 0 on whatever is drawn.

    None, None where the metric is not resampled, a run has left no draws, or two are not of as many pictures.
    """
    name = record.declared.metric.removeprefix("val/")
    found = [[read_draws(folder / run.folder, "last", name) for run in pair if run.score is not None] for pair in pairs]
    sizes = {None if draws is None else (len(draws[0]), draws[1]) for pair in found for draws in pair}
    if len(sizes) != 1 or None in sizes:
        return None, None
    ((draws, pictures),) = sizes
    there = iter([values for pair in found for values, _ in pair])
    drawn = [[np.zeros(draws) if run.score is None else next(there) for run in pair] for pair in pairs]
    arm, reference = np.array(drawn).swapaxes(0, 1)  # (n, draws) each
    low, high = over_pictures(arm, reference, np.array([a.counted - r.counted for a, r in pairs]), pictures)
    return (None, None) if math.isnan(low) else (low, high)


def _measure(folder: Path, record: Record, runs: dict[tuple[str, int], Run]) -> None:
    """Secondary measures of every run that ended; the reference's runs first, for they set the height to reach."""
    reference = record.declared.reference
    for run in sorted(runs.values(), key=lambda run: run.arm != reference):
        partner = runs[reference, run.seed]
        target = partner.score if record.declared.metric == "val/mAP50-95" else None
        if run.ended:
            run.secondary = secondary(folder / run.folder, record.window, target)


def _score(run: Run) -> float:
    """NaN for a run that diverged: `verdicts` says so."""
    return float("nan") if run.score is None else run.score


def _claimed(looks: list[Look], arm: str, pairs: int) -> Look | None:
    """The first earlier look that decided about an arm: alpha was spent on it, so more pairs do not take it back."""
    return next((look for look in looks if look.pairs < pairs and look.verdicts.get(arm) in CLAIMS), None)


def _entry(verdict: Verdict, claimed: Look | None) -> ArmVerdict:
    """A verdict as it stands in comparison.json."""
    values = asdict(verdict)
    r = values.pop("paired")
    entry = {
        "kind": verdict.kind,
        "sentence": verdict.sentence,
        "pairs": r["n"],
        **{key: r[key] for key in ("mean", "sd", "low", "high", "p_t")},
        "p_sign_flip": None if math.isnan(r["p_flip"]) else r["p_flip"],
        "p": r["p"],
        **{k: values[k] for k in ("p_adjusted", "level", "p_equivalence", "level_equivalence", "seeds_more")},
        "diverged": list(verdict.diverged),
    }
    name = verdict.sentence.partition(":")[0]
    kind = claimed.verdicts[name] if claimed else verdict.kind
    if kind != verdict.kind:
        entry |= {"kind": kind, "seeds_more": 0}
        words = "no difference larger than the margin" if kind == "no difference" else kind
        entry["sentence"] = (
            f"{name}: {words}, as was found at the look at {claimed.pairs} pairs. "
            f"Today's look, taken alone: {verdict.sentence}"
        )
    return ArmVerdict(**entry)
