"""Recorded runs of the originals, replayed: every trace in shared/golden/traces, rel 1e-9, abs 1e-12.

What a trace holds is in that folder's README. A name is parsed, never looked up: more traces than those here exist.
"""

import math
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.helpers.traces import (
    GOLDEN,
    PER_EPOCH,
    close,
    column,
    curve,
    each,
    hf_rates,
    load,
    number,
    rates_of_original,
    steps_of_original,
)  # fmt: skip
from utils.config.schema import Hyp
from utils.schedule.curves import cycle_at, gradual_power_at, plateau_at, value_at
from utils.schedule.rates import Schedule, build_schedule, ema_decay_at, scaled_weight_decay

LOOPS = {
    "yolov5_v7.0": "yolov5",
    "ultralytics_8.3.63": "ultralytics-8.3",
    "ultralytics_8.4.190": "ultralytics",
    "yolov3spp": "yolov3-spp",
}


@pytest.fixture(autouse=True)
def _present():
    if not GOLDEN.is_dir():
        pytest.skip(f"no traces at {GOLDEN}")


# ---- the four training loops: recipe, hyp and build_schedule must repeat them


def loop_hyp(file: str, trace: dict[str, Any]) -> Hyp:
    """The run of a trace in our words."""
    cfg, told = trace["cfg"], dict(trace["hyp"])
    values = {k: told[k] for k in told if k in Hyp.model_fields and k not in {"cls", "box", "dfl", "obj"}}
    values |= {"recipe": LOOPS[file], "epochs": cfg["E"], "nbs": trace.get("nbs", 64), "batch": cfg["B"]}
    if not trace.get("has_momentum_key", True):  # an Adam; `auto` gives it a beta1 that is not the user's momentum
        values |= {"optimizer": "adamw", "momentum": (trace["groups"][0].get("betas") or [told["momentum"]])[0]}
    if LOOPS[file] == "yolov3-spp":
        return Hyp(**values)
    bias = trace.get("warmup_bias_lr_effective", told["warmup_bias_lr"])
    return Hyp(**values | {"decay": "cosine" if cfg["cos_lr"] else "linear", "warmup_bias_lr": bias})


def loop_traces() -> Iterator[Any]:
    for file in LOOPS:
        for name in load(file).get("traces") or [None]:
            yield pytest.param(file, name, id=f"{file}-{name}")


def group_rates(hyp: Hyp, trace: dict[str, Any], nis: list[int], start: int) -> Iterator[tuple[int, str, list[float]]]:
    """(index, role, rates) of every group of a trace; a group whose initial lr is not lr0 is a run with that lr0."""
    for group in trace["groups"]:
        role = {"bias": "bias", "bn": "norm"}.get(group["name"], "weight")
        own = build_schedule(
            hyp.model_copy(update={"lr0": group["initial_lr"]}), trace["cfg"]["nb"], hyp.batch, (role,)
        )
        yield group["index"], group["name"], [rates_of_original(own, ni, start).lr[role] for ni in nis]


@pytest.mark.parametrize(("file", "name"), loop_traces())
def test_training_loop(file, name):
    trace = load(file)["traces"][name]
    hyp, nb = loop_hyp(file, trace), trace["cfg"]["nb"]
    schedule, iters, start = build_schedule(hyp, nb, hyp.batch), trace["iters"], nb * trace["start_epoch"]
    nis = column(iters["ni"])
    every = trace.get("iters_lr_all_groups")
    columns = {"bias": "lr_bias", "decay": "lr_decay", "weight": "lr_decay", "bn": "lr_bn", "all": "lr"}
    for index, role, rates in group_rates(hyp, trace, nis, start):
        close(rates, every[str(index)] if every else iters[columns[role]], f"lr of group {index}, {role}")
    if "momentum" in iters:
        close([schedule(ni).momentum for ni in nis], iters["momentum"], "momentum")
    close([schedule.accumulate(ni) for ni in nis], iters["accumulate"], "accumulate")
    check_steps(schedule, hyp, iters, nis, start)
    check_facts(schedule, hyp, trace)


def check_steps(schedule: Schedule, hyp: Hyp, iters: dict[str, Any], nis: list[int], start: int) -> None:
    """Which batches step, on how many micro-batches, and what the EMA and the gradient are after it."""
    done = dict(steps_of_original(schedule, start=start))
    assert [int(ni in done) for ni in nis] == column(iters["step"]), "which batches step"
    if "micro" in iters:
        assert [done.get(ni, 0) for ni in nis] == column(iters["micro"]), "micro-batches in each step"
    if "grad_at_step" in iters:
        gradients, total = [], 0.0
        for ni in nis:
            total += schedule.loss_factor(ni, hyp.batch) * hyp.batch
            gradients += [total if ni in done else None]
            total = 0.0 if ni in done else total
        wanted = column(iters["grad_at_step"])
        assert [g is None for g in gradients] == [not w for w in wanted], "where a gradient is used"
        close([g or 0.0 for g in gradients], [w or 0.0 for w in wanted], "gradient at the step")
    if "ema_updates" in iters:
        counts, decays = column(iters["ema_updates"]), column(iters["ema_decay"])
        first = counts[0] - (nis[0] in done)
        mine = [first + sum(ni in done for ni in nis[: i + 1]) for i in range(len(nis))]
        assert mine == counts, "EMA updates"
        known = [(n, d) for n, d in zip(mine, decays, strict=True) if n and d is not None]
        close([ema_decay_at(n, 0.9999, 2000.0) for n, _ in known], [d for _, d in known], "EMA decay")


def check_facts(schedule: Schedule, hyp: Hyp, trace: dict[str, Any]) -> None:
    """nw, the nominal accumulate and the scaled weight decay."""
    if "nw" in trace:
        assert schedule.nw == max(trace["nw"], 0)  # 8.3 says -1 for none
    assert schedule.nominal == trace["accumulate_initial"]
    decayed = {g["weight_decay"] for g in trace["groups"] if g["name"] in {"decay", "weight", "all"}}
    close([scaled_weight_decay(hyp, hyp.batch)] * len(decayed), list(decayed), "weight decay")


# ---- the others: `value_at` in the unit of the original


@each("hf")
def test_hugging_face(name):
    trace = load("hf")["traces"][name]
    close(hf_rates(name, trace["n"]), trace["lr"], name)


@each("hf", "seed2")
def test_tutorial_with_hugging_face(name):
    """Three epochs of warm-up counted in iterations; stepped per epoch the rate hardly leaves the ramp."""
    nb, wanted = int(number(name, "nb")), column(load("hf")["seed2"][name])
    epochs = len(wanted) if name.endswith("per_epoch") else len(wanted) // nb
    c = curve(6e-5, nb * epochs, 3 * nb, decay="cosine")
    close([value_at(t, c) for t in range(len(wanted))], wanted, name)


@each("keras_cosine_warmup")
def test_keras(name):
    lowest, total = number(name, "min", 0.0), number(name, "_E")
    c = curve(number(name, "init"), total, number(name, "_w"), start=lowest, final=lowest)
    wanted = load("keras_cosine_warmup")["traces"][name]["lr_per_epoch"]
    close([value_at(e, c) for e in range(len(column(wanted)))], wanted, name)


@each("gradual_warmup")
def test_gradual(name):
    trace = load("gradual_warmup")["traces"][name]
    if "index" in trace:
        w, _, peak = (float(x) for x in name.split("_")[1:])
        close([gradual_power_at(t, int(w), peak) for t in trace["index"]], trace["lr"], name)
        return
    for key, wanted in trace.items():
        w, peak = int(number(key, "w")), number(key, "lr")
        close([gradual_power_at(t, w, peak) for t in range(len(column(wanted)))], wanted, key)


@each("onecycle_torch")
def test_one_cycle_of_torch(name):
    trace, peak = load("onecycle_torch")["traces"][name], 0.001 if "Adam" in name else 0.01
    nb, epochs = int(number(name, "nb")), int(number(name, "_E"))
    total, pct = nb * epochs, number(name, "pct", 0.3)
    momenta = re.search(r"momentum_(\d*\.\d+)_(\d*\.\d+)", name)
    low, high = (float(m) for m in momenta.groups()) if momenta else (0.85, 0.95)
    div, fin = number(name, "_div", 25.0), number(name, "_fin", 1e4)
    if "linear" in name or "three_phase" in name:  # no keys of ours: the bare function
        shape, start = "linear" if "linear" in name else "cosine", peak / div
        places = [0.0, pct * total - 1, total - 1]
        lr, momentum = [start, peak, start / fin], [high, low, high]
        if "three_phase" in name:
            places.insert(2, 2 * pct * total - 2)
            lr, momentum = [start, peak, start, start / fin], [high, low, high, high]
        pairs = [cycle_at(x, list(zip(places, lr, strict=True)), shape) for x in range(total)]
        close(pairs, trace["lr"], "lr")
        close(
            [cycle_at(x, list(zip(places, momentum, strict=True)), shape) for x in range(total)], trace["momentum"], "m"
        )
        return
    told = {"pct_start": pct, "div_factor": div, "final_div_factor": fin, "base_momentum": low, "max_momentum": high}
    schedule = build_schedule(Hyp(decay="one_cycle_torch", lr0=peak, epochs=epochs, **told), nb, 16)
    close([schedule(ni).lr["weight"] for ni in range(total)], trace["lr"], "lr")
    close([schedule(ni).momentum for ni in range(total)], trace["momentum"], "momentum")


@each("sgdr")
def test_sgdr(name):
    """Stepped with epoch + i / nb the original is one iteration late; stepped by the epoch it is not."""
    trace = load("sgdr")["traces"][name]
    nb, first, growth = int(number(name, "nb", 1)), int(number(name, "T0")), int(number(name, "Tm"))
    wanted = trace["lr_used"] if "lr_used" in trace else trace
    hyp = Hyp(
        decay="cosine_restarts", T_0=first, T_mult=growth, epochs=int(number(name, "_?E")), warmup="none", lr0=0.01,
        min_lr=number(name, "min", 0.0),
    )  # fmt: skip
    schedule, late = build_schedule(hyp, nb, 16), int(name.endswith("fractional"))
    got = [schedule(max(k - late, 0)).lr["weight"] for k in range(len(column(wanted)))]
    close(got, wanted, name)


@each("per_epoch")
def test_per_epoch(name):
    traces = load("per_epoch")["traces"]
    if name.startswith("milestones_scaled"):
        rule = {"round": round, "int": int, "ceil": math.ceil}[name.split("_")[2]]
        epochs = number(name, "_E")
        assert traces[name] == [rule(f * epochs) for f in (0.3, 0.6, 0.9)]
        if name.startswith("milestones_scaled_round"):  # the rule of `milestones` here
            hyp = Hyp(decay="step", clock="epoch", epochs=int(epochs))
            assert build_schedule(hyp, 1, 16).lr["weight"].shape.milestones == tuple(traces[name])
        return
    build = next((make for pattern, make in PER_EPOCH.items() if re.match(pattern, name)), None)
    if build is None:
        pytest.skip(f"no kind of ours is called {name}")
    scaled = traces.get(name.replace("multistep", "milestones"))
    c = build(name, int(number(name, "_E")), scaled or [float(m) for m in re.findall(r"_(\d+)(?=_)", name)])
    close([value_at(e, c) for e in range(len(column(traces[name])))], traces[name], name)


@pytest.mark.parametrize("index", range(max(len(load("plateau").get("traces", [])), 1)))
def test_plateau(index):
    file = load("plateau")
    trace = file["traces"][index]
    history, kw = file["metrics"][trace["metric"]], dict(trace["kw"])
    told = {"gamma": kw.pop("factor", 0.1), "floor": kw.pop("min_lr", 0.0), "mode": trace["mode"]} | kw
    got = [plateau_at(history[:t], 0.1, **{"patience": 10} | told) for t in range(len(history) + 1)]
    close(got, [*column(trace["lr_used"]), trace["lr_after_last"]], str(trace["kw"]))
    if trace["mode"] == "max" and set(kw) <= {"patience", "cooldown"}:  # what keys can say: the same through a schedule
        words = {"plateau_patience": kw["patience"], "plateau_cooldown": kw.get("cooldown", 0), "gamma": told["gamma"]}
        hyp = Hyp(decay="plateau", warmup="none", lr0=0.1, epochs=len(history), min_lr=told["floor"], **words)
        schedule = build_schedule(hyp, 3, 16)
        close([schedule(3 * e + 2, history).lr["weight"] for e in range(len(history))], trace["lr_used"], "schedule")


def test_plateau_counts_nan_as_bad():
    trace = load("plateau")["nan_metric"]
    history = [float(m) for m in trace["metric"]]
    got = [plateau_at(history[:t], 0.1, 0.1, trace["patience"], mode=trace["mode"]) for t in range(len(history))]
    close(got, trace["lr_used"], "nan")


@each("seed_warmup_kinds", "per_epoch_snippets")
def test_tutorial_per_epoch(name):
    wanted = load("seed_warmup_kinds")["per_epoch_snippets"][name]
    peak, w = number(name, "lr"), number(name, "(?:over_nw|over_)")
    c, shift = curve(peak, w, w, decay="constant"), 0
    if "plus1" in name:  # its scheduler starts counting after the warm-up, so lf(0) is never used
        total = number(name, "_E")
        c, shift = curve(peak, w + total, w, decay="linear", final=peak * 0.01), 1
    close([value_at(e + shift, c) for e in range(len(column(wanted)))], wanted, name)


KINDS = next((key for key in load("seed_warmup_kinds") if key.startswith("kinds")), "kinds")


@each("seed_warmup_kinds", KINDS)
def test_tutorial_kinds(name):
    """A word with two meanings: the tutorial's `constant` is a ramp, then constant; the textbook's a small rate."""
    wanted = load("seed_warmup_kinds")[KINDS][name]
    w, total = number(KINDS, "_W"), number(KINDS, "_T")
    peak = float(re.search(r"lr(.*)$", KINDS)[1].replace("_", "."))
    if name.startswith("textbook_constant"):
        start = peak * number(name, "factor")
        c = curve(peak, total, w, start=start, warmup="constant", decay="constant")
    else:
        c = curve(peak, total, w, decay=name)
    close([value_at(t, c) for t in range(len(column(wanted)))], wanted, name)


def test_files_that_are_not_replayed_are_named():
    known = {*LOOPS, "hf", "keras_cosine_warmup", "gradual_warmup", "onecycle_torch", "sgdr", "per_epoch", "plateau"}
    left = sorted({path.stem for path in GOLDEN.glob("*.json")} - known - {"seed_warmup_kinds"})
    if left:
        pytest.skip(f"recorded, and not replayed here: {', '.join(left)}")
