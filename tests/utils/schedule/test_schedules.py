"""Warm-up and decay: the promises of the rules `preheat`, for any run; recorded originals are in test_golden.py."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.config.recipes import RECIPES
from utils.config.schema import Hyp
from utils.schedule.curves import DECAYS, ENDLESS, WARMUPS, Curve, Shape, value_at
from utils.schedule.rates import (
    accumulate_at,
    auto_ema_tau,
    build_schedule,
    ema_span,
    lr_scale,
    nominal_accumulate,
    scaled_weight_decay,
    steps,
)

ALL_WARMUPS, ALL_DECAYS = sorted(WARMUPS), sorted(DECAYS)
ARRIVING = sorted(set(DECAYS) - ENDLESS - {"constant", "cosine_restarts"})  # kinds that end at `final`
SMOOTH = ["linear", "cosine"]  # warm-ups that end without a jump
# no jump of their own: not step and restarts; one_cycle_torch rises by itself
GENTLE = sorted(set(DECAYS) - {"step", "cosine_restarts", "one_cycle_torch", "plateau", "exponential", "power"})


@st.composite
def curves(draw, warmups=ALL_WARMUPS, decays=ALL_DECAYS) -> Curve:
    total = draw(st.integers(2, 400))
    peak = draw(st.floats(1e-5, 1.0))
    nw, decay = draw(st.integers(0, total - 1)), draw(st.sampled_from(decays))
    late = nw < total - 1 and decay != "one_cycle_torch" and draw(st.booleans())  # decay_from: warmup
    return Curve(
        start=draw(st.floats(0, 1.0)),
        peak=peak,
        final=peak * draw(st.floats(0, 1)),
        nw=nw,
        total=total,
        begin=nw if late else 0,
        warmup=draw(st.sampled_from(warmups)),
        decay=decay,
        shape=Shape(
            warmup_start=draw(st.floats(0.001, 1.0)), milestones=(0.3 * total, 0.6 * total), gamma=0.5,
            power=draw(st.floats(1.0 if decay == "power" else 0.5, 3.0)),
            timescale=draw(st.integers(1, 100)), first_cycle=draw(st.integers(1, 99)),
            growth=draw(st.integers(1, 3)), pct_start=draw(st.floats(0.05, 0.95)), wsd_decay=draw(st.floats(0.1, 1.0)),
        ),
    )  # fmt: skip


@st.composite
def hyps(draw) -> Hyp:
    """Any run under `preheat`."""
    optimizer = draw(st.sampled_from(["sgd", "adamw"]))
    decay = draw(st.sampled_from(sorted(DECAYS)))
    values = {
        "epochs": draw(st.integers(1, 8)), "optimizer": optimizer, "decay": decay,
        "warmup_bias_lr": draw(st.one_of(st.none(), st.floats(0, 0.2))),
        "warmup_momentum": draw(st.one_of(st.none(), st.floats(0, 0.9))),
        "warmup_max": draw(st.floats(0, 1)), "nbs": draw(st.sampled_from([1, 16, 48, 64, 100])),
        "scale_lr": "none" if optimizer == "sgd" else draw(st.sampled_from(["none", "sqrt", "linear"])),
        "min_lr": draw(st.sampled_from([None, 0.0001])), "lr_backbone": draw(st.sampled_from([0.1, 1.0])),
    }  # fmt: skip
    if decay != "one_cycle_torch":
        values |= {
            "warmup": draw(st.sampled_from(sorted(WARMUPS))), "warmup_start": draw(st.floats(0.01, 1.0)),
            "warmup_epochs": draw(st.floats(0, 4)), "decay_from": draw(st.sampled_from(["run", "warmup"])),
            "warmup_accumulate": draw(st.sampled_from(["ramp", "none", "one"])),
            "warmup_iters": draw(st.sampled_from([None, None, 7])),
        }  # fmt: skip
    if decay not in {"one_cycle_torch", "plateau"}:
        values["clock"] = draw(st.sampled_from(["batch", "epoch"]))
    if decay == "power":
        values |= {"power": 1.0001, "decay_from": "warmup"}
    return Hyp(**values)


runs = st.tuples(hyps(), st.integers(1, 40), st.sampled_from([1, 3, 8, 16, 24, 64, 128]))


@given(curves())
def test_after_warmup_only_the_decay_remains(c):
    assert all(value_at(ni, c) == value_at(ni, replace(c, nw=0)) for ni in range(c.nw, c.total))


@given(curves())
def test_values_stay_between_their_ends(c):
    low, high = min(c.start, c.final, c.peak), max(c.start, c.final, c.peak)
    assert all(low - 1e-12 <= value_at(ni, c) <= high + 1e-12 for ni in range(c.total))


@given(curves(warmups=SMOOTH, decays=GENTLE))
def test_no_jump_at_the_end_of_warmup(c):
    """From nw - 1 to nw the warm-up makes at most its steepest step, and the decay its own."""
    if c.nw > 0:
        warm, cold = c, replace(c, nw=0)
        step = math.pi / 2 * abs(value_at(c.nw, warm) - c.start) / c.nw
        decay = abs(value_at(c.nw, cold) - value_at(c.nw - 1, cold))  # same `begin`, no warm-up
        assert abs(value_at(c.nw, warm) - value_at(c.nw - 1, warm)) <= step + decay * (1 + math.pi / 2) + 1e-12


@given(curves(decays=ARRIVING))
def test_it_starts_at_start_and_ends_at_final(c):
    if c.nw > 0 and c.warmup != "none" and c.decay != "one_cycle_torch":
        assert value_at(0, c) == pytest.approx(c.start)
    assert value_at(c.total - 1, c) == pytest.approx(c.final, abs=1e-12)


@given(curves(warmups=sorted(set(WARMUPS) - {"none"})))
def test_warmup_only_moves_from_start_to_target(c):
    """Additive: between start and the decayed value of the same batch; nearer to it with every batch."""
    parts = []
    for ni in range(int(c.nw)):
        target = value_at(ni, replace(c, nw=0))
        if abs(target - c.start) > 1e-6 and c.decay != "one_cycle_torch":
            parts.append((value_at(ni, c) - c.start) / (target - c.start))
    assert all(-1e-6 <= part <= 1 + 1e-6 for part in parts)
    assert all(b >= a - 1e-6 for a, b in zip(parts, parts[1:], strict=False))


def test_exponential_warmup_grows_by_one_factor():
    c = Curve(0.001, 0.1, 0.1, 50, 100, "exponential", "constant", shape=Shape(warmup_start=0.01))
    ratios = [value_at(ni + 1, c) / value_at(ni, c) for ni in range(50)]
    assert ratios == pytest.approx([100 ** (1 / 50)] * 50)


@given(curves(warmups=["constant"]))
def test_constant_warmup_is_held_then_jumps(c):
    if c.decay != "one_cycle_torch":
        assert all(value_at(ni, c) == c.start for ni in range(int(c.nw)))


@given(runs)
def test_every_batch_is_in_exactly_one_step(run):
    """No gradient is dropped: the windows cover the run, across epochs and to its last batch."""
    hyp, nb, batch = run
    schedule = build_schedule(hyp, nb, batch)
    done = list(steps(schedule))
    assert sum(window for _, window in done) == schedule.total
    assert done[-1][0] == schedule.total - 1
    assert all(1 <= window <= schedule.nominal for _, window in done)


@given(runs)
def test_warmup_is_never_longer_than_its_share(run):
    hyp, nb, batch = run
    schedule = build_schedule(hyp, nb, batch)
    assert schedule.nw <= hyp.warmup_max * schedule.total
    assert schedule.nw <= (round(hyp.warmup_epochs * nb) if hyp.warmup_iters is None else hyp.warmup_iters)


@given(runs, st.lists(st.floats(0, 1), min_size=8, max_size=8), st.randoms())
def test_rates_depend_on_the_batch_number_alone(run, history, random):
    """In any order, and by a schedule that is built anew as on resume; plateau: on the epochs before the batch, too."""
    hyp, nb, batch = run
    groups = ("backbone.bias", "head.weight", "norm")
    once = [build_schedule(hyp, nb, batch, groups)(ni, history) for ni in range(nb * hyp.epochs)]
    again, order = build_schedule(hyp, nb, batch, groups), list(range(nb * hyp.epochs))
    random.shuffle(order)
    assert all(again(ni, history[: ni // nb]) == once[ni] for ni in order)
    if hyp.decay != "plateau":
        assert all(again(ni) == once[ni] for ni in order)


@given(runs)
def test_the_last_batch_reaches_the_final_rate(run):
    """lr0 * lrf, or min_lr, times what scale_lr says; with the clock of epochs, the whole last epoch."""
    hyp, nb, batch = run
    schedule = build_schedule(hyp, nb, batch)
    first = schedule.total - (nb if hyp.clock == "epoch" else 1)
    if hyp.decay in set(ARRIVING) - {"one_cycle_torch"} and hyp.epochs > 1 and schedule.nw < first:
        final = (hyp.lr0 * hyp.lrf if hyp.min_lr is None else hyp.min_lr) * lr_scale(hyp, batch)
        assert schedule(first).lr["weight"] == pytest.approx(final)
        assert schedule(schedule.total - 1).lr["weight"] == pytest.approx(final)


@pytest.mark.parametrize("recipe", sorted(RECIPES))
def test_every_recipe_has_a_schedule_and_its_hyp_can_be_saved(recipe):
    hyp = Hyp(recipe=recipe, epochs=5)
    assert Hyp(**hyp.model_dump()) == hyp, "what a run saves repeats it"
    schedule = build_schedule(hyp, 30, 16)
    assert all(schedule(ni).lr["weight"] <= hyp.lr0 for ni in range(schedule.total))
    assert list(steps(schedule))


def test_parts_have_rates_and_warmups_of_their_own():
    hyp = Hyp(epochs=20, lr_backbone=0.1, warmup_epochs_backbone=5, warmup_epochs_head=1, decay="constant")
    schedule = build_schedule(hyp, 10, 64, ("backbone.weight", "neck.weight", "head.weight", "head.bias"))
    assert [schedule.lr[g].nw for g in schedule.lr] == [50, 30, 10, 10]
    assert schedule(60).lr == pytest.approx(
        {"backbone.weight": 0.001, "neck.weight": 0.01, "head.weight": 0.01, "head.bias": 0.01}
    )
    assert schedule(0).lr["head.bias"] == 0.1 and schedule.nw == 30


def test_milestones_are_parts_of_the_run_or_epochs_in_either_clock():
    for words in ({"milestones": [0.3, 0.6]}, {"milestones": [3, 6]}):
        for clock in ("batch", "epoch"):
            schedule = build_schedule(Hyp(epochs=10, decay="step", warmup="none", clock=clock, **words), 7, 64)
            rates = [schedule(7 * e).lr["weight"] for e in range(10)]
            assert rates == pytest.approx([0.01] * 3 + [0.001] * 3 + [0.0001] * 4)


@given(st.integers(1, 400), st.integers(1, 64))
def test_accumulate_rises_from_one_to_nominal(nw, nominal):
    values = [accumulate_at(ni, nw, nominal) for ni in range(nw + 2)]
    assert values[0] == 1 and values[nw] == values[nw + 1] == nominal
    assert values == sorted(values)


@pytest.mark.parametrize("off", [{"warmup": "none"}, {"warmup_epochs": 0}, {"warmup_epochs": 0.0}])
def test_warmup_off_is_off(off):
    schedule = build_schedule(Hyp(epochs=3, **off), nb=10, batch=16)
    first = schedule(0)
    assert schedule.nw == 0
    assert set(first.lr.values()) == {Hyp().lr0}, "every group at its peak in the first batch"
    assert first.momentum == Hyp().momentum and first.accumulate == 4


def test_bias_starts_at_its_own_rate():
    first = build_schedule(Hyp(epochs=10, warmup_bias_lr=0.1), nb=10, batch=64)(0)
    assert first.lr == {"bias": 0.1, "norm": 0.0, "weight": 0.0}
    first = build_schedule(Hyp(epochs=10, warmup_bias_lr=None, warmup_start=0.5), nb=10, batch=64)(0)
    assert set(first.lr.values()) == {0.005}


@pytest.mark.parametrize(
    ("batch", "nbs", "accumulate"), [(16, 64, 4), (24, 64, 3), (128, 64, 1), (48, 64, 1), (1, 64, 64)]
)
def test_weight_decay_follows_the_pictures_in_a_step(batch, nbs, accumulate):
    assert nominal_accumulate(batch, nbs) == accumulate
    assert scaled_weight_decay(Hyp(nbs=nbs), batch) == pytest.approx(0.0005 * batch * accumulate / nbs)


def test_usual_ema_averages_nothing_in_a_short_run():
    """The figures that the plan warns about, at decay 0.9999 and tau 2000."""
    spans = [round(ema_span(n, 0.9999, 2000), 1) for n in (14, 1000, 5000)]
    assert spans == [1.0, 1.6, 12.2]


@given(st.integers(1, 200_000))
def test_auto_tau_gives_a_span_inside_its_bounds(n_steps):
    span = ema_span(n_steps, 0.9999, auto_ema_tau(n_steps, 0.9999))
    assert span <= max(n_steps / 3, 1) + 1e-3
    if n_steps >= 15:
        assert span >= 5 - 1e-3
