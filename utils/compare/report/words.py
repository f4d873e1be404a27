"""Numbers and facts of a comparison as words; points are 100 x the fraction of mAP."""

import math
import shlex
from collections.abc import Sequence

from utils.compare.record import ArmVerdict
from utils.compare.report.facts import Facts, RunFacts, finite
from utils.compare.statistics.paired import FEWEST
from utils.drawing.page import clean

NOTHING = "-"


def points(value: float | None, unit: bool = True) -> str:
    """A difference of two scores: +0.35 points."""
    return NOTHING if finite(value) is None else f"{100 * value:+.2f}{' points' if unit else ''}"


def interval(low: float | None, high: float | None) -> str:
    """The ends of an interval of points."""
    return NOTHING if finite(low) is None or finite(high) is None else f"{100 * low:+.2f} to {100 * high:+.2f}"


def score(value: float | None) -> str:
    """A score as train.py prints it."""
    return NOTHING if finite(value) is None else f"{value:.4f}"


def expected_words(own: tuple[float, float, float] | None) -> str:
    """The ends of the interval of an arm's own score over folds."""
    return NOTHING if own is None else f"{score(max(own[1], 0.0))} to {score(min(own[2], 1.0))}"


def number(value: float | None) -> str:
    """Three significant digits, or all before the point."""
    return NOTHING if finite(value) is None else f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def change(value: float) -> str:
    """The same, with its sign."""
    return ("+" if value >= 0 else "") + number(value)


def duration(seconds: float | None) -> str:
    """61 s, 12.3 min, 1.5 h."""
    if finite(seconds) is None:
        return NOTHING
    unit, name = (1, "s") if seconds < 120 else (60, "min") if seconds < 7200 else (3600, "h")
    return f"{seconds / unit:.0f} {name}" if unit == 1 else f"{seconds / unit:.1f} {name}"


def command_line(words: Sequence[str] | None) -> str:
    """A recorded command, as a shell takes it."""
    return "python " + " ".join(shlex.quote(clean(word)) for word in words) if words else NOTHING


def margin_words(margin: float) -> str:
    """The margin: 1 point, 0.5 points."""
    return f"{100 * margin:.3g} point{'s' * (not math.isclose(margin, 0.01))}"


def kind_words(kind: str, margin: float) -> str:
    """A kind of verdict; `no difference` is never said without the margin."""
    return f"no difference larger than {margin_words(margin)}" if kind == "no difference" else kind


def plainly(verdict: ArmVerdict, margin: float) -> str:
    """The verdict for one who knows no statistics; it says how an effect and the margin go together."""
    low, high, size = verdict.low, verdict.high, margin_words(margin)
    if verdict.pairs < FEWEST:
        return f"{verdict.pairs} pairs are too few to tell a difference from chance."
    if low is None or high is None:
        return "There is nothing to tell."
    if low == high == 0:
        return "Every pair gave exactly the same score."
    if verdict.kind == "no difference":
        return f"Certain enough that it does not matter: whatever the difference is, it is smaller than {size}."
    if verdict.kind not in ("helps", "hurts"):
        return (
            f"Not certain: in the long run it may do anything between {points(low, unit=False)} and {points(high)}. "
            "More pairs would narrow that."
        )
    word, (least, most) = ("gain", (low, high)) if verdict.kind == "helps" else ("loss", (-high, -low))
    if least <= 0:  # claimed at an earlier look, and no longer by the interval of all pairs
        return (
            f"It was certain enough, at an earlier look, that it {verdict.kind}; the pairs of today are less clear, "
            f"between {points(low, unit=False)} and {points(high)}."
        )
    text = f"Certain enough that it {verdict.kind}; the {word} is between {100 * least:.2f} and {100 * most:.2f} points"
    if least > margin:
        return f"{text}, more than the margin of {size}."
    if most < margin:
        return f"{text}. That is real, but less than the {size} from which it matters to you."
    return f"{text}. That it is more than nothing is certain; whether it reaches the margin of {size} is not."


def some_seeds(runs: Sequence[RunFacts]) -> str:
    """seed 3; seeds 0, 2 and 5."""
    seeds = [str(run.seed) for run in runs]
    return f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {', '.join(seeds[:-1])} and {seeds[-1]}"


def headlines(facts: Facts) -> list[dict[str, str]]:
    """For each arm but the first: kind (for its colour), headline, sentence with the interval."""
    heads = []
    for arm in facts.arms[1:]:
        who = f"{arm} against {facts.reference}"
        verdict = facts.record.verdicts.get(arm)
        if verdict is None:
            sentence = f"{arm}: no verdict, {_why_none(facts, len(facts.pairs(arm)))}."
            heads.append({"kind": "none", "headline": f"{who}: no verdict yet", "sentence": sentence, "plain": ""})
            continue
        words = kind_words(verdict.kind, facts.margin)
        few = f", under {FEWEST} pairs nothing is claimed" if verdict.pairs < FEWEST else ""
        heads.append(
            {
                "kind": verdict.kind,
                "headline": f"{who}: {words}{few}",
                "sentence": verdict.sentence,
                "plain": plainly(verdict, facts.margin),
            }
        )
    return heads


def _why_none(facts: Facts, pairs: int) -> str:
    """Why there is no verdict on so many pairs."""
    seen = max((look.pairs for look in facts.record.looks), default=0)
    if 2 <= pairs < seen:
        return f"{pairs} whole pairs, {seen} were there at an earlier look: repeat the command to make the others again"
    have = {0: "no pair of runs has ended", 1: "a single pair has ended, and it says nothing of chance"}
    need = f"two are needed for an interval, {FEWEST} for any claim"
    return f"{have[pairs]}; {need}" if pairs in have else f"{pairs} pairs have ended, and no look was taken at them yet"


def declared_line(facts: Facts) -> str:
    """What was fixed before the first run."""
    declared, record = facts.record.declared, facts.record
    if record.folds:
        deals = f", dealt {record.repeats} times" if record.repeats > 1 else ""
        return (
            f"Declared before: {declared.metric} of the EMA weights after the last epoch, margin "
            f"{margin_words(facts.margin)}; train and val together in {record.folds} folds{deals}, each val once. "
            "A pair is one fold in two arms. Models of different folds share training pictures, so intervals and p are "
            "those of the corrected resampled t test (Nadeau and Bengio 2003); a point is 0.01 of mAP."
        )
    return (
        f"Declared before: {declared.metric} of the EMA weights after the last epoch, margin "
        f"{margin_words(facts.margin)}, at most {declared.max_seeds} seeds. "
        "A pair is one seed in two arms; a point is 0.01 of mAP. The interval is over seeds for this val split."
    )


def caveats(facts: Facts) -> list[str]:
    """What keeps the comparison from being whole: runs that diverged, failed, are missing or have broken files."""
    meaning = {
        "diverged": "diverged (the loss became NaN or infinite); counted as score 0, not dropped",
        "failed": "failed; such pairs are not counted until the runs are repeated",
        "missing": "missing; such pairs are not counted until the runs are made",
    }
    lines = []
    if facts.record.state != "complete":
        ended = sum(run.ended for run in facts.runs)
        whole = f"{ended} of {len(facts.runs)} runs have ended"
        lines.append(f"Incomplete: {whole}. What is said here may change; the same command goes on.")
    for status, words in meaning.items():
        for arm in facts.arms:
            runs = [run for run in facts.of(arm) if run.status == status]
            if runs:
                lines.append(f"{arm}: {len(runs)} of {len(facts.of(arm))} runs {words} ({some_seeds(runs)}).")
    for run in facts.runs:
        lines += [
            f"{run.arm}, {facts.record.pair(run.seed)}: {clean(what)}; nothing is drawn from it." for what in run.broken
        ]
    return lines


def notes(facts: Facts) -> list[str]:
    """The notes of the comparison, and arms whose seeds are others than the reference's."""
    first, *others = [(arm.name, arm.seed_offset) for arm in facts.record.arms]
    own = [
        f"{name} trains with the seeds + {offset}, {first[0]} with the seeds + {first[1]}: their pairs share no draws."
        for name, offset in others
        if offset != first[1]
    ]
    return [*facts.record.notes, *own]
