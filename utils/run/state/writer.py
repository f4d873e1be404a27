"""States written to disk while training goes on."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from utils.run.state.checkpoint import save_state


class Writer:
    """Writes the states of a run, one at a time; in the background a thread copies them from the GPU and writes them.

    The thread is no daemon: a program that ends lets it finish. Whoever kills the program finds the old file.
    """

    def __init__(self, background: bool):
        self.background = background
        self.thread: threading.Thread | None = None
        self.error: BaseException | None = None

    def save(self, paths: list[Path], state: dict[str, Any], then: Callable[[], object] = lambda: None) -> None:
        """Write a state as it is now to each path, and call `then` when all of it is on the disk.

        In the background this returns at once; what goes wrong is raised by the next `save`, or by `join`.
        """
        self.join()
        if not self.background or (copied := _copied(state)) is None:
            _write(paths, state)
            then()
            return
        self.thread = threading.Thread(target=self._in_background, args=(paths, *copied, then))
        self.thread.start()

    def join(self) -> None:
        """Wait until everything is written."""
        if self.thread:
            self.thread.join()
        error, self.thread, self.error = self.error, None, None
        if error:
            raise error

    def _in_background(
        self, paths: list[Path], state: dict[str, Any], copied: torch.cuda.Event | None, then: Callable[[], object]
    ) -> None:
        try:
            _write(paths, _on_host(state, copied))
            then()
        except BaseException as e:  # raised where somebody hears it
            self.error = e


def _write(paths: list[Path], state: dict[str, Any]) -> None:
    for path in paths:
        save_state(path, state)


def _copied(state: dict[str, Any]) -> tuple[dict[str, Any], torch.cuda.Event | None] | None:
    """A copy beside the tensors, which training goes on to change, and an event behind it; None: no room for one."""
    try:
        copy = _each(state, lambda tensor: tensor.detach().clone())
    except torch.OutOfMemoryError:
        return None
    if not torch.cuda.is_initialized():
        return copy, None
    event = torch.cuda.Event()
    event.record()
    return copy, event


def _on_host(state: dict[str, Any], copied: torch.cuda.Event | None) -> dict[str, Any]:
    """The state on the host, through a stream of its own: that of training is not to wait for the transfer."""
    if copied is None:
        return state
    with torch.cuda.device(copied.device):  # a thread begins on the first one
        stream = torch.cuda.Stream()
        stream.wait_event(copied)
        with torch.cuda.stream(stream):
            return _each(state, lambda tensor: tensor.cpu())


def _each(value: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """The same nested dictionaries and lists with every tensor changed."""
    if isinstance(value, torch.Tensor):
        return change(value)
    if isinstance(value, dict):
        return {key: _each(item, change) for key, item in value.items()}
    return [_each(item, change) for item in value] if isinstance(value, list) else value
