"""Which parameters of a test the fast loop sees."""

from collections.abc import Container, Iterable, Mapping
from typing import Any

import pytest


def shown(fast: Container[Any], of: Iterable[Any]) -> list[Any]:
    """All parameters `of` a test, slow but for those in `fast`; of a mapping its values, named and chosen by key."""
    named = of.items() if isinstance(of, Mapping) else ((None, one) for one in of)
    return [_param(one, name, (one if name is None else name) in fast) for name, one in named]


def _param(one: Any, name: str | None, fast: bool) -> Any:
    """A tuple that has no name is several parameters, as pytest takes it."""
    values = one if isinstance(one, tuple) and name is None else (one,)
    return pytest.param(*values, id=name, marks=[] if fast else [pytest.mark.slow])
