"""When the state of a run is saved inside an epoch."""

import time

from utils.errors import asked_to_save


class Due:
    """Says between two batches whether to save: every so often, and where SIGUSR1 has asked for it.

    every: as hyp's save_every; 0: only where asked. stable: before this batch, too, whose state is kept; 0: none.
    """

    def __init__(self, every: float | str, stable: int = 0) -> None:
        self.stable = stable
        batches = isinstance(every, str)
        self.batches = int(every.split()[0]) if batches else 0
        self.seconds = 0.0 if batches else 60.0 * every
        self.asked = False  # by SIGUSR1, and not saved since
        self.saved_at(0)

    def saved_at(self, ni: int) -> None:
        """A state has been saved before batch `ni`."""
        self.ni, self.since = ni, time.monotonic()

    def at(self, ni: int) -> bool:
        """Whether to save before batch `ni`."""
        self.asked |= asked_to_save()
        if self.asked or (self.stable and ni == self.stable):
            return True
        if self.batches:
            return ni - self.ni >= self.batches
        return bool(self.seconds) and time.monotonic() - self.since >= self.seconds
