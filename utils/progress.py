"""What changes while a run goes on, in plain values, and when to stop early. PURE."""

from dataclasses import dataclass, field


@dataclass
class Progress:
    """Part of a run's saved state."""

    ni: int = 0  # batches since the run began: the clock of every schedule
    last_step: int = -1  # batch of the last optimizer step; the open accumulation window began after it
    epoch: int = 0  # epochs finished
    best: float = -1.0  # best mAP50-95 of the EMA
    best_epoch: int = 0
    hours: float = 0.0  # of training, over all starts of this run
    finished: bool = False
    metrics: dict[str, float] = field(default_factory=dict)  # of the last evaluation

    def is_best(self, value: float) -> bool:
        """Remember `value`, the score of the epoch just finished, if no earlier epoch was as good; NaN never is."""
        if value > self.best:
            self.best, self.best_epoch = value, self.epoch
            return True
        return False

    def out_of_patience(self, patience: int, nw: int, nb: int) -> bool:
        """Whether `patience` epochs passed without a better score, counted from the end of the warm-up at the earliest.

        nw: warm-up length in batches; nb: batches per epoch; patience 0: never.
        """
        since = max(self.best_epoch, -(-nw // nb))
        return patience > 0 and self.epoch - since >= patience
