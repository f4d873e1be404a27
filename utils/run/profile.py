"""The first batches of a run under torch.profiler: a trace for TensorBoard, and where the time goes in plain words."""

import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from utils.run.meter import bound_by

log = logging.getLogger(__name__)
BATCHES = 50  # of the first epoch, all where it has fewer
TRACE = "profile.pt.trace.json.gz"  # the name by which TensorBoard's profiler plugin knows it
KINDS = {  # parts of an operator's or a kernel's name -> what it is called
    "convolution": ("conv", "fprop", "dgrad", "wgrad"),
    "BatchNorm": ("batch_norm", "bn_"),
    "activation": ("silu", "relu", "sigmoid", "hardswish"),
    "copies and concatenation": ("copy", "::cat", "catarray", "contiguous", "clone", "memcpy"),
    "pooling": ("pool", "upsample"),
    "optimizer and EMA": ("foreach", "fused_adam", "optimizer", "lerp", "addcdiv"),
}
Batches = Iterator[dict[str, Any]]


def first_profiled(epoch: Callable[..., Batches], folder: Path, amp: str, wanted: bool) -> Callable[..., Batches]:
    """A loader's `epoch`; if wanted, its first call is profiled: a trace goes to `folder`, words to the console."""
    first = wanted

    def profiled(number: int, start_batch: int = 0) -> Batches:
        nonlocal first
        batches = epoch(number, start_batch)
        if not first:
            return batches
        first = False
        return _profiled(batches, folder, amp)

    return profiled


def _profiled(batches: Batches, folder: Path, amp: str) -> Batches:
    """The batches; what happens until number BATCHES has been worked on is recorded."""
    cuda = torch.cuda.is_initialized()
    recorder = profile(activities=[ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * cuda)
    recorder.start()
    began, waited, count, running = time.perf_counter(), 0.0, 0, True

    def stop() -> None:
        if cuda:
            torch.cuda.synchronize()
        seconds = time.perf_counter() - began
        recorder.stop()
        recorder.export_chrome_trace(str(folder / TRACE))
        for line in describe(recorder.key_averages(), seconds, waited, count, amp, cuda, folder / TRACE):
            log.info(line)

    since = began
    try:
        for batch in batches:
            waited += running * (time.perf_counter() - since)
            yield batch
            count += running
            if running and count == BATCHES:
                running = False
                stop()
            since = time.perf_counter()
    finally:  # also when the epoch has fewer batches, or ends early
        if running and count:
            stop()


def describe(
    table: Any, seconds: float, waited: float, count: int, amp: str, cuda: bool, trace: Path
) -> tuple[str, str, str, str, str]:
    """What the records say, in five lines. table: torch's averages by operator; waited: seconds without a batch."""
    wait = waited / seconds
    if cuda:  # kernels only: the operators that called them carry the same time once more
        times = {row.key: row.self_device_time_total / 1e6 for row in table if row.device_type == DeviceType.CUDA}
    else:
        times = {row.key: row.self_cpu_time_total / 1e6 for row in table}
    busy = max(sum(times.values()), 1e-9)
    spent = dict.fromkeys((*KINDS, "rest"), 0.0)
    for operator, value in times.items():
        spent[kind_of(operator)] += value
    kinds = [*sorted(KINDS, key=lambda kind: -spent[kind])[:4], "rest"]
    idle = f"; the GPU idle {max(1 - busy / seconds, 0):.0%}" if cuda else ""
    return (
        f"profile   {count} batches, {1000 * seconds / count:.0f} ms each, the recording included: {trace}",
        f"profile   {bound_by(wait)}: {wait:.0%} of the time is spent waiting for batches{idle}",
        f"profile   the {'GPU' if cuda else 'CPU'}'s time goes into {_shares(kinds, spent, busy)}",
        f"profile   longest operators: {_shares(sorted(times, key=times.get, reverse=True)[:3], times, busy)}",
        f"profile   to try: {advice(wait, amp, cuda, busy / seconds)}",
    )


def _shares(keys: list[str], seconds: dict[str, float], whole: float) -> str:
    return ", ".join(f"{key.removeprefix('aten::')} {seconds[key] / whole:.0%}" for key in keys)


def kind_of(operator: str) -> str:
    """The kind of work of an operator or kernel, by its name."""
    name = operator.lower()
    return next((kind for kind, parts in KINDS.items() if any(part in name for part in parts)), "rest")


def advice(wait: float, amp: str, cuda: bool, busy: float) -> str:
    """What may help most."""
    if bound_by(wait) == "loader-bound":
        colour = "hsv_on=device or hsv_mode=matrix" if cuda else "hsv_mode=matrix"
        return f"more --workers, --cache ram or disk, {colour}; a larger network costs nothing while it waits"
    if cuda and busy < 0.7:
        return "a larger --batch: the GPU waits for the program that gives it work"
    lower = (
        {True: "--amp fp16 or bf16, ", False: "--amp bf16 where the processor has it, "}[cuda] if amp == "off" else ""
    )
    return f"{lower}a smaller --imgsz or network, --freeze of the first layers; more workers do not help"
