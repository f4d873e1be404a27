"""The classes of a detector as those of the data."""

import logging
from typing import Any

from utils.errors import UserError

log = logging.getLogger(__name__)


def match_names(model_names: list[str], data_names: list[str], options: Any) -> list[int] | None:
    """For each class of the model its class in the data, by name, -1 for none; None when the lists are the same.

    UserError when the data has a class that the model does not know: its score would be 0 and mean nothing.
    """
    ours, theirs = [_folded(n) for n in data_names], [_folded(n) for n in model_names]
    if ours == theirs:
        return None
    unknown = [name for name, folded in zip(data_names, ours, strict=True) if folded not in theirs]
    if unknown:
        raise UserError(
            f"{options.data} names {_some(unknown)}, which {weights_of(options)} does not know: it was trained on "
            f"{_some(model_names)}. Correct 'names', choose other weights, evaluate some classes only (--classes "
            f"{','.join(name for name in data_names if name not in unknown) or 'NAME'}), or ignore them: --single-cls."
        )
    extra = [name for name, folded in zip(model_names, theirs, strict=True) if folded not in ours]
    log.info(
        f"classes are matched by name: {len(data_names)} of the data, {len(model_names)} of the weights"
        + (f"; not in the data and left out: {_some(extra)}" if extra else "")
    )
    return [ours.index(name) if name in ours else -1 for name in theirs]


def weights_of(options: Any) -> str:
    """What is evaluated, in words."""
    weights = options.average or options.weights
    return weights if isinstance(weights, str) else " + ".join(weights)


def _folded(name: str) -> str:
    return str(name).strip().casefold()


def _some(names: list[str]) -> str:
    """The first names of a list, and how many more there are."""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(f"'{name}'" for name in names[:5]) + more
