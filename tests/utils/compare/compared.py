"""A folder of a comparison as compare.py leaves it, made in a second: numbers are drawn, files are real."""

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.helpers.folders import lasting_folder
from utils.compare.statistics.paired import paired
from utils.compare.statistics.verdict import verdicts
from utils.run.log import RunLog

NB, EPOCHS = 10, 4  # batches per epoch


def make_comparison(
    folder: Path,
    arms: Mapping[str, float] | None = None,
    seeds: int = 6,
    ended: Mapping[tuple[str, int], str] | None = None,
    message: str = "error: no space left on device",
    **told: Any,
) -> Path:
    """Arms {name: effect in points; the first is the reference}; `ended`: status of the runs that are not done.

    An arm called cold has no warm-up, the others warm up for an epoch. `told` replaces keys of comparison.json.
    """
    arms = {"warm": 0.0, "cold": 0.4} if arms is None else arms
    runs = [
        write_run(folder, arm, seed, effect, (ended or {}).get((arm, seed), "done"), message)
        for arm, effect in arms.items()
        for seed in range(seeds)
    ]
    names = list(arms)
    content = {
        "format": 1,
        "state": "complete" if all(run["status"] in ("done", "diverged") for run in runs) else "incomplete",
        "command": ["compare.py", "--data", "blood cells.yaml", "--seeds", str(seeds), "--arm", "warm", "finetune"],
        "started": "2026-11-21 16:00:00",
        "updated": "2026-11-21 17:12:03",
        "declared": {"metric": "val/mAP50-95", "margin": 0.01, "max_seeds": 12, "reference": names[0]},
        "seeds": list(range(seeds)),
        "arms": [
            {"name": n, "words": ["finetune"], "nw": warmup(n), "nb": NB, "total": NB * EPOCHS, "seed_offset": 0}
            for n in names
        ],
        "differs": {"warmup_epochs": {n: warmup(n) / NB for n in names}, "warmup_bias_lr": dict.fromkeys(names)},
        "shared": {"data": "blood cells.yaml", "epochs": EPOCHS, "lr0": 0.01, "cache": None, "noval": False},
        "window": NB,
        "notes": [],
        "fingerprint": {
            "code": "c0de" * 16, "git": "8e639f5", "threads": 1, "device": "cpu", "python": "3.11.2",
            "platform": "Linux-6.1-x86_64", "versions": {"torch": "2.8.0", "numpy": "2.0.1"},
            "data": {"blood cells.yaml": {"content": "da7a" * 16, "pictures": 364}},
            "weights": {"yolo11n.pt": "5eed" * 16},
        },
        "looks": [],
        "runs": runs,
        **judged(runs, names, seeds),
    }  # fmt: skip
    if content["verdicts"]:
        kinds = {arm: verdict["kind"] for arm, verdict in content["verdicts"].items()}
        n = next(iter(content["verdicts"].values()))["pairs"]
        content["looks"] = [{"pairs": n, "when": "2026-11-21 17:12:00", "verdicts": kinds}]
    (folder / "comparison.json").write_text(json.dumps(content | told, allow_nan=False), encoding="utf-8")
    return folder


def warmup(arm: str) -> int:
    """Batches."""
    return 0 if arm == "cold" else NB


def write_run(folder: Path, arm: str, seed: int, effect: float, status: str, message: str) -> dict[str, Any]:
    """The files of a run that ended so, and its line in comparison.json."""
    name = f"runs/{arm.replace('/', '-')}/seed{seed}"
    line = {
        "arm": arm,
        "seed": seed,
        "status": status,
        "exit": 0,
        "folder": name,
        "command": ["train.py", f"seed={seed}"],
    }
    line |= {"seconds": 61.2 + seed, "device": "cpu", "score": None, "message": None, "secondary": {}}
    if status == "missing":
        return line | {"exit": None, "seconds": None}
    if status == "failed":
        (folder / name).mkdir(parents=True)
        return line | {"exit": 1, "message": message}
    made, numbers = drawn_run(arm, seed, effect, status == "diverged")
    shutil.copytree(made, folder / name)
    if status == "diverged":
        return line | {"exit": 3, "message": "diverged: the loss is NaN or infinite at batch 23, in epoch 3"}
    return line | {"score": numbers["score"], "secondary": {k: v for k, v in numbers.items() if k != "score"}}


@cache
def drawn_run(arm: str, seed: int, effect: float, diverges: bool) -> tuple[Path, dict[str, float]]:
    """A run folder to be copied, for many comparisons have the same run, and its score and secondary measures."""
    folder = lasting_folder("run")
    rng = np.random.default_rng([seed, *arm.encode()])
    shared = np.random.default_rng(seed).normal(0, 0.012)  # what the arms of a pair have in common
    last = 0.55 + shared + effect / 100 + rng.normal(0, 0.004)
    books = RunLog(folder)
    spike, norm = 0.0, 0.0
    curve = []
    for ni in range(NB * EPOCHS):
        t = min(ni / warmup(arm), 1) if warmup(arm) else 1.0
        lr = 0.01 * t * (1 - ni / (NB * EPOCHS))
        rates = {"lr/bias": 0.1 + (lr - 0.1) * t, "lr/norm": lr, "lr/weight": lr, "momentum": 0.8 + 0.137 * t}
        bump = (1 - t + (t if not warmup(arm) else 0) * 1.4 * math.exp(-((ni - 2) ** 2) / 4)) * 0.6
        parts = {part: scale * (math.exp(-ni / 15) + 0.6 + bump + rng.normal(0, 0.05)) for part, scale in LOSS.items()}
        if diverges and ni == 2 * NB + 3:
            parts = dict.fromkeys(LOSS, math.nan)
        tensors = {f"train/{part}": torch.tensor(value) for part, value in parts.items()}
        if ni % 2:  # two batches a step
            tensors["train/grad_norm"] = torch.tensor(20 * (1 + 3 * bump) * math.exp(rng.normal(0, 0.2)))
            norm = max(norm, float(tensors["train/grad_norm"]))
        books.batch(ni, rates | {"accumulate": 2}, tensors)
        spike = max(spike, sum(parts.values()))
        if math.isnan(sum(parts.values())):
            break
        if ni % NB == NB - 1:
            epoch = ni // NB + 1
            curve.append(last * (1 - math.exp(-1.3 * epoch)) / (1 - math.exp(-1.3 * EPOCHS)))
            row = {"train/clip_rate": 0.5, "val/mAP50-95": curve[-1], "val/mAP50": curve[-1] + 0.25}
            books.epoch(epoch, ni + 1, row)
    books.close()
    numbers = {"score": last, "best": max(curve), "best_epoch": EPOCHS, "mAP50": last + 0.25}
    numbers |= {"area": float(np.mean(curve)), "epochs_to_90": 2, "loss_spike": spike / 20, "grad_norm": norm}
    return folder, numbers


LOSS = {"box": 1.5, "cls": 4.0, "dfl": 1.0}


def judged(runs: Sequence[Mapping[str, Any]], arms: Sequence[str], seeds: int) -> dict[str, Any]:
    """The verdicts and the secondary differences of these runs."""
    of = {(run["arm"], run["seed"]): run for run in runs}
    whole = [s for s in range(seeds) if all(of[arm, s]["status"] in ("done", "diverged") for arm in arms)]
    if len(whole) < 2:
        return {"verdicts": {}, "secondary": {}}
    scores = {arm: [math.nan if (x := of[arm, s]["score"]) is None else x for s in whole] for arm in arms}
    told = verdicts(scores[arms[0]], {arm: scores[arm] for arm in arms[1:]}, (), 12, 0.01)
    keys = ("kind", "sentence", "p_adjusted", "level", "p_equivalence", "level_equivalence", "seeds_more")
    secondary: dict[str, Any] = {}
    for arm in arms[1:]:
        secondary[arm] = {}
        for key in ("best", "mAP50", "area", "epochs_to_90", "loss_spike", "grad_norm"):
            both = [[of[a, s]["secondary"].get(key) for a in (arms[0], arm)] for s in whole]
            d = [b - a for a, b in both if a is not None and b is not None]
            if len(d) > 1:
                r = paired(d)
                secondary[arm][key] = {"mean": r.mean, "low": r.low, "high": r.high, "pairs": r.n}
    return {
        "verdicts": {
            arm: {key: getattr(v, key) for key in keys}
            | {
                "pairs": v.paired.n,
                "mean": v.paired.mean,
                "sd": v.paired.sd,
                "low": v.paired.low,
                "high": v.paired.high,
            }
            | {"p_t": v.paired.p_t, "p_sign_flip": v.paired.p_flip, "p": v.paired.p, "diverged": list(v.diverged)}
            for arm, v in told.items()
        },
        "secondary": secondary,
    }
