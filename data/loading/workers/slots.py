"""Evaluation's batches in shared slots: a worker process sends a number and the boxes, the pixels stay where they are.

torch would pass them through /dev/shm, which containers keep at 64 MB, and waits for ever where that is full.
"""

import os
from typing import Any

import numpy as np
import torch

from data.loading.dataset import EvalDataset
from data.loading.device.transfer import locked_copy
from data.pictures.shared import SharedArray

Batch = dict[str, Any]
LISTED = ("index", "letterbox", "ori_shape")  # kept as lists


class SlottedDataset(torch.utils.data.Dataset):
    """Whole batches of an evaluation dataset; batch k is written into slot k modulo `count`.

    A batch is valid until the next one is asked for, if `count` is above the number of batches that are made ahead.
    Without slots (count 0, or no memfd) the pixels travel with the batch.
    """

    def __init__(self, dataset: EvalDataset, batch: int, count: int, most: int):
        """most: samples that are asked for at once, part of a batch where ranks share it."""
        self.dataset, self.batch, self.count = dataset, batch, count
        pixels = int(dataset.shapes.prod(1).max()) * 3
        slots = count and hasattr(os, "memfd_create")
        self.slots = SharedArray((count, most * pixels), np.uint8) if slots else None

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitems__(self, places: list[int]) -> Batch:
        """The samples at places that follow each other inside one batch; `open` makes tensors of it."""
        number = places[0] // self.batch
        shape = (len(places), 3, *self.dataset.shapes[number].tolist())
        img = np.empty(shape, np.uint8) if self.slots is None else self._slot(number, shape)
        samples = []
        for place, to in zip(places, img, strict=True):
            sample = self.dataset[place]
            to[...] = sample.pop("img").numpy()
            samples.append(sample)
        counts = [len(s["cls"]) for s in samples]
        return {key: [s[key] for s in samples] for key in LISTED} | {
            "img": img if self.slots is None else (number, shape),
            "cls": np.concatenate([s["cls"].numpy() for s in samples]),
            "bboxes": np.concatenate([s["bboxes"].numpy() for s in samples]),
            "batch_idx": np.repeat(np.arange(len(samples), dtype=np.float32), counts),
        }

    def _slot(self, number: int, shape: tuple[int, ...]) -> np.ndarray:
        """The place of batch `number`, as an array of that shape."""
        return self.slots.array[number % self.count, : int(np.prod(shape))].reshape(shape)

    def open(self, sent: Batch, pin: bool = False) -> Batch:
        """What __getitems__ sent, as tensors; pin: with the pixels copied into page-locked memory."""
        img = sent["img"] if self.slots is None else self._slot(*sent["img"])
        tensors = {key: torch.from_numpy(sent[key]) for key in ("cls", "bboxes", "batch_idx")}
        img = torch.from_numpy(img)
        return sent | tensors | {"img": locked_copy(img) if pin else img}
