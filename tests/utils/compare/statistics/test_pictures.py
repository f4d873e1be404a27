"""The interval over pictures and seeds: against known spreads, and in a comparison whose runs have left draws."""

import numpy as np

from utils.compare.statistics.paired import paired
from utils.compare.statistics.pictures import over_pictures


def simulate(rng: np.random.Generator, seeds: int, pictures: int, of_seeds: float, of_pictures: float) -> tuple:
    """Drawn scores of two arms whose true difference is 0, and their paired differences; a score is a mean here."""
    shared = rng.normal(0, 1, pictures)  # how hard a picture is for both arms: pairing takes it away
    value = rng.normal(0, of_pictures, (2, 1, pictures)) + rng.normal(0, of_seeds, (2, seeds, 1)) + shared
    value += rng.normal(0, of_pictures, (2, seeds, pictures))
    counts = rng.multinomial(pictures, np.full(pictures, 1 / pictures), 300)  # (draws, pictures)
    arm, reference = value @ counts.T / pictures
    return arm, reference, np.subtract(*value.mean(2))


def test_it_holds_the_truth_where_an_interval_over_seeds_does_not():
    rng = np.random.default_rng(0)
    held = {"both": 0, "seeds": 0}
    for _ in range(300):
        arm, reference, differences = simulate(rng, 6, 50, 0.02, 0.7)
        low, high = over_pictures(arm, reference, differences, 50)
        held["both"] += low <= 0 <= high
        held["seeds"] += paired(differences).low <= 0 <= paired(differences).high
    assert held["both"] / 300 >= 0.92 and held["seeds"] / 300 < 0.85


def test_with_pictures_that_say_the_same_it_is_the_interval_over_seeds():
    """On average of many, for both are as wide as the seeds make them."""
    rng = np.random.default_rng(1)
    widths = []
    for _ in range(200):
        arm, reference, differences = simulate(rng, 8, 50, 0.5, 0.01)
        low, high = over_pictures(arm, reference, differences, 50)
        widths.append([high - low, paired(differences).high - paired(differences).low])
    both, seeds = np.mean(widths, 0)
    assert abs(both / seeds - 1) < 0.1


def test_draws_without_a_box_are_left_out():
    draws = np.tile([0.5, np.nan, 0.5], (3, 1))
    assert over_pictures(draws, draws, np.zeros(3), 20) == (0, 0)
    assert np.isnan(over_pictures(draws * np.nan, draws, np.zeros(3), 20)).all()
