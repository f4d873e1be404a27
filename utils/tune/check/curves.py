"""What the learning curves of a run say: step 6 of a check. PURE."""

import math
from collections.abc import Mapping, Sequence

from utils.tune.check.lecture import GOOD, LOOK, Finding

LOW = 0.1  # a rate below this part of its peak teaches little that is new


def of_curves(rows: Sequence[Mapping[str, float]]) -> Finding:
    """Step 6: the learning curves of the best run, a row of metrics.csv an epoch."""
    title = "the learning curves of the best run"
    scored = [row for row in rows if "val/mAP50-95" in row and row.get("epoch", 0) > 0]
    y = [row["val/mAP50-95"] for row in scored]
    if len(y) < 4:
        return Finding(6, title, LOOK, f"{len(y)} evaluated epochs", "Too few to read: give more --minutes.")
    seen, advice = (
        [f"mAP50-95 {y[0]:.3f} to {y[-1]:.3f}, best {max(y):.3f} in epoch {int(scored[y.index(max(y))]['epoch'])}"],
        [],
    )
    quarter, odd = max(len(y) // 4, 1), False
    if y[len(y) // 3] < 0.1 * max(y):
        odd = True
        seen.append("a flat start")
        advice.append("Flat at first: a shorter warm-up, a higher rate, or weights that know more.")
    late, earlier = sum(y[-quarter:]) / quarter, sum(y[-2 * quarter : -quarter]) / quarter
    if late > 1.02 * earlier:
        seen.append("still rising at the end")
        advice.append("Still rising: more epochs before anything else.")
    elif y[-1] < 0.95 * max(y):
        odd = True
        seen.append("lower at the end than before")
        advice.append("Falling at the end: a decay of the rate, or fewer epochs.")
    if early := _decayed_early(scored, y):
        odd = True
        seen.append(early)
        advice.append("Decayed too early: a decay that begins later or ends higher (lrf), or more epochs.")
    train, val = ([_loss(row, part) for row in scored] for part in ("train", "val"))
    if all(map(math.isfinite, [*train, *val])) and train[-1] > 0:
        seen.append(f"loss of train {train[-1]:.2f}, of val {val[-1]:.2f}")
        if val[-1] > 1.05 * min(val) and train[-1] < train[val.index(min(val))]:
            advice.append(
                "The loss of val rises while that of train falls: more augmentation or pictures, a smaller network or "
                "more weight decay."
            )
        elif val[-1] <= 1.05 * train[-1]:
            advice.append("No gap between train and val: a larger network or a longer run may learn more.")
    return Finding(6, title, LOOK if odd else GOOD, "; ".join(seen), " ".join(advice))


def _decayed_early(rows: Sequence[Mapping[str, float]], y: Sequence[float]) -> str:
    """In words where the score rose until the rate fell to a tenth of its peak, and rises no more since; else empty.

    Held against each other: what an epoch brought in the last third before that, and since.
    """
    rates = [row.get("lr/weight", math.nan) for row in rows]
    peak = max((rate for rate in rates if math.isfinite(rate)), default=math.nan)
    late = next((k for k in range(rates.index(peak), len(y)) if rates[k] < LOW * peak), 0) if peak > 0 else 0
    before = late - 1 - max(late // 3, 1)
    if before < 0 or len(y) - late < 2:
        return ""
    then, since = (y[late - 1] - y[before]) / (late - 1 - before), (y[-1] - y[late]) / (len(y) - 1 - late)
    if then < 0.02 * max(y) or since > then / 4:
        return ""
    epoch = int(rows[late]["epoch"])
    return f"{100 * then:+.1f} points an epoch until the rate was low in epoch {epoch}, {100 * since:+.1f} since"


def _loss(row: Mapping[str, float], part: str) -> float:
    return sum(row.get(f"{part}/{name}", math.nan) for name in ("box", "cls", "dfl"))
