"""Which settings a run that goes on may have others of."""

from collections.abc import Container, Mapping
from typing import Any

from utils.config.schema import Hyp

FREE = {  # keys that a resumed run may have others of: they change no bit, or it is said that they do
    *("device", "graph", "workers", "noplots", "data", "batch", "save_every", "save_period"),
    *("cache", "cache_gb", "loader", "time"),
}
FIXED = {  # keys that decide which tensors there are
    *("weights", "head", "optimizer", "freeze", "recipe", "lr_backbone", "lr_head", "classes", "single_cls"),
    *("warmup_epochs_backbone", "warmup_epochs_head"),
}
TAIL = {"epochs", "wsd_decay", "close_mosaic"}  # keys that a longer run may have others of: they are of its end


def given_settings(hyp: Hyp, without: Container[str]) -> dict[str, Any]:
    """What a command line and its hyp file say of a run that goes on."""
    return {key: getattr(hyp, key) for key in hyp.model_fields_set if key not in without}


def others(given: Mapping[str, Any], before: Mapping[str, Any], free: Container[str]) -> dict[str, Any]:
    """Those of the given settings that are not as they were at the start, and are not free."""
    return {key: value for key, value in given.items() if key not in free and value != before.get(key)}


def change(now: Mapping[str, Any], before: Mapping[str, Any]) -> str:
    """Each setting at the start and now, in words."""
    return "; ".join(f"{key}: {before.get(key)} at the start, {now[key]} now" for key in sorted(now))
