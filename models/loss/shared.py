"""One normaliser of the loss for the pictures of all ranks."""

from typing import Any

from torch import Tensor

from utils.device.together import add_up


class Shared:
    """In place of the `loss` of a criterion's branch, where the pictures of a batch are shared out over ranks.

    The criterion divides its sums by what was aimed at in this rank's pictures, max(t, 1), and multiplies them by
    their number. Here both are those of the whole batch, so that the gradients of all ranks add up to those that one
    process has of all the pictures. One number is added up over the ranks.
    """

    def __init__(self, branch: Any) -> None:
        self.own, self.assigner, self.aimed = branch.loss, branch.assigner, None
        branch.loss, branch.assigner = self, self._assign

    def _assign(self, *args: Any, **kwargs: Any) -> Any:
        """The targets as the criterion's own assigner finds them, (.., .., scores (b, a, nc), .., ..)."""
        found = self.assigner(*args, **kwargs)
        self.aimed = found[2].sum()
        return found

    def __call__(self, preds: dict[str, Tensor], batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """This rank's summands of the loss (3,) times the batch size, and of the means, by name."""
        parts, items = self.own(preds, batch)
        mine, of_all = batch["pictures"]
        counts = float(mine > 0)  # a rank without a picture has one that does not
        aimed = add_up(self.aimed * counts)
        share = self.aimed.clamp(min=1) / aimed.clamp(min=1) * counts
        return parts * (share * of_all / len(preds["boxes"])), {name: item * share for name, item in items.items()}
