"""Tables of the report of a comparison, the same for HTML and Markdown; numbers are text already."""

import statistics
from collections.abc import Callable, Sequence
from typing import Any

from utils.compare.record import ArmVerdict
from utils.compare.report.facts import Facts, RunFacts, finite
from utils.compare.report.words import (
    NOTHING,
    change,
    duration,
    expected_words,
    interval,
    kind_words,
    number,
    points,
    score,
)
from utils.compare.scores import expected_scores
from utils.compare.statistics.looks import effect_level, equivalence_level
from utils.compare.statistics.paired import pairing_gain
from utils.drawing.page import Table, clean

Words = Callable[[Any], str]
MEASURES: dict[str, tuple[str, Words, Words, str]] = {  # key -> title, a mean, a difference, the difference's unit
    "best": ("mAP50-95 of the best epoch", score, lambda x: points(x, unit=False), " points"),
    "mAP50": ("mAP50, last epoch", score, lambda x: points(x, unit=False), " points"),
    "area": ("mean height of the mAP curve", score, lambda x: points(x, unit=False), " points"),
    "epochs_to_90": ("epochs to 90 % of the reference's last mAP", number, change, " epochs"),
    "loss_spike": ("largest loss in the window / first loss", number, change, ""),
    "grad_norm": ("largest gradient norm in the window", number, change, ""),
}
RUN_COLUMNS = (
    *("arm", "seed", "status", "score", "best", "best_epoch", "mAP50", "area", "epochs_to_90", "loss_spike"),
    *("grad_norm", "seconds", "device", "folder"),
)


def arms_table(facts: Facts) -> Table:
    """Scores of each arm over its seeds; a run that diverged counts as 0, as in the verdict."""
    rows = []
    for k, arm in enumerate(facts.record.arms):
        scores = [run.counted for run in facts.of(arm.name) if run.counted is not None]
        sd = statistics.stdev(scores) if len(scores) > 1 else None
        mean = statistics.mean(scores) if scores else None
        warmup = f"{arm.nw} of {arm.total}" if arm.total else NOTHING
        ends = (min(scores), max(scores)) if scores else (None, None)
        name = f"{arm.name} (reference)" if k == 0 else arm.name
        rows.append([name, str(len(scores)), score(mean), score(sd), *map(score, ends), warmup])
    head = ["arm", "runs", "mean", "sd", "lowest", "highest", "warm-up, batches"]
    own = expected_scores(facts.record)
    if own:
        head.append("expected on new pictures, 95 %")
        rows = [[*row, expected_words(own.get(arm))] for row, arm in zip(rows, facts.arms, strict=True)]
    return Table(f"{facts.metric} of each arm after the last epoch", head, rows)


def differences_table(facts: Facts) -> Table | None:
    """What the verdicts rest on, a column per arm; None while there is no verdict."""
    judged = facts.record.verdicts
    if not judged:
        return None

    def level(value: float | None) -> str:
        return "none possible at this look" if value == 0 else number(value)

    lines: list[tuple[str, Callable[[ArmVerdict], str]]] = [
        ("verdict", lambda v: kind_words(v.kind, facts.margin)),
        ("pairs", lambda v: str(v.pairs)),
        ("mean difference", lambda v: points(v.mean)),
        ("95 % interval", lambda v: interval(v.low, v.high)),
        ("sd of the differences", lambda v: points(v.sd, unit=False).removeprefix("+")),
        ("p, paired t test", lambda v: number(v.p_t)),
        ("p, sign-flip test", lambda v: number(v.p_sign_flip)),
        ("p, larger of the two, Holm over the arms", lambda v: number(v.p_adjusted)),
        ("an effect needs at most", lambda v: level(v.level)),
        ("p of equivalence, Holm over the arms", lambda v: number(v.p_equivalence)),
        ("equivalence needs at most", lambda v: level(v.level_equivalence)),
        ("diverged: reference, arm", lambda v: ", ".join(map(str, v.diverged))),
    ]
    if any(v.low_pictures is not None for v in judged.values()):
        lines.insert(4, ("95 % interval, pictures too", lambda v: interval(v.low_pictures, v.high_pictures)))
    rows = [[name, *(text(v) for v in judged.values())] for name, text in lines]
    gains = [_pairing_gain(facts, arm) for arm in judged]
    rows.insert(5, ["what pairing bought: variance unpaired / paired", *gains])
    return Table(f"Differences from {facts.reference} in points, seed by seed", ("", *judged), rows)


def _pairing_gain(facts: Facts, arm: str) -> str:
    """How many times as many seeds it would take without pairs."""
    scores = [(reference.counted, run.counted) for reference, run in facts.pairs(arm)]
    return number(pairing_gain(*zip(*scores, strict=True))) if len(scores) > 1 else NOTHING


def secondary_table(facts: Facts) -> Table:
    """Further measures: mean of each arm, difference from the reference with its interval; nothing is claimed."""
    rows = []
    for key, (title, mean_words, words, unit) in MEASURES.items():
        differences = []
        for arm in facts.arms[1:]:
            found = facts.record.secondary.get(arm, {}).get(key)
            mean, *ends = (finite(getattr(found, name, None)) for name in ("mean", "low", "high"))
            there = None not in (mean, *ends)
            text = f"{words(mean)}{unit} ({words(ends[0])} to {words(ends[1])})" if there else NOTHING
            few = there and found.pairs < len(facts.pairs(arm))
            differences.append(text + (f", {found.pairs} pairs" if few else ""))
        rows.append([title, *(_mean(facts.of(arm), key, mean_words) for arm in facts.arms), *differences])
    head = ("mean over the runs", *facts.arms, *(f"{arm} - {facts.reference}, 95 % interval" for arm in facts.arms[1:]))
    return Table("Secondary: no tests, no claims", head, rows)


def _mean(runs: Sequence[RunFacts], key: str, text: Words) -> str:
    """Mean of a measure over the runs that are done, and how many have it where not all do."""
    done = [run for run in runs if run.ended]
    values = [v for run in done if (v := finite((run.line.secondary or {}).get(key))) is not None]
    if not values:
        return NOTHING
    return text(statistics.mean(values)) + (f" ({len(values)} of {len(done)} runs)" if len(values) < len(done) else "")


def runs_table(facts: Facts) -> Table:
    """One row per run, for Markdown; the HTML page makes its own, with links."""
    rows = [
        [
            r.arm,
            r.status,
            str(r.seed),
            score(r.score),
            duration(r.line.seconds),
            str(r.line.device or NOTHING),
        ]
        for r in facts.runs
    ]
    return Table("Runs", ("arm", "status", "seed", facts.metric, "time", "device"), rows, left=2)


def run_row(run: RunFacts) -> list[Any]:
    """A row of results.csv under RUN_COLUMNS: full precision, empty where there is nothing."""
    known = {"arm": run.arm, "seed": run.seed, "status": run.status, "score": run.score}
    known = dict(run.line.secondary or {}) | {k: getattr(run.line, k) for k in ("seconds", "device", "folder")} | known
    return ["" if known.get(name) is None else known[name] for name in RUN_COLUMNS]


def differs_table(facts: Facts) -> Table:
    """Keys of the resolved hyp in which the arms differ."""
    rows = [[key, *(_value(values.get(arm)) for arm in facts.arms)] for key, values in facts.record.differs.items()]
    return Table("What differs between the arms", ("key", *facts.arms), rows, left=1 + len(facts.arms))


def shared_table(facts: Facts) -> Table:
    """All other keys."""
    rows = [[key, _value(value)] for key, value in facts.record.shared.items()]
    return Table("What all arms share", ("key", "value"), rows, left=2)


def looks_table(facts: Facts) -> Table:
    """Every look, and what it asked of a claim."""
    rows, seen, arms = [], [], max(len(facts.arms) - 1, 1)
    last = facts.record.declared.max_seeds
    for look in facts.record.looks:
        seen = sorted({*(n for n in seen if n <= look.pairs), look.pairs})
        levels = [f(seen, last, arms) if look.pairs else 0.0 for f in (effect_level, equivalence_level)]
        claims = ", ".join(f"{arm}: {kind_words(kind, facts.margin)}" for arm, kind in look.verdicts.items()) or NOTHING
        needs = [f"{level:.2g}" if level else "no claim possible" for level in levels]
        rows.append([clean(look.when), claims, f"{look.pairs} of {last}", *needs])
    head = ("when", "verdicts", "pairs", "an effect needs p ≤", "equivalence needs p ≤")
    return Table("Looks at the scores so far", head, rows, left=2)


def fingerprint_table(facts: Facts) -> Table:
    """Versions and hashes: what has to be the same for runs to be compared."""
    by = facts.record.fingerprint
    rows = [[key, _value(getattr(by, key))] for key in ("python", "platform", "device", "threads", "git")]
    rows += [[name, _value(version)] for name, version in by.versions.items()]
    rows.append(["code, sha256", _value(by.code)])
    for name, data in by.data.items():
        rows.append(
            [f"data {name}, {'?' if data.pictures is None else data.pictures} pictures, sha256", _value(data.content)]
        )
    rows += [[f"weights {name}, sha256", _value(value)] for name, value in by.weights.items()]
    return Table("Versions and hashes", ("what", "value"), rows, left=2)


def _value(value: Any) -> str:
    """A value of a hyp file as YAML would show it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return clean(value)
