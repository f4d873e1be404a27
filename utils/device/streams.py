"""Work beside other work: time without waiting for it, further streams, batches that are made or taken up later."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

Batch = dict[str, Any]


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


def sent_ahead(
    batches: Iterable[Batch], device: torch.device, prepare: Callable[[Batch], Tensor]
) -> Iterator[tuple[Batch, Tensor]]:
    """Each batch with its pictures as `prepare` makes them on the device.

    On a GPU that is done in a stream of its own while the batch before is worked on. What the loader does when it is
    asked for a batch belongs to that stream, too: it gives a buffer back when the copy has been made, no later. By then
    only `prepare` may have looked at the pixels of the batch itself.
    """
    if device.type != "cuda":
        yield from ((batch, prepare(batch)) for batch in batches)
        return
    stream, main = torch.cuda.Stream(device), torch.cuda.current_stream(device)
    try:
        for batch, images, there in held_back(_sent(iter(batches), stream, prepare), 1):
            main.wait_event(there)
            images.record_stream(main)  # else the memory would be the stream's again when the loop lets go of it
            yield batch, images
    finally:  # also when the loop is left, with a copy on its way
        main.wait_stream(stream)


def _sent(
    batches: Iterator[Batch], stream: torch.cuda.Stream, prepare: Callable[[Batch], Tensor]
) -> Iterator[tuple[Batch, Tensor, torch.cuda.Event]]:
    """Each batch with its pictures, which are there when the event has happened."""
    while True:
        with torch.cuda.stream(stream):
            batch = next(batches, None)
            if batch is None:
                return
            images = prepare(batch)
        yield batch, images, stream.record_event()
