"""How many pictures of a part of a split an epoch has."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Share:
    """Pictures that follow each other in a source."""

    name: str  # of the yaml that they come from
    pictures: int
    part: float = 1.0  # of them, in an epoch


def group_of(shares: list[Share]) -> np.ndarray:
    """Number of the share that each picture belongs to, (n,) int32."""
    return np.repeat(np.arange(len(shares), dtype=np.int32), [share.pictures for share in shares])
