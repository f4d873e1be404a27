"""Output of any head in one form: a score per class for every box, so that suppression can judge all of them."""

import torch
from torch import Tensor, nn

from models.detector import AsItIs


def as_candidates(out: Tensor | tuple[Tensor, ...], end2end: bool, nc: int) -> Tensor:
    """Output of a detector in evaluation mode -> (b, 4 + nc, a) float32 xywh pixels and scores.

    A head without suppression gives (b, k, 6) xyxy, score, class: its other classes get the score 0.
    """
    pred = (out[0] if isinstance(out, tuple | list) else out).float()
    if not end2end:
        return pred
    corners, score, cls = pred[..., :4], pred[..., 4], pred[..., 5].nan_to_num().long().clamp(0, nc - 1)
    centre, size = (corners[..., :2] + corners[..., 2:]) / 2, corners[..., 2:] - corners[..., :2]
    scores = pred.new_zeros(*score.shape, nc).scatter(2, cls[..., None], score[..., None])  # (b, k, nc)
    return torch.cat((centre, size, scores), 2).transpose(1, 2)


class Combined(AsItIs):
    """A detector made of others, with the names, size and thresholds of the first."""

    def __init__(self, parts: list[nn.Module]):
        super().__init__()
        first = parts[0]
        self.parts = nn.ModuleList(parts)
        self.names, self.stride, self.end2end = first.names, first.stride, False
        self.args, self.thresholds = getattr(first, "args", {}), getattr(first, "thresholds", None)
        self.fixed = next((part.fixed for part in parts if getattr(part, "fixed", None)), None)

    def members(self) -> list[nn.Module]:
        """The detectors that it is made of."""
        return list(self.parts)

    @property
    def nc(self) -> int:
        """Number of classes."""
        return len(self.names)
