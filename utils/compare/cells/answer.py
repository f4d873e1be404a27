"""From the comparisons of all cells to what may be said of each arm in general, entered into cells.json."""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict

import numpy as np

from utils.compare.cells.family import Answer, Effect, Family, Pooled
from utils.compare.cells.words import answer_words
from utils.compare.record import Record
from utils.compare.report.words import margin_words
from utils.compare.statistics.folds import folded, widened
from utils.compare.statistics.looks import ALPHA
from utils.compare.statistics.paired import FEWEST, holm, paired
from utils.compare.statistics.pooled import FEWEST_CELLS, pool
from utils.compare.statistics.sweep import best_values, gain_at_best, swept, usable_height, wider

log = logging.getLogger(__name__)
QUESTIONS = {
    "score": "at the same settings",
    "best": "each arm at its best {key}, chosen on the other half of the {pairs}",
    "range": "decades of {key} within {within} of the best mean of {reference}",
}


def answer(family: Family, records: Sequence[Record]) -> None:
    """Fill in the answers once every run has ended; until then there are none, for cells and seeds are one look."""
    waiting = [run for record in records for run in record.runs if not run.ended]
    family.state = "incomplete" if waiting else "complete"
    family.answers = []
    if waiting:
        log.info(f"no answer over all cells yet: {len(waiting)} runs have not ended")
        return
    by_name = dict(zip((cell.name for cell in family.cells), records, strict=True))
    others = [arm.name for arm in records[0].arms[1:]]
    asked = ("best", "range") if family.key else ("score",)
    for question in asked:
        why = _unaskable(family, question)
        if why:
            unit = "decades" if question == "range" else "points"
            family.answers += [
                Answer(arm=arm, question=question, unit=unit, kind="none", sentence=f"{arm}: {why}.") for arm in others
            ]
            continue
        effects = {arm: [_effect(family, by_name, group, arm, question) for group in family.groups] for arm in others}
        family.answers += _judge(family, question, effects)
    family.answered = family.answered or time.strftime("%Y-%m-%d %H:%M:%S")


def _unaskable(family: Family, question: str) -> str:
    """Why a question has no answer; empty when it has."""
    values = [cell.value for cell in family.cells]
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) and v > 0 for v in values)
    if question == "range" and not numbers:
        return (
            f"no usable range of {family.key}: its values are no positive numbers, so there are no decades between them"
        )
    return ""


def _scores(family: Family, by_name: Mapping[str, Record], group: str, arm: str) -> tuple[np.ndarray, list]:
    """Scores (seeds, values) of an arm in a group, ascending by the swept value, and those values."""
    cells = [cell for cell in family.cells if cell.group == group]
    if all(isinstance(cell.value, int | float) for cell in cells):
        cells = sorted(cells, key=lambda cell: cell.value)
    columns = [
        [by_name[cell.name].run_of(arm, seed).counted for seed in by_name[cell.name].seeds[: family.promise.seeds]]
        for cell in cells
    ]
    return np.array(columns, float).T, [cell.value for cell in cells]


def _effect(family: Family, by_name: Mapping[str, Record], group: str, arm: str, question: str) -> tuple[Effect, float]:
    """The effect of an arm in one group, and its p; over folds those of the corrected tests."""
    reference, values = _scores(family, by_name, group, family.promise.reference)
    theirs, _ = _scores(family, by_name, group, arm)
    share = max(by_name[cell.name].share or 0.0 for cell in family.cells if cell.group == group)
    if question == "score":
        each = (theirs - reference)[:, 0]
        found = folded(each, share, family.promise.margin) if family.promise.folds else paired(each)
        return _effect_of(group, each, (found.low, found.high), share), found.p
    words = ""
    if question == "best":
        result = swept(reference, theirs, gain_at_best, True, share)
        words = "; ".join(
            f"{name} is best at {_either(values, scores)}"
            for name, scores in ((family.promise.reference, reference), (arm, theirs))
        )
    else:
        result = swept(reference, theirs, wider(np.array(values, float), family.promise.within), False, share)
        words = _reach(family, reference, theirs, arm)
    return _effect_of(group, result.each, (result.low, result.high), share, words), result.p


def _either(values: Sequence, scores: np.ndarray) -> str:
    """The value or the two values that the halves of the seeds choose."""
    return " or ".join(dict.fromkeys(str(values[int(k)]) for k in best_values(scores)))


def _reach(family: Family, reference: np.ndarray, theirs: np.ndarray, arm: str) -> str:
    """Whether a usable range may go on past the ends of the sweep."""
    height = usable_height(reference, family.promise.within)
    cut = [
        name
        for name, scores in ((family.promise.reference, reference), (arm, theirs))
        if scores.mean(0)[0] >= height or scores.mean(0)[-1] >= height
    ]
    return f"the range of {' and '.join(cut)} reaches an end of the sweep and may go on" if cut else ""


def _effect_of(group: str, each: np.ndarray, ends: tuple[float, float], share: float, words: str = "") -> Effect:
    """An effect from that of each pair; an end of its interval that is infinite is none."""
    low, high = (float(x) if np.isfinite(x) else None for x in ends)
    n, sd = len(each), float(np.std(each, ddof=1))
    variance = widened(sd, n, share) ** 2 / n
    return Effect(
        group=group, mean=float(each.mean()), sd=sd, low=low, high=high, pairs=n, variance=variance, words=words
    )


def _judge(family: Family, question: str, effects: Mapping[str, list[tuple[Effect, float]]]) -> list[Answer]:
    """An answer for each arm; p is Holm's over the arms."""
    several = len(family.groups) > 1
    margin = family.promise.margin if question != "range" else 0.0
    pooled = {}
    if several:
        for arm, found in effects.items():
            variances = [effect.variance for effect, _ in found]
            pooled[arm] = pool([effect.mean for effect, _ in found], variances, margin)
    raw = [pooled[arm].p if several else found[0][1] for arm, found in effects.items()]
    alike = [pooled[arm].p_equivalence if several and margin else 1.0 for arm in effects]
    answers = []
    for arm, p, p_alike in zip(effects, holm(raw), holm(alike), strict=True):
        found = [effect for effect, _ in effects[arm]]
        enough = len(found) >= FEWEST_CELLS if several else found[0].pairs >= FEWEST
        mean = pooled[arm].mean if several else found[0].mean
        kind = "none" if several and not enough else _kind(mean, float(p), float(p_alike), enough)
        entry = (
            Pooled(**{k: v for k, v in asdict(pooled[arm]).items() if k in Pooled.model_fields}) if several else None
        )
        if entry:
            entry.p = float(p)
        unit = "decades" if question == "range" else "points"
        told = Answer(arm=arm, question=question, unit=unit, kind=kind, sentence="", effects=found, pooled=entry)
        told.sentence = sentence(family, told, float(p))
        answers.append(told)
    return answers


def _kind(mean: float, p: float, p_alike: float, enough: bool) -> str:
    if not enough:
        return "undecided"
    if p <= ALPHA:
        return "helps" if mean > 0 else "hurts"
    return "no difference" if p_alike <= ALPHA else "undecided"


def sentence(family: Family, told: Answer, p: float) -> str:
    """An answer in a sentence, with its numbers."""
    promise = family.promise
    asked = QUESTIONS[told.question].format(
        key=family.key, within=margin_words(promise.within), reference=promise.reference, pairs=promise.pairs
    )
    words = answer_words(told, promise.margin)
    scale, unit = (100, "points") if told.unit == "points" else (1, "decades")
    head = f"{told.arm} against {promise.reference}, {asked}: {words}"
    if told.pooled is None:
        effect = told.effects[0]
        ends = _interval(effect.low, effect.high, scale)
        few = f"; under {FEWEST} {promise.pairs} nothing can be claimed" if effect.pairs < FEWEST else ""
        more = f"; {effect.words}" if effect.words else ""
        return (
            f"{head}, {scale * effect.mean:+.2f} {unit} ({ends}, {effect.pairs} {promise.pairs}, p {p:.2g}){few}{more}."
        )
    n, pooled = len(told.effects), told.pooled
    better = round((pooled.better or 0) * n)
    text = f"{head}, {scale * pooled.mean:+.2f} {unit} over {n} data sets and weights ("
    text += (
        f"{_interval(pooled.low, pooled.high, scale)}, p {p:.2g}); better in {better} of {n}; between them the effect "
    )
    text += f"varies by a standard deviation of {scale * (pooled.tau or 0):.2f}"
    if told.kind == "none":
        return f"{text}; under {FEWEST_CELLS} of them nothing is claimed in general: look at each."
    ahead = _interval(pooled.new_low, pooled.new_high, scale).removeprefix("95 % interval ")
    return f"{text}; a new data set would show {ahead} (95 %)."


def _interval(low: float | None, high: float | None, scale: float) -> str:
    if low is None or high is None:
        return "no interval from so few"
    return f"95 % interval {scale * low:+.2f} to {scale * high:+.2f}"
