"""The steps of a check that are made in the process itself: the first loss, a few pictures by heart, some rates."""

import math
import time

import numpy as np

from utils.tune.bench import hold_rate
from utils.tune.check.lab import Lab
from utils.tune.check.lecture import Finding, at_start, best_rate, by_heart, falling
from utils.tune.lr.ramp import has_diverged

PLAIN = (  # what is off where pictures are learnt by heart
    *("mosaic", "mixup", "hsv_h", "hsv_s", "hsv_v", "degrees", "translate", "scale", "shear", "perspective", "flipud"),
    *("fliplr", "multi_scale", "balance", "weight_decay"),
)

BLOCKS = (60, 60, 120, 240)  # steps by heart, scored after each


def look_at_start(lab: Lab) -> Finding:
    """Step 1: the losses of the first batch, and those of a network that knows its priors only."""
    with lab.bench.begin() as start:
        parts, implied = start.first_losses()
    return at_start(parts, implied, lab.bench.known)


def learn_by_heart(lab: Lab) -> Finding:
    """Step 2: a few pictures as they are, until the network knows them or a third of the time is over."""
    train, end = lab.bench.train, time.monotonic() + lab.left / 3
    with_boxes = np.flatnonzero(np.diff(train.offsets))
    some = np.sort(np.random.default_rng(0).permutation(with_boxes)[: lab.pictures])
    own = dict.fromkeys(PLAIN, 0.0) | {"albumentations": None, "cache": "off", "workers": 0}
    few = lab.bench.having(train.take(some), **own, batch=len(some), nbs=len(some))
    scores, done = [], 0
    with few.begin() as start:
        for n in BLOCKS:
            for _ in hold_rate(start, few.hyp, few.hyp.lr0, n):
                done += 1
                if time.monotonic() > end:
                    break
            scores.append((done, start.score()))
            if scores[-1][1] >= 0.95 or time.monotonic() > end:
                break
        tiny = few.train.boxes[:, 2:].min(1) * few.hyp.imgsz < float(start.stride.min())
    return by_heart(scores, len(some), float(tiny.mean()), done < sum(BLOCKS))


def try_rates(lab: Lab) -> Finding:
    """Step 3: a hundred batches at each of four rates."""
    hyp, tried, took, batches = lab.bench.hyp, {}, 0.0, 0
    for factor in (0.1, 0.3, 1.0, 3.0):
        lr, losses = float(f"{hyp.lr0 * factor:.3g}"), []
        with lab.bench.begin() as start:
            nominal = start.schedule.nominal
            began, end = time.monotonic(), time.monotonic() + lab.left / 8
            for loss in hold_rate(start, hyp, lr, max(100 // nominal, 10)):
                losses.append(loss)
                if has_diverged(losses) or (len(losses) >= 10 and time.monotonic() > end):
                    break
            tried[lr], took, batches = losses, took + time.monotonic() - began, batches + nominal * len(losses)
    whole = [len(losses) for losses in tried.values() if not has_diverged(losses)]
    tried = {lr: losses if has_diverged(losses) else losses[: min(whole)] for lr, losses in tried.items()}  # alike
    lab.numbers["batch_seconds"], lab.numbers["rate"] = took / batches, best_rate(tried)
    lab.numbers["rates"] = {str(lr): [x for x in losses if math.isfinite(x)] for lr, losses in tried.items()}
    return falling(tried, hyp.lr0, nominal * max(map(len, tried.values())))
