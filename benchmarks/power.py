"""Power of the designs of compare.py: python benchmarks/power.py prints the tables of docs/compare.md.

Over data sets the power is computed, over a sweep and over folds it is simulated. All in points of mAP, the standard
deviation of a pair's difference being 0.9.
"""

import argparse
import math
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from utils.compare.statistics.folds import folded
from utils.compare.statistics.paired import effect_power
from utils.compare.statistics.sweep import against_every, gain_at_best, swept, wider

SD = 0.9  # of a pair
EFFECTS = (0.5, 1.0, 2.0)
VALUES = np.array([0.001, 0.003, 0.01, 0.03])
CURVE = np.array([46, 49.5, 50, 45])  # of the reference over VALUES


def main() -> None:
    """Print the three tables as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experiments", type=int, default=400, help="simulated comparisons for each number")
    count = parser.parse_args().experiments
    print("| data sets | seeds |", " | ".join(f"{e:g}, tau {tau:g}" for e in EFFECTS for tau in (0, 0.3, 0.6)), "|")
    print("| --- " * 11 + "|")
    for cells in (4, 6, 9):
        for seeds in (3, 6, 10):
            print(f"| {cells} | {seeds} |", " | ".join(percent(p) for p in over_cells(cells, seeds)), "|")
    print("\n| sweep of 4 values, seeds | best +0.5 | best +1 | best +2 | range wider by 0.2 decades | by 0.3 |")
    print("| --- " * 6 + "|")
    for seeds in (6, 8, 10):
        print(f"| {seeds} |", " | ".join(percent(p) for p in over_a_sweep(seeds, count)), "|")
    print("\n| folds | repeats |", " | ".join(f"{e:g}" for e in EFFECTS), "|")
    print("| --- " * 5 + "|")
    for folds, repeats in ((6, 1), (10, 1), (6, 3), (10, 3)):
        print(f"| {folds} | {repeats} |", " | ".join(percent(p) for p in over_folds(folds, repeats, count)), "|")


def percent(power: float) -> str:
    """A share as a whole percentage."""
    return f"{100 * power:.0f} %"


def over_cells(cells: int, seeds: int) -> list[float]:
    """Power of the pooled mean for each effect and each tau: a t test over the means of the cells."""
    sd = [math.sqrt(tau**2 + SD**2 / seeds) for tau in (0, 0.3, 0.6)]
    return [float(effect_power(effect, s, cells, 0.05)) for effect in EFFECTS for s in sd]


def over_a_sweep(seeds: int, count: int) -> list[float]:
    """Power of the best value for each effect, then of a usable range that drops more slowly at its upper end."""
    rng = np.random.default_rng(seeds)
    found = []
    for effect in EFFECTS:
        pairs = (draw(rng, seeds, CURVE, CURVE + effect) for _ in range(count))
        p = [max(swept(*pair, gain_at_best, shift=False).p, against_every(*pair)) for pair in pairs]
        found.append(np.mean(np.array(p) <= 0.05))  # as with shift, without its interval
    for wide in (0.2, 0.3):
        step = math.log10(VALUES[3] / VALUES[2])
        arm = np.array([46, 49.5, 50, 50 - step / (step / 5 + wide)])  # crosses 49 that much later than the reference
        pairs = (draw(rng, seeds, CURVE, arm) for _ in range(count))
        found.append(np.mean([swept(*pair, wider(VALUES, 1.0), shift=False).p <= 0.05 for pair in pairs]))
    return found


def draw(rng: np.random.Generator, seeds: int, *curves: np.ndarray) -> list[np.ndarray]:
    """Scores (seeds, values) of each arm: its curve, what a seed does to all its runs, and each run's own noise."""
    shared = rng.standard_normal((seeds, 1)) + 0.8 * rng.standard_normal((seeds, len(VALUES)))
    return [curve + shared + SD / math.sqrt(2) * rng.standard_normal(shared.shape) for curve in curves]


def over_folds(folds: int, repeats: int, count: int) -> list[float]:
    """Power for each effect; differences of two folds are correlated as the test supposes, 1 / folds."""
    rng = np.random.default_rng([folds, repeats])
    shared = math.sqrt(1 / folds) * rng.standard_normal((count, 1))
    noise = SD * (shared + math.sqrt(1 - 1 / folds) * rng.standard_normal((count, folds * repeats)))
    share = 1 / (folds - 1)
    return [float(np.mean(folded(e + noise, share, 1.0).p <= 0.05)) for e in EFFECTS]


if __name__ == "__main__":
    main()
