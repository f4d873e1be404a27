"""Looking more than once: what each look may claim, and how many more seeds are worth their time. PURE.

Whoever adds seeds until something is significant finds something: between equal arms in 18 % of cases, when every n
from 6 to 20 is tested at 5 %. So the 5 % are spent over the looks: by a look at n of `max_seeds` seeds, it and all
looks before it may have spent alpha * n / max_seeds. Each seed buys an equal share. This is the spending of Lan &
DeMets (1983), Biometrika 70:659, in the linear form of Kim & DeMets (1987), Biometrika 74:149 (rho = 1). A look's level
depends on its n and on the looks before it, so looks need no plan. Linear, because spending has to be proportional to
alpha (see `effect_level`), and because O'Brien and Fleming's would let no look under ten seeds of twenty claim
anything.

The levels come from the joint normal law of z at the looks, correlation sqrt(n_i / n_j), by recursive integration:
Armitage, McPherson & Rowe (1969), J. R. Stat. Soc. A 132:235; Jennison & Turnbull (2000), Group Sequential Methods,
chapters 7 and 19. They are applied to p values of t and sign-flip tests (the 'significance level approach', chapter 3),
which is approximate. So is the assumption that the times of looks do not depend on what was seen, when they follow
advice: `SPENT` keeps a reserve for both. The rates of false claims that result are measured in tests/test_looks.py.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import count

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri

from utils.compare.statistics.paired import EXACT, FEWEST, effect_power, equivalence_power

ALPHA = 0.05  # chance of a false claim, over all looks and all arms; for effects and for equivalence separately
SPENT = 0.047  # of it where there is more than one look: choosing when to look by what was seen costs up to 5 % of it
POWER = 0.8
FARTHEST = 1000  # seeds; advice that goes further has no use
NODES, WEIGHTS = np.polynomial.legendre.leggauss(200)
EDGE = 9.0  # z beyond which nothing is left to integrate


def effect_level(looks: Sequence[int], max_seeds: int, arms: int = 1) -> float:
    """Largest Holm-adjusted two-sided p that claims an effect at the last of `looks` (rising numbers of pairs).

    arms * 2 * b, b the one-sided level when alpha / (2 * arms) is spent over the looks. Holm's steps then hold at every
    look: the smallest p among m0 <= arms true nulls must reach (arms / m0) * 2 * b, and as exceedances overlap more the
    larger their level, each does so at any look with probability at most alpha / m0. Maurer & Bretz (2013), Stat.
    Biopharm. Res. 5:311, do the same with a level for each step. Never above alpha: a claim's 95 % interval has no 0.

    The sign-flip p takes only multiples of 2 / 2**n: b is rounded down to what it can attain and only that counts as
    spent. A look too early to claim anything costs nothing.
    """
    return 2 * arms * _spend(tuple(looks), max_seeds, _alpha(looks, max_seeds) / (2 * arms), exact=True)[0]


def fewest_pairs(arms: int, least: int = FEWEST, looks: Sequence[int] = (), max_seeds: int = 0) -> int:
    """Smallest number of pairs, from `least` on and after earlier `looks`, at which an effect of an arm can be claimed.

    max_seeds: the last look, where it is known to be later. One arm: 6, two: 7, four: 8.
    """
    return next(n for n in count(least) if effect_level((*looks, n), max(max_seeds, n), arms))


def equivalence_level(looks: Sequence[int], max_seeds: int, arms: int = 1) -> float:
    """Largest Holm-adjusted p that claims equivalence at the last of `looks`, by the same spending, one-sided."""
    return arms * _spend(tuple(looks), max_seeds, _alpha(looks, max_seeds) / arms, exact=False)[0]


def _alpha(looks: Sequence[int], max_seeds: int) -> float:
    return ALPHA if looks[0] >= max_seeds else SPENT


@lru_cache(maxsize=4096)
def _spend(looks: tuple[int, ...], max_seeds: int, alpha: float, exact: bool) -> tuple[float, float, tuple]:
    """One-sided level of the last look, alpha spent up to it, and the law of the sum of differences if no look claimed.

    The law is (points, mass at each). P(no claim before, Z_n >= c) = what this look adds to the spending, solved for c.
    """
    if not looks:
        return 0.0, 0.0, (np.zeros(1), np.ones(1))
    _, spent, (points, mass) = _spend(looks[:-1], max_seeds, alpha, exact)
    n, step = looks[-1], math.sqrt(looks[-1] - (looks[-2] if len(looks) > 1 else 0))

    def claims(c: float) -> float:
        return float(mass @ ndtr((points - c * math.sqrt(n)) / step))

    budget = alpha * min(n / max_seeds, 1.0) - spent
    level = 0.0
    if n >= FEWEST and budget > 1e-9:
        level = float(ndtr(-brentq(lambda c: claims(c) - budget, -EDGE, EDGE)))
        if exact and n <= EXACT:
            level = math.floor(level * 2**n) / 2**n
    c = min(-float(ndtri(level)), EDGE)  # level 0: nothing is claimed
    half = (c + EDGE) * math.sqrt(n) / 2
    at = half * (NODES + 1) - EDGE * math.sqrt(n)  # (200,) from -9 sqrt(n) to c sqrt(n)
    density = np.exp(-(((at[:, None] - points) / step) ** 2) / 2) @ mass / (step * math.sqrt(2 * math.pi))
    return level, spent + (claims(c) if level else 0.0), (at, half * WEIGHTS * density)


def seeds_more(
    mean: ArrayLike, sd: ArrayLike, looks: Sequence[int], max_seeds: int, margin: float, arms: int = 1
) -> np.ndarray:
    """Seeds to add until a decision has 80 % power, if the truth is what the pairs show; at most max_seeds in all.

    The first n at which `effect_power` or `equivalence_power` at (mean, sd) reaches 80 % at the levels of a look there.
    One of the two always does in the end: the farther from 0 the nearer to the margin, and the reverse. n is at least
    half of max_seeds and enough to claim an effect. After a look that was too early to claim one it is just that,
    whatever the pairs show: a look that costs nothing must not tell when to look next.
    """
    mean, sd = (np.asarray(x, float) for x in np.broadcast_arrays(mean, sd))
    now = looks[-1]
    more, waiting = np.full(mean.shape, max(max_seeds - now, 0)), np.ones(mean.shape, bool)
    for n in range(max(now + 1, FEWEST, math.ceil(max_seeds / 2)), max_seeds):
        level = effect_level((*looks, n), max_seeds, arms)
        if not level:
            continue
        if not effect_level(looks, max_seeds, arms):
            return np.full(mean.shape, n - now)
        levels = level, equivalence_level((*looks, n), max_seeds, arms)
        enough = np.zeros_like(waiting)
        enough[waiting] = _decision_power(mean[waiting], sd[waiting], n, *levels, margin, arms) >= POWER
        more[enough] = n - now
        waiting &= ~enough
        if not waiting.any():
            break
    return more


def seeds_afresh(mean: float, sd: float, margin: float, arms: int = 1) -> int | None:
    """Seeds of a new comparison with one look that would decide with 80 % power; None past a thousand."""
    n = np.arange(FEWEST, FARTHEST + 1)
    enough = _decision_power(mean, sd, n, ALPHA, ALPHA, margin, arms) >= POWER
    return int(n[enough.argmax()]) if enough.any() else None


def _decision_power(mean, sd, n, effect_at, equivalence_at, margin, arms) -> np.ndarray:
    """Power of the likelier decision; levels are divided by the arms, Holm's hardest step."""
    return np.maximum(
        effect_power(mean, sd, n, effect_at / arms), equivalence_power(mean, sd, n, equivalence_at / arms, margin)
    )
