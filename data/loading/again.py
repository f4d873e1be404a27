"""A batch of a run made once more, to be looked at: a sample is a function of (seed, epoch, position)."""

import copy
from typing import Any

from data.loading.dataset import Sample, TrainDataset
from data.loading.device.colour import recolour
from data.loading.loader import TrainLoader
from data.loading.workers.batch import collate


def batch_again(loader: TrainLoader, epoch: int, b: int) -> dict[str, Any]:
    """All pictures of batch b of an epoch, those of other ranks too, as `collate` packs them; and what they are.

    files: of each sample the pictures it is made of, its own first; names: of the classes; epoch, batch: from 0.
    """
    sampler = loader.sampler
    positions = range(b * sampler.batch, min((b + 1) * sampler.batch, sampler.n))
    samples, files = zip(*(watched(loader.dataset, epoch, position) for position in positions), strict=True)
    names = list(loader.dataset.names)
    batch = collate(list(samples))
    if "gains" in batch:
        batch["img"] = recolour(batch["img"], batch.pop("gains"), loader.dataset.hyp.hsv_mode)
    return batch | {"files": list(files), "names": names, "epoch": epoch, "batch": b}


def watched(dataset: TrainDataset, epoch: int, position: int) -> tuple[Sample, list[str]]:
    """A sample, and the files of the pictures that it is made of, decoded in this process."""
    files: list[str] = []
    twin = copy.copy(dataset)

    def pixels(epoch: int, position: int, i: int) -> Any:
        files.append(dataset.index.paths[i])
        return dataset.pictures[i]

    twin._pixels = pixels
    return twin[epoch, position], files
