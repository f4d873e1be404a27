"""tune.py lr: ramps of several seeds, what they suggest, and the line of train.py that follows."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from utils.config.schema import Hyp
from utils.drawing.figure import save
from utils.files import write_whole
from utils.run.console import progress_bar
from utils.run.folder import make_run_folder
from utils.schedule.rates import Rates
from utils.tune.bench import Bench
from utils.tune.lr.picture import draw_ramps
from utils.tune.lr.ramp import Ramp, Suggestion, has_diverged, rates, remarks, suggest_rates
from utils.tune.options import Lr, train_line

log = logging.getLogger(__name__)


def find_lr(options: Lr, bench: Bench, words: Sequence[str]) -> dict[str, Any]:
    """The range test; words: of the run. Returns what lr.json holds."""
    folder, first = make_run_folder(options.project, options.name, False), bench.hyp.seed
    ramps = []
    for seed in range(first, first + options.seeds):
        ramp = ramp_up(bench.having(seed=seed), options)
        ramps.append(ramp)
        low = int(ramp.smooth.argmin())
        end = f"diverged at {ramp.lr[-1]:.2g}" if ramp.diverged else f"{ramp.loss[-1]:.3f} at {ramp.lr[-1]:.2g}"
        log.info(f"seed {seed}: loss {ramp.smooth[0]:.3f}, lowest {ramp.smooth[low]:.3f} at {ramp.lr[low]:.2g}, {end}")
    found = suggest_rates(ramps)
    for s in found.values():
        log.info(f"{s.name:<14} {s.lr:.2g}  ({min(s.each):.2g} to {max(s.each):.2g}, {len(s.each)} seeds)")
    notes = remarks(ramps, found)
    for note in notes:
        log.info(note)
    line = next_line(options, words, found)
    result = write_ramps(folder, options, bench.hyp, ramps, found, {"remarks": notes, "train": line})
    log.info(f"picture: {folder / 'lr.png'}, numbers: {folder / 'lr.json'}")
    log.info(f"train with it: {line}" if line else "nothing is suggested: train with the rate that is set")
    return result


def ramp_up(bench: Bench, options: Lr) -> Ramp:
    """One range test, from fresh weights."""
    hyp, lrs, losses = bench.hyp, rates(options.lr_from, options.lr_to, options.steps), []
    with bench.begin() as start:
        schedule = start.schedule
        peaks = {name: curve.peak for name, curve in schedule.lr.items()}

        def at(lr: float) -> Rates:
            moves = [k for k in peaks if options.group in ("all", k.rpartition(".")[2])]
            return Rates(peaks | {k: peaks[k] * lr / hyp.lr0 for k in moves}, hyp.momentum, schedule.nominal)

        for loss in progress_bar(start.steps(map(at, lrs)), options.steps, f"seed {hyp.seed}", True):
            losses.append(loss)
            if has_diverged(losses):
                break
    finite = np.array([loss for loss in losses if np.isfinite(loss)], np.float32).astype(float)
    return Ramp(hyp.seed, lrs[: len(finite)], finite, has_diverged(losses))


def next_line(options: Lr, words: Sequence[str], found: dict[str, Suggestion]) -> str:
    """The command of train.py that uses what was found; empty where nothing was."""
    if "middle" not in found or options.group not in ("all", "weight", "bias"):
        return ""
    lr = float(f"{found['middle'].lr:.2g}")
    return train_line(words, **({"warmup_bias_lr": lr} if options.group == "bias" else {"lr0": lr}))


def write_ramps(
    folder: Path, options: Lr, hyp: Hyp, ramps: list[Ramp], found: dict[str, Suggestion], more: dict[str, Any]
) -> dict[str, Any]:
    """Write lr.json and lr.png, and return what the former holds."""
    result = {
        "suggestions": {
            key: {"lr": s.lr, "low": min(s.each), "high": max(s.each), "seeds": len(s.each)} for key, s in found.items()
        },
        **more,
        "ramps": [
            {"seed": r.seed, "lr": r.lr.tolist(), "loss": r.loss.tolist(), "diverged": r.diverged} for r in ramps
        ],
        "options": options.model_dump(),
        "settings": hyp.model_dump(),
    }
    write_whole(folder / "lr.json", json.dumps(result, indent=1, allow_nan=False).encode())
    save(draw_ramps(ramps, found, options.group), folder / "lr.png")
    return result
