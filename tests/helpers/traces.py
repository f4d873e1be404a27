"""Reading the traces of shared/golden, and the curves that their names describe."""

import json
import math
import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest
from conftest import TESTDATA

from utils.schedule.curves import Curve, Shape, value_at
from utils.schedule.rates import Rates, Schedule, steps

GOLDEN = TESTDATA.parent / "golden" / "traces"


@cache
def load(name: str) -> dict[str, Any]:
    """Content of a trace file; empty where the folder is absent, and its tests are skipped then."""
    path = GOLDEN / f"{name}.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def column(values: Any) -> list:
    """A column as a plain list."""
    return [value for value, count in values["rle"] for _ in range(count)] if isinstance(values, dict) else values


def close(got: list[float], wanted: Any, what: str) -> None:
    wanted = column(wanted)
    assert len(got) == len(wanted), what
    for i, (a, b) in enumerate(zip(got, wanted, strict=True)):
        assert math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12), f"{what}[{i}]: {a} here, {b} recorded"


def rates_of_original(schedule: Schedule, ni: int, start: int = 0) -> Rates:
    """Rates of batch `ni` in the recipe's ORIGINAL after a resume at batch `start`, with its fault; ours has none."""
    rates = schedule(ni)
    if start and schedule.recipe.resume_restarts_lr and ni // schedule.nb == start // schedule.nb:
        return Rates({name: curve.peak for name, curve in schedule.lr.items()}, rates.momentum, rates.accumulate)
    return rates


def steps_of_original(schedule: Schedule, start: int = 0) -> Iterator[tuple[int, int]]:
    """As `steps`, after a resume at batch `start`: the originals forget their last step and their open window."""
    if not start:
        return (yield from steps(schedule))
    last, window = -1, 0
    for ni in range(start, schedule.total):
        window = 1 if schedule.drops_at(ni) else window + 1
        if schedule.is_step(ni, last):
            yield ni, window
            last, window = ni, 0


def each(file: str, key: str = "traces") -> Any:
    """Parametrize a test over the traces of a file."""
    traces = load(file).get(key) or {None: None}
    return pytest.mark.parametrize("name", traces, ids=str)


def curve(peak: float, n: float, w: float = 0, **kind: Any) -> Curve:
    """A warm-up over w from `start`, then a decay over the rest of n, whose clock starts after the warm-up."""
    return Curve(**{"start": 0.0, "peak": peak, "final": 0.0, "nw": w, "total": n, "begin": w, "end": n} | kind)


def number(name: str, pattern: str, default: float = math.nan) -> float:
    """The number behind `pattern` in the name of a trace."""
    found = re.search(pattern + r"(\d*\.?\d+(?:e-?\d+)?)", name)
    return float(found[1]) if found else default


def hf_rates(name: str, n: int) -> list[float]:
    """Hugging Face's schedulers, base lr 0.01."""
    total, w = number(name, "_T"), number(name, "_W", 0)
    base, after = 0.01, lambda t: t >= total  # their hard restarts stop at the end
    if name.startswith("cosine_hard_restarts"):
        first = (total - w) / number(name, "restarts", 1)
        c = curve(base, total, w, decay="cosine_restarts", shape=Shape(first_cycle=first))
        return [0.0 if after(t) else value_at(t, c) for t in range(n)]
    if name.startswith("cosine"):
        half = (total - w) / (2 * number(name, "half", 0.5))
        final = base * number(name, "min_lr_rate", 0.0)
        c = curve(base, total, w, decay="cosine", final=final, end=w + half, stays=False)  # it rises again
    elif name.startswith("polynomial"):
        power = number(name, "_p", 1.0)
        c = curve(base, total, w, decay="polynomial", final=number(name, "_end", 0.0), shape=Shape(power=power))
    elif name.startswith("inverse_sqrt"):
        scale = number(name, "_ts", w or 10000)
        c = curve(base, total, w, decay="inverse_sqrt", shape=Shape(timescale=scale))
    else:
        kind = re.match("linear|constant", name)[0]
        c = curve(base, n if math.isnan(total) else total, w, decay=kind)
    return [value_at(t, c) for t in range(n)]


PER_EPOCH: dict[str, Callable[[str, int, list[float]], Curve]] = {
    r"multistep_scaled|multistep_": lambda s, n, m: curve(0.1, n, decay="step", shape=Shape(milestones=tuple(m))),
    r"steplr_": lambda s, n, m: curve(0.1, n, decay="step", shape=Shape(milestones=every(number(s, "steplr_"), n))),
    r"lecture_linear": lambda s, n, m: curve(0.1, n, decay="linear"),
    r"lecture_cosine": lambda s, n, m: curve(0.1, n, decay="cosine"),
    r"lecture_inverse_sqrt": lambda s, n, m: curve(0.1, n, decay="inverse_sqrt", shape=Shape(timescale=1.0)),
    r"polynomial": lambda s, n, m: curve(0.1, n, decay="polynomial", shape=Shape(power=number(s, "_p"))),
    r"linearlr": lambda s, n, m: curve(0.1, n, decay="linear", final=0.1 * number(s, "to_")),
    r"exponential": lambda s, n, m: curve(0.1, n, decay="exponential", final=0.1 * number(s, "exponential_") ** n),
    r"constant": lambda s, n, m: curve(0.1, n, decay="constant"),
    r"(seq|chained)_": lambda s, n, m: sequence(s, n),
}


def every(length: float, n: int) -> tuple[float, ...]:
    """Milestones at every `length` epochs."""
    return tuple(length * k for k in range(1, int(n / length) + 1))


def sequence(name: str, n: int) -> Curve:
    """torch's SequentialLR or ChainedScheduler: a warm-up, then a decay."""
    kind, factor, w, after, rest = re.match(
        r"(?:seq|chained)_(linear|constant)(\d*\.\d+)x(\d+)_(cosine|linear|multistep|steplr)(.*)_E", name
    ).groups()
    first = {"start": 0.1 * float(factor), "warmup": kind, "w": int(w)}
    if after in {"multistep", "steplr"}:  # seq: the second one's clock starts at 0 when its turn comes
        length = number(after + rest, "steplr", 10.0)
        shift = int(w) if name.startswith("seq") else 0
        places = tuple(shift + m for m in every(length, n))
        return curve(0.1, n, decay="step", shape=Shape(milestones=places), **first)
    if after == "linear":
        return curve(0.1, n, decay="linear", end=int(w) + number(rest, "x"), **first)
    return curve(0.1, n, decay="cosine", end=int(w) + float(rest), **first)
