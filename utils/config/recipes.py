"""Timing rules, one row each: what `preheat` promises, and what the other trainers really do.

A quirk is a field here and a word in hyps/*.yaml; no loop asks which recipe it runs under.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any


@dataclass(frozen=True)
class Recipe:
    """Defaults are the rules of `preheat`."""

    shortest: int = 0  # the warm-up has at least so many batches ...
    shortest_if_off: bool = False  # ... even with warmup_epochs: 0
    capped: bool = True  # by warmup_max
    leaves_an_epoch: bool = False  # the last epoch is never warm-up
    first_epoch_only: int = 0  # the warm-up is the first epoch, of at most so many batches
    arrives_after: bool = False  # the decay arrives one epoch after the last, so lrf is never used
    lag: int = 0  # epochs by which the decay is late once the epoch in which warm-up ended is over
    ramp: str = "exact"  # accumulate in the warm-up: exact arithmetic | numpy's interp, which rounds otherwise
    ramp_to_fraction: bool = False  # it aims at nbs / batch, not at the rounded nominal
    nominal_fits_run: bool = False  # a step never takes more batches than the run has
    ramps_beta1: bool = True  # warmup_momentum also moves beta1 of Adam
    drops: bool = False  # gradients of an open window are cleared at the start of every epoch
    flushes: bool = False  # the last batch of the run makes a step whatever the window holds
    steps_on_multiples: bool = False  # step where ni % accumulate == 0, not so many batches after the last one
    mean_loss: bool = False  # the loss is a mean over the batch and divided by accumulate; else a sum, undivided
    scales_weight_decay: bool = True  # by batch * nominal / nbs
    decays_all: bool = False  # weight decay on biases and norms, too
    has_auto: bool = False  # optimizer: auto
    resume_restarts_lr: bool = False  # the original's first epoch after a resume runs at lr0
    # key -> values that the recipe can mean; a key that is not said takes the first
    allows: Mapping[str, tuple[Any, ...]] = field(default_factory=lambda: MappingProxyType({}))


_EPOCH_CLOCK = {
    "clock": ("epoch",), "decay": ("linear", "cosine", "one_cycle"), "decay_from": ("run",), "min_lr": (None,),
    "warmup_max": (1.0,), "warmup_iters": (None,), "warmup_epochs_backbone": (None,), "warmup_epochs_head": (None,),
}  # fmt: skip
_ULTRALYTICS = _EPOCH_CLOCK | {
    "warmup_clock": ("batch",), "warmup": ("linear", "none"), "warmup_start": (0.0,), "warmup_accumulate": ("ramp",),
}  # fmt: skip

RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        "preheat": Recipe(flushes=True),
        "yolov5": Recipe(  # v7.0, the last
            shortest=100, shortest_if_off=True, capped=False, arrives_after=True, lag=1, ramp="interp",
            ramp_to_fraction=True, ramps_beta1=False, drops=True,
            allows=MappingProxyType(_ULTRALYTICS | {"warmup": ("linear",)}),  # it cannot be switched off
        ),
        "ultralytics": Recipe(  # 8.4.190
            capped=False, leaves_an_epoch=True, arrives_after=True, ramp="interp", nominal_fits_run=True,
            ramps_beta1=False, has_auto=True, allows=MappingProxyType(_ULTRALYTICS),
        ),
        "ultralytics-8.3": Recipe(  # 8.3.63
            shortest=100, capped=False, arrives_after=True, ramp="interp", ramp_to_fraction=True, ramps_beta1=False,
            allows=MappingProxyType(_ULTRALYTICS),
        ),
        "yolov3-spp": Recipe(  # WZMIAOMIAO's; its ramp .001 -> 1 times lr0 is the additive one while lf(0) = 1
            capped=False, first_epoch_only=1000, arrives_after=True, steps_on_multiples=True, mean_loss=True,
            scales_weight_decay=False, decays_all=True, resume_restarts_lr=True,
            allows=MappingProxyType(
                _EPOCH_CLOCK | {
                    "decay": ("cosine", "one_cycle"), "warmup": ("linear", "none"), "warmup_epochs": (1.0, 0.0),
                    "warmup_start": (0.001,), "warmup_accumulate": ("one",), "warmup_bias_lr": (None,),
                    "warmup_momentum": (None,), "warmup_clock": ("batch",),
                }
            ),
        ),
        "keras-cosine": Recipe(  # the usual callback, set at the start of an epoch; its last epoch is above min_lr
            capped=False, arrives_after=True, flushes=True,
            allows=MappingProxyType({
                "clock": ("epoch",), "warmup_clock": ("epoch",), "decay_from": ("warmup",), "warmup_max": (1.0,),
            }),
        ),
    }
)  # fmt: skip

# kinds of decay that leave no choice in other keys, as `allows`
DECAY_ALLOWS: Mapping[str, Mapping[str, tuple[Any, ...]]] = MappingProxyType(
    {
        "one_cycle_torch": {  # rises by itself
            "warmup": ("none",), "warmup_epochs": (0.0,), "warmup_iters": (None,), "clock": ("batch",),
            "decay_from": ("run",), "warmup_clock": ("batch",),
        },
        "power": {"decay_from": ("warmup",)},
        "plateau": {"clock": ("epoch",), "noval": (False,), "val_every": (1,)},
    }
)  # fmt: skip


def auto_optimizer(pictures: int, classes: int, batch: int, nbs: int, epochs: int) -> tuple[dict[str, Any], int]:
    """What `optimizer: auto` of ultralytics 8.4 chooses, by our keys, and the iterations by which it does."""
    iterations = math.ceil(pictures / max(batch, nbs)) * epochs
    lr = round(0.002 * 5 / (4 + classes), 6)
    optimizer, lr0 = ("musgd", 0.01) if iterations > 10_000 else ("adamw", lr)
    return {"optimizer": optimizer, "lr0": lr0, "momentum": 0.9, "warmup_bias_lr": 0.0}, iterations


def apply_recipe(values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` completed by what the recipe and the kind of decay say; ValueError names what contradicts them."""
    name, decay = (values.get(key) if isinstance(values.get(key), str) else "" for key in ("recipe", "decay"))
    recipe = RECIPES.get(name, Recipe())
    applied, wrong = _one_way_off(dict(values), recipe), []
    for source, allows in ((f"recipe: {name}", recipe.allows), (f"decay: {decay}", DECAY_ALLOWS.get(decay, {}))):
        for key, possible in allows.items():
            if applied.setdefault(key, possible[0]) not in possible:
                words = " or ".join(map(_word, possible))
                wrong.append(f"{key}: {_word(applied[key])} contradicts {source}, which has {words}")
    if wrong:
        raise ValueError("; ".join(wrong) + ". Remove the key, or choose another recipe or decay (preheat allows all)")
    return applied | {"warmup_epochs": 0.0} if applied.get("warmup") == "none" else applied


def _one_way_off(values: dict[str, Any], recipe: Recipe) -> dict[str, Any]:
    """`warmup: none` and a length of 0 are one thing, stored as both, unless the recipe warms up even then."""
    iters = values.get("warmup_iters")
    length = values.get("warmup_epochs") if iters is None else iters
    zero = isinstance(length, int | float) and not isinstance(length, bool) and length == 0
    if values.get("warmup") == "none" or (zero and not recipe.shortest_if_off):
        return values | {"warmup": "none", "warmup_epochs": 0.0, "warmup_iters": None}
    return values


def _word(value: Any) -> str:
    return "null" if value is None else str(value)
