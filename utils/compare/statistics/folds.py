"""What the differences over folds say, whose models share training pictures. PURE."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from utils.compare.statistics.paired import equivalence_p, t_interval, t_test_p


def expected(scores: ArrayLike, share: float) -> tuple[float, float, float]:
    """Mean of the scores (n,) of one setting over folds, and the 95 % interval of what it would score on new pictures.

    n >= 2; share: as of `folded`, whose correction this is: for scores it is equation 8 of the same paper.
    """
    y = np.asarray(scores, float)
    mean = float(y.mean())
    low, high = t_interval(mean, widened(float(y.std(ddof=1)), len(y), share), len(y))
    return mean, float(low), float(high)


def widened(sd: Any, n: int, share: float) -> Any:
    """The sd that n independent values would need for their mean to stray as far as that of n folds."""
    return sd * float(np.sqrt(1 + n * share))


@dataclass(frozen=True)
class Folded:
    """An arm against the reference over n folds, all repeats together; in the unit of the differences.

    Every field but n is an array where several comparisons were given at once.
    """

    n: int
    mean: float | np.ndarray
    sd: float | np.ndarray  # of the differences
    low: float | np.ndarray  # 95 % interval of the mean
    high: float | np.ndarray
    p: float | np.ndarray  # two-sided
    p_equivalence: float | np.ndarray


def folded(differences: ArrayLike, share: float, margin: float) -> Folded:
    """The corrected resampled t test: Nadeau and Bengio (2003), Machine Learning 52:239, equation 9.

    The variance of the mean is (1 / n + share) * sd**2 instead of sd**2 / n, for the models of different folds learn
    from mostly the same pictures; equation 9 supposes a correlation of val / all pictures between them. share: pictures
    of a fold's val / those of its train, 1 / (K - 1) for K folds. differences: (..., n), n >= 2, n = K * repeats.

    Models that hardly depend on which pictures they saw are less alike than supposed, and fewer claims are made than
    the 5 % allow: 1 to 5 % of equal arms were told apart, without the share 5 to 55 %
    (tests/utils/compare/test_kfold.py).
    """
    d = np.asarray(differences, float)
    n, mean, sd = d.shape[-1], d.mean(-1), d.std(-1, ddof=1)
    wide = widened(sd, n, share)
    found = mean, sd, *t_interval(mean, wide, n), t_test_p(mean, wide, n), equivalence_p(mean, wide, n, margin)
    return Folded(n, *(map(float, found) if d.ndim == 1 else found))
