"""The interval of a mean difference when both the seeds and the pictures of val might have been others. PURE."""

import numpy as np
from scipy import stats


def over_pictures(
    arm: np.ndarray, reference: np.ndarray, differences: np.ndarray, pictures: int
) -> tuple[float, float]:
    """95 % interval of the mean of paired differences (n,), n >= 2, by a bootstrap over pictures and seeds.

    arm, reference: (n, draws) the score of each run on drawn pictures, in a column the same pictures for every run of
    both arms. Seeds are drawn too; theirs are a few, so how far their mean strays is widened to Student's t, and the
    pictures' likewise. Owen (2007), The pigeonhole bootstrap, Annals of Applied Statistics 1:386, for drawing both.
    """
    drawn = np.asarray(arm, float) - np.asarray(reference, float)  # (n, draws)
    drawn = drawn[:, ~np.isnan(drawn).any(0)]
    n, draws = drawn.shape
    if not draws or pictures < 2:
        return float("nan"), float("nan")
    chosen = np.random.default_rng(0).integers(0, n, (n, draws))
    mean = drawn.mean(0)  # (draws,) of all seeds: only the pictures are others
    strays = np.take_along_axis(drawn, chosen, 0).mean(0) - mean
    total = _widened(mean - mean.mean(), pictures) + _widened(strays - strays.mean(), n)
    low, high = np.quantile(total, (0.025, 0.975)) + np.mean(differences)
    return float(low), float(high)


def _widened(values: np.ndarray, n: int) -> np.ndarray:
    """Deviations of means of n, as far from 0 as Student's t would have them."""
    return values * stats.t.isf(0.025, n - 1) / stats.norm.isf(0.025) * np.sqrt(n / (n - 1))
