"""Do the anchors suit the boxes of a training set, and which would suit them better."""

import numpy as np
import torch
from scipy.cluster.vq import kmeans
from scipy.optimize import differential_evolution
from torch import nn

from models.anchor.network import AnchorModel
from utils.config.schema import Hyp
from utils.errors import UserError

SMALLEST = 2.0  # pixels: boxes of which neither side is as long are not looked at
MOST = 5000  # boxes that the search looks at
POPULATION, GENERATIONS = 36, 100  # of the evolution
SPREAD = 0.1  # of its first generation around k-means, in logarithms
ENOUGH = 0.98  # best possible recall below which others are worth a try


def settle_anchors(model: nn.Module, wh: np.ndarray, hyp: Hyp) -> list[str]:
    """Say how the anchors suit boxes wh (n, 2) in pixels; with `autoanchor` replace them where others do better."""
    if not isinstance(model, AnchorModel):
        if hyp.autoanchor:
            raise UserError(
                "autoanchor is for anchor-based networks (yolov5n.pt), and this one has no anchors. Remove it."
            )
        return []
    old = model.model[-1].pixels.double().numpy()  # (levels, anchors, 2)
    if not len(wh):
        return []
    recall, each = fit_of(wh, old, hyp.anchor_t)
    line = f"anchors   best possible recall {recall:.4f}, {each:.2f} anchors a box (anchor_t {hyp.anchor_t:g})"
    if not hyp.autoanchor:
        return [line + ("; others may suit the boxes better: --autoanchor" if recall < ENOUGH else "")]
    new = better_anchors(wh, old, hyp.anchor_t, hyp.seed)
    if fitness(wh, new, hyp.anchor_t) <= fitness(wh, old, hyp.anchor_t) or fit_of(wh, new, hyp.anchor_t)[0] < recall:
        return [f"{line}; none better were found, so they stay"]
    model.set_anchors(torch.from_numpy(new).float())
    recall, each = fit_of(wh, new, hyp.anchor_t)
    return [line, f"replaced  best possible recall {recall:.4f}, {each:.2f} anchors a box: {model.yaml['anchors']}"]


def likeness(wh: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """The smaller of the two ratios of sides, shorter by longer, (n, k) of boxes (n, 2) and anchors (..., 2)."""
    ratio = wh[:, None] / anchors.reshape(-1, 2)[None]  # (n, k, 2)
    return np.minimum(ratio, 1 / ratio.clip(1e-9)).min(2)


def fit_of(wh: np.ndarray, anchors: np.ndarray, anchor_t: float) -> tuple[float, float]:
    """Best possible recall, the part of the boxes that some anchor is to find; and how many anchors do on average."""
    near = likeness(wh, anchors) > 1 / anchor_t  # (n, k)
    return float(near.any(1).mean()), float(near.sum(1).mean())


def fitness(wh: np.ndarray, anchors: np.ndarray, anchor_t: float) -> float:
    """Mean likeness of the boxes to the anchor that suits them best, 0 where none is to find them."""
    best = likeness(wh, anchors).max(1)
    return float((best * (best > 1 / anchor_t)).mean())


def better_anchors(wh: np.ndarray, anchors: np.ndarray, anchor_t: float, seed: int) -> np.ndarray:
    """Anchors of the shape of `anchors` (levels, anchors, 2), pixels, by rising area: k-means, then evolution."""
    rng = np.random.default_rng(seed)
    wh = wh[(wh >= SMALLEST).any(1)].astype(np.float64).clip(1e-3)
    wh = wh[rng.permutation(len(wh))[:MOST]]
    count, starts = anchors.size // 2, [anchors.reshape(-1, 2)]
    if len(np.unique(wh, axis=0)) >= count:
        spread = wh.std(0).clip(1e-9)
        centres = kmeans(wh / spread, count, iter=30, seed=rng)[0] * spread
        starts += [centres] if len(centres) == count else []
    start = np.log(max(starts, key=lambda some: fitness(wh, some, anchor_t)).ravel())  # (2 k,)
    crowd = start + SPREAD * rng.standard_normal((POPULATION, len(start)))
    crowd[0] = start
    found = differential_evolution(
        lambda x: -fitness(wh, np.exp(x), anchor_t),
        [(low - 1, high + 1) for low, high in zip(crowd.min(0), crowd.max(0), strict=True)],
        init=crowd, maxiter=GENERATIONS, polish=False, seed=rng,
    ) if len(wh) else None  # fmt: skip
    new = np.exp(start if found is None else found.x).reshape(-1, 2)
    return new[new.prod(1).argsort()].reshape(anchors.shape)
