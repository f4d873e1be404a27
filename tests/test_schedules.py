"""Warm-up and decay: the promises of the rules `preheat`, for any run."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.config import Hyp
from utils.schedules import (
    DECAYS,
    Curve,
    accumulate_at,
    auto_ema_tau,
    build_schedule,
    ema_span,
    nominal_accumulate,
    scaled_weight_decay,
    steps,
    value_at,
)


@st.composite
def curves(draw) -> Curve:
    total = draw(st.integers(2, 400))
    peak = draw(st.floats(1e-5, 1.0))
    return Curve(
        start=draw(st.floats(0, 1.0)),
        peak=peak,
        final=peak * draw(st.floats(0, 1)),
        nw=draw(st.integers(0, total - 1)),
        total=total,
        warmup="linear",
        decay=draw(st.sampled_from(sorted(DECAYS))),
    )


@st.composite
def hyps(draw) -> Hyp:
    return Hyp(
        epochs=draw(st.integers(1, 8)),
        warmup_epochs=draw(st.floats(0, 4)),
        warmup_max=draw(st.floats(0, 1)),
        warmup_bias_lr=draw(st.one_of(st.none(), st.floats(0, 0.2))),
        warmup_momentum=draw(st.one_of(st.none(), st.floats(0, 0.9))),
        decay=draw(st.sampled_from(sorted(DECAYS))),
        nbs=draw(st.sampled_from([1, 16, 48, 64, 100])),
    )


runs = st.tuples(hyps(), st.integers(1, 40), st.sampled_from([1, 3, 8, 16, 24, 64, 128]))


@given(curves())
def test_after_warmup_only_the_decay_remains(c):
    assert all(value_at(ni, c) == value_at(ni, replace(c, nw=0)) for ni in range(c.nw, c.total))


@given(curves())
def test_values_stay_between_their_ends(c):
    low, high = min(c.start, c.final, c.peak), max(c.start, c.final, c.peak)
    assert all(low - 1e-12 <= value_at(ni, c) <= high + 1e-12 for ni in range(c.total))


@given(curves())
def test_no_jump_at_the_end_of_warmup(c):
    """From nw - 1 to nw the curve moves by at most one linear step plus the largest step of the decay."""
    if c.nw > 0:
        slope = math.pi / 2 / max(c.total - 1, 1)  # of the steepest decay, per batch
        step = (abs(c.start) + abs(c.peak)) / c.nw + (c.peak - c.final) * slope
        assert abs(value_at(c.nw, c) - value_at(c.nw - 1, c)) <= step + 1e-12


@given(curves())
def test_it_starts_at_start_and_ends_at_final(c):
    if c.nw > 0:
        assert value_at(0, c) == pytest.approx(c.start)
    end = c.peak if c.decay == "constant" else c.final
    assert value_at(c.total - 1, c) == pytest.approx(end, abs=1e-12)


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
    assert schedule.nw <= round(hyp.warmup_epochs * nb)


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
