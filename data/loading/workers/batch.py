"""Samples -> a batch of them."""

import numpy as np
import torch

from data.loading.dataset import Sample
from data.loading.workers.slots import LISTED

Batch = dict[str, object]


def collate(samples: list[Sample]) -> Batch:
    """img (b, 3, h, w) uint8, cls (n,), bboxes (n, 4), batch_idx (n,) float32, sorted; evaluation adds lists.

    gains (b, 3), where colours are changed later.
    """
    batch = {key: [s[key] for s in samples] for key in LISTED if key in samples[0]}
    batch |= {"gains": np.stack([s["gains"] for s in samples])} if "gains" in samples[0] else {}
    counts = torch.tensor([len(s["cls"]) for s in samples])
    return batch | {
        "img": torch.from_numpy(np.stack([s["img"].numpy() for s in samples])),  # torch.stack wakes all threads: slower
        "cls": torch.cat([s["cls"] for s in samples]),
        "bboxes": torch.cat([s["bboxes"] for s in samples]),
        "batch_idx": torch.arange(len(samples), dtype=torch.float32).repeat_interleave(counts),
    }


def pack(img: np.ndarray, rows: list[np.ndarray]) -> Batch:
    """Batch of img (b, 3, h, w) uint8, not copied, and the boxes of each sample (n, 5): class, xywhn."""
    boxes = torch.from_numpy(np.concatenate(rows))
    counts = torch.tensor([len(r) for r in rows])
    place = torch.arange(len(rows), dtype=torch.float32).repeat_interleave(counts)
    return {"img": torch.from_numpy(img), "cls": boxes[:, 0], "bboxes": boxes[:, 1:], "batch_idx": place}
