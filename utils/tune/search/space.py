"""The space of a search: for each key of a hyp a range, or the values that may be tried."""

import csv
import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from utils.compare.cells.declare import as_word
from utils.config.schema import Hyp, check
from utils.config.values import read_yaml
from utils.config.words import parse_tokens
from utils.errors import UserError, suggest

HOW = "lr0=log:1e-4:1e-1 (a range on a log scale), mosaic=0:1 (a range), optimizer=sgd|adamw (values)"
NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
RANGE = re.compile(rf"(log:)?({NUMBER}):({NUMBER})(?::(\d+))?$")
BY_LOG = ("lr0", "weight_decay")  # searched on a log scale where a file of another trainer names a range


@dataclass(frozen=True)
class Axis:
    """What may be tried of one key: values, or everything between two ends."""

    key: str
    values: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    whole: bool = False  # whole numbers only
    points: int = 0  # of a grid over the range

    def holds(self, value: Any) -> bool:
        """Whether a value may be tried."""
        if self.values:
            return value in self.values
        return isinstance(value, int | float) and not isinstance(value, bool) and self.low <= value <= self.high

    def grid(self) -> list[Any]:
        """The values of a grid; UserError for a range without a number of points."""
        if self.values:
            return list(self.values)
        if self.points < 2:
            raise UserError(f"--sampler grid needs the number of points of a range: {self.key}={self.word}:4")
        ends = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        even = [ends[0] + (ends[1] - ends[0]) * k / (self.points - 1) for k in range(self.points)]
        found = [self.low, *((math.exp(v) if self.log else v) for v in even[1:-1]), self.high]
        return list(dict.fromkeys(round(v) for v in found)) if self.whole else found

    @property
    def word(self) -> str:
        """As it stands on a command line."""
        if self.values:
            return "|".join(as_word(value) for value in self.values)
        return f"{'log:' if self.log else ''}{self.low:g}:{self.high:g}"


def is_axis(word: str) -> bool:
    """Whether a word of a command line says what may be tried of a key."""
    key, equals, text = word.removeprefix("--").partition("=")
    return bool(equals) and key.replace("-", "_") in Hyp.model_fields and ("|" in text or bool(RANGE.match(text)))


def parse_axis(word: str) -> Axis:
    """key=log:low:high, key=low:high or key=a|b|c; raises UserError."""
    key, _, text = word.removeprefix("--").partition("=")
    key = key.replace("-", "_")
    if key not in Hyp.model_fields:
        raise UserError(f"'{key}' is no key of a hyp.{suggest(key, list(Hyp.model_fields))} A space is: {HOW}")
    matched = RANGE.match(text)
    if matched:
        low, high = float(matched[2]), float(matched[3])
        return _axis_of_range(key, low, high, bool(matched[1]), int(matched[4] or 0))
    if "|" not in text:
        raise UserError(f"'{word}' says nothing that may be tried. A space is: {HOW}")
    values = tuple(dict.fromkeys(_checked(key, part) for part in text.split("|")))
    if len(values) < 2:
        raise UserError(f"{key}: there is only one value to try, {text}. Give it as a setting: {key}={values[0]}")
    return Axis(key, values=values)


def read_space(path: Path) -> tuple[list[Axis], dict[str, Any], list[str]]:
    """A file of a space -> axes, a point to try early (perhaps none), and notes.

    A yaml of `key: [low, high]`, as ultralytics' `tune` takes it (a third number, its gain, is not used), or of
    `key: [gain, low, high]`, as YOLOv5's --evolve has it; words like `log:1e-4:1e-1` and lists of values, too. Or the
    table that either of them wrote (tune_results.csv, evolve.csv): the ranges that it covers, and its best row.
    """
    if not path.is_file():
        raise UserError(
            f"{path}: there is no such file. --space takes a yaml of ranges, tune_results.csv or evolve.csv"
        )
    if path.suffix.lower() == ".csv":
        return _of_table(path)
    content = read_yaml(path)
    if not isinstance(content, dict) or not content:
        raise UserError(f"{path} holds no space: a line is key: [low, high], or key: log:1e-4:1e-1")
    notes = _unknown(path, content)
    content = {key: value for key, value in content.items() if key in Hyp.model_fields}
    three = [v for v in content.values() if _numbers(v) and len(v) == 3]
    gain_last = all(v[0] <= v[1] for v in three)
    if three and not gain_last and not all(v[1] <= v[2] for v in three):
        raise UserError(f"{path}: three numbers are [low, high, gain] or [gain, low, high], in all lines alike.")
    axes, single = [], {}
    for key, value in content.items():
        if _numbers(value) and len(value) in (2, 3):
            low, high = value[:2] if len(value) == 2 or gain_last else value[1:]
            axes += _own_scale(key, low, high)
        elif isinstance(value, list | tuple):
            axes.append(parse_axis(f"{key}=" + "|".join(as_word(v) for v in value)))
        elif isinstance(value, str) and is_axis(f"{key}={value}"):
            axes.append(parse_axis(f"{key}={value}"))
        else:
            single[key] = value
    if single:
        notes.append(f"{path}: {', '.join(single)} have one value each, and are not searched")
    if not axes:
        raise UserError(f"{path} names no range. A space is: {HOW}")
    return axes, {}, notes


def _of_table(path: Path) -> tuple[list[Axis], dict[str, Any], list[str]]:
    """A results table of ultralytics' `tune` or of YOLOv5's --evolve."""
    with open(path, newline="", encoding="utf-8-sig") as file:
        rows = [{(k or "").strip(): (v or "").strip() for k, v in row.items()} for row in csv.DictReader(file)]
    rows = [row for row in rows if row]
    if not rows:
        raise UserError(f"{path} has no rows.")
    names = list(rows[0])
    fitness = next((name for name in ("fitness", "metrics/mAP_0.5:0.95", "metrics/mAP50-95(B)") if name in names), None)
    if fitness is None:
        raise UserError(f"{path} is no table of a search: it has no column fitness, nor one of mAP50-95.")
    columns = {key: [_float(row.get(key)) for row in rows] for key in names if key in Hyp.model_fields}
    axes = []
    for key, column in columns.items():
        known = [v for v in column if v is not None]
        if known and min(known) < max(known):
            axes += _own_scale(key, min(known), max(known))
    if not axes:
        raise UserError(f"{path}: no key of a hyp has two values in it.")
    best = max(range(len(rows)), key=lambda k: _float(rows[k].get(fitness)) or -math.inf)
    found = {axis.key: columns[axis.key][best] for axis in axes}
    point = {axis.key: round(found[axis.key]) if axis.whole else found[axis.key] for axis in axes}
    notes = [f"{path}: the ranges that its {len(rows)} rows cover; its best row is tried early"]
    others = [n for n in names if n not in Hyp.model_fields and "/" not in n and n != fitness]
    return axes, point if None not in point.values() else {}, notes + _unknown(path, dict.fromkeys(others))


def settings_of(axes: Sequence[Axis], hyp: Hyp) -> dict[str, Any] | None:
    """The point of the space where the settings stand; None where they stand outside."""
    values = {axis.key: getattr(hyp, axis.key) for axis in axes}
    return values if all(axis.holds(values[axis.key]) for axis in axes) else None


def grid_of(axes: Sequence[Axis]) -> list[dict[str, Any]]:
    """Every point of a grid."""
    keys = [axis.key for axis in axes]
    return [dict(zip(keys, point, strict=True)) for point in itertools.product(*(axis.grid() for axis in axes))]


def usual_space(hyp: Hyp) -> list[Axis]:
    """What is searched where nothing is said: the rate first of all, decay of the weights, length of the warm-up."""
    longest = max(round(0.3 * hyp.epochs, 1), 0.5)
    return [
        Axis("lr0", low=hyp.lr0 / 10, high=hyp.lr0 * 10, log=True),
        Axis("weight_decay", low=1e-5, high=1e-2, log=True),
        Axis("warmup_epochs", low=0.0, high=longest),
    ]


def join(axes: Sequence[Axis]) -> list[Axis]:
    """One axis a key, the last one said; in the order of keys."""
    return [found for _, found in sorted({axis.key: axis for axis in axes}.items())]


def _own_scale(key: str, low: float, high: float) -> list[Axis]:
    """A range of another trainer's file; a range of one point is none."""
    if low == high:
        return []
    return [_axis_of_range(key, low, high, key in BY_LOG and low > 0, 0)]


def _axis_of_range(key: str, low: float, high: float, log: bool, points: int) -> Axis:
    """Checked at both ends."""
    if low >= high:
        raise UserError(f"{key}={low:g}:{high:g}: the lower end has to stand first.")
    if log and low <= 0:
        raise UserError(f"{key}=log:{low:g}:{high:g}: a log scale has no 0. Begin above it, or leave out 'log:'.")
    whole = Hyp.model_fields[key].annotation is int
    if whole and (low % 1 or high % 1):
        raise UserError(f"{key} takes whole numbers: {key}={low:g}:{high:g} does not name them.")
    for end in (low, high):
        _checked(key, str(int(end)) if whole else repr(end))
    axis = Axis(key, low=low, high=high, log=log, whole=whole, points=points)
    return replace(axis, low=int(low), high=int(high)) if whole else axis


def _checked(key: str, text: str) -> Any:
    """A value of a key as the schema has it; raises its UserError."""
    given, _ = parse_tokens([f"{key}={text}"], Hyp.model_fields)
    return getattr(check(given), key)


def _numbers(value: Any) -> bool:
    """Whether a value of a yaml is a list of numbers."""
    return isinstance(value, list | tuple) and all(
        isinstance(v, int | float) and not isinstance(v, bool) for v in value
    )


def _float(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _unknown(path: Path, content: Mapping[str, Any]) -> list[str]:
    """A note on keys that no hyp has."""
    others = [str(key) for key in content if key not in Hyp.model_fields]
    return [f"{path}: not searched, for no hyp has them: {', '.join(others)}"] if others else []
