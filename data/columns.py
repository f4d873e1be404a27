"""A dataclass of arrays and texts <-> a dictionary of arrays, as a file keeps them."""

from dataclasses import fields
from typing import Any, TypeVar

import numpy as np

from data.paths import Texts

T = TypeVar("T")


def to_columns(item: Any) -> dict[str, np.ndarray]:
    """The arrays of a dataclass; texts give two."""
    columns = {}
    for field in fields(item):
        value = getattr(item, field.name)
        if isinstance(value, Texts):
            columns |= {f"{field.name}_flat": value.flat, f"{field.name}_ends": value.offsets}
        else:
            columns[field.name] = value
    return columns


def from_columns(kind: type[T], columns: dict[str, np.ndarray]) -> T:
    """The dataclass again; nothing is copied."""
    values = {}
    for field in fields(kind):
        if issubclass(field.type, Texts):
            values[field.name] = field.type(columns[f"{field.name}_flat"], columns[f"{field.name}_ends"])
        else:
            values[field.name] = columns[field.name]
    return kind(**values)
