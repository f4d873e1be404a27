"""Work beside other work: time without waiting for it, a second stream, results that are taken up one batch later."""

import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch


class Stopwatch:
    """Seconds spent per named part, without a wait: on CUDA the time of the device between two marks in a stream."""

    def __init__(self, device: torch.device) -> None:
        self.on_gpu, self.since = device.type == "cuda", None
        self.laps: list[tuple[str, Any, Any]] = []  # name, begin, end

    def mark(self) -> Any:
        """This moment; on CUDA when the current stream gets here."""
        if not self.on_gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def start(self) -> None:
        self.since = self.mark()

    def lap(self, name: str) -> None:
        now = self.mark()
        self.laps.append((name, self.since, now))
        self.since = now

    def seconds(self) -> dict[str, float]:
        """What each part has come to; waits for the last of them."""
        total: dict[str, float] = {}
        for name, begin, end in self.laps:
            if self.on_gpu:
                end.synchronize()
            passed = begin.elapsed_time(end) / 1000 if self.on_gpu else end - begin
            total[name] = total.get(name, 0.0) + passed
        return total


class Lane:
    """Where detections are chosen: on a GPU a stream of its own, whose waits do not stop the network's next batch."""

    def __init__(self, device: torch.device) -> None:
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def here(self) -> Any:
        """What the current stream has been given up to now, to be waited for; None on a CPU."""
        return self.stream and torch.cuda.current_stream(self.stream.device).record_event()

    @contextmanager
    def after(self, event: Any) -> Iterator[None]:
        """While it lasts, work is given to the lane, and begins when `event` has happened."""
        if self.stream is None:
            yield
            return
        self.stream.wait_event(event)
        with torch.cuda.stream(self.stream):
            yield


def held_back(items: Iterable[Any], count: int) -> Iterator[Any]:
    """The same items, each when `count` more have been made."""
    waiting: deque[Any] = deque()
    for item in items:
        waiting.append(item)
        if len(waiting) > count:
            yield waiting.popleft()
    yield from waiting
