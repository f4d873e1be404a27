"""What changes while a run goes on, in plain values, and when to stop early. PURE."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from utils.config.schema import Hyp
from utils.errors import UserError

LOSSES = ("box", "obj", "cls", "dfl")  # parts of the loss: obj of an anchor-based one, dfl of the others
SCORES = (  # what an evaluation gives, in fractions; higher is better
    "val/mAP50-95", "val/mAP50", "val/mAP75", "val/mAP_small", "val/mAP_medium", "val/mAP_large",
    "val/AR1", "val/AR100", "val/precision", "val/recall",
)  # fmt: skip


@dataclass
class Progress:
    """Part of a run's saved state."""

    ni: int = 0  # batches since the run began: the clock of every schedule
    last_step: int = -1  # batch of the last optimizer step; the open accumulation window began after it
    epoch: int = 0  # epochs finished
    best: float = -math.inf  # best score of the EMA, by best_metric
    best_epoch: int = 0
    hours: float = 0.0  # of training, over all starts of this run
    skipped: int = 0  # optimizer steps so far whose gradient was NaN or infinite
    skipped_in_row: int = 0  # of them, those since the last step that was taken
    finished: bool = False
    metrics: dict[str, float] = field(default_factory=dict)  # of the last evaluation
    history: list[float] = field(default_factory=list)  # plateau_metric of every finished epoch; nan: not evaluated
    kept: list[list[float]] = field(default_factory=list)  # [score, epoch] of the keep_best best, the best first
    snapshots: list[int] = field(default_factory=list)  # epochs that ended a cycle of the schedule

    def keep(self, value: float, most: int) -> tuple[bool, int | None]:
        """Whether the epoch just finished, of score `value`, is one of the `most` best; and the epoch that is no more.

        Of equal ones the earlier stays; NaN is never kept.
        """
        if math.isnan(value):
            return False, None
        self.kept = sorted([*self.kept, [value, self.epoch]], key=lambda one: (-one[0], one[1]))
        gone = int(self.kept.pop()[1]) if len(self.kept) > most else None
        return gone != self.epoch, None if gone == self.epoch else gone

    def rescale(self, nb: int, old_nb: int, ratio: float, anew: bool) -> None:
        """Set the clock to where it would stand with `nb` batches an epoch in place of `old_nb`.

        ratio: pictures of a batch now, over those before. The open epoch goes on where it was, rounded down to a whole
        batch, or begins anew; the open window keeps its pictures.
        """
        done = 0 if anew else self.ni - self.epoch * old_nb  # batches of the open epoch
        window = self.ni - 1 - self.last_step
        done = nb if done == old_nb else min(int(done / ratio), nb)
        self.ni = self.epoch * nb + done
        self.last_step = self.ni - 1 - (round(window / ratio) or min(window, 1))

    def is_best(self, value: float, patience_from: int = 0) -> bool:
        """Remember `value`, the score of the epoch just finished, if no earlier epoch was as good; NaN never is.

        Of the first `patience_from` epochs each stands in until the next one.
        """
        if self.epoch <= patience_from:
            self.best_epoch = self.epoch
            return True
        if value > self.best:
            self.best, self.best_epoch = value, self.epoch
            return True
        return False

    def out_of_patience(self, patience: int, nw: int, nb: int, patience_from: int = 0) -> bool:
        """Whether `patience` epochs passed without a better score, counted from the end of the warm-up at the earliest.

        nw: warm-up length in batches; nb: batches per epoch; patience 0: never.
        """
        since = max(self.best_epoch, patience_from, -(-nw // nb))
        return patience > 0 and self.epoch - since >= patience


def judged(metrics: Mapping[str, float], by: str) -> float:
    """The score of an evaluation that decides which epoch is the best; higher is better.

    F1: harmonic mean of precision and recall; val_loss: minus the sum of the validation losses.
    """
    if by == "val_loss":
        return -sum(metrics[f"val/{part}"] for part in LOSSES if f"val/{part}" in metrics)
    if by != "F1":
        return metrics[f"val/{by}"]
    precision, recall = metrics["val/precision"], metrics["val/recall"]
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def require_number(metrics: Mapping[str, float], hyp: Hyp) -> None:
    """UserError where a plateau decay waits for a score that val cannot give, and would cut the rate in silence."""
    if hyp.decay == "plateau" and math.isnan(metrics[hyp.plateau_metric]):
        raise UserError(
            f"decay plateau goes by {hyp.plateau_metric}, which is no number (NaN) on val: it cannot get better, and "
            "the rate would be cut for no reason. Look at the boxes of val, or use another decay."
        )


def require_score(hyp: Hyp) -> None:
    """Refuse a plateau decay that waits for a score which no evaluation gives."""
    if hyp.decay == "plateau" and hyp.plateau_metric not in SCORES:
        raise UserError(f"plateau_metric: there is no '{hyp.plateau_metric}'. Use one of {', '.join(SCORES)}.")
