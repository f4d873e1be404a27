"""Batches: which samples in which order, by how many processes."""

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
from torch.utils.data import DataLoader

from data.index.index import Index
from data.loading.dataset import EvalDataset, TrainDataset
from data.loading.device.colour import recolour
from data.loading.device.transfer import Copies, locked_copy, page_locked
from data.loading.workers.batch import Batch, collate, pack
from data.loading.workers.processes import AHEAD, batches_of, check_shared_memory, end_workers, processes
from data.loading.workers.ring import Ring
from data.loading.workers.shares import EpochSampler
from data.loading.workers.slots import SlottedDataset
from data.pictures.cache import Pictures, open_pictures
from utils.config.schema import Hyp
from utils.device.ranks import Ranks

EVAL_AHEAD = 2  # batches that each worker process makes ahead in evaluation


class TrainLoader:
    """Batches of any epoch, from its start or from inside it; a batch is valid until the next one is asked for."""

    def __init__(self, dataset: TrainDataset, sampler: EpochSampler, workers: int, pin: bool):
        self.dataset, self.sampler, self.pin = dataset, sampler, pin
        self.started: tuple[tuple[int, int], Iterator[Batch]] | None = (
            None  # epoch and batch from which they are being made already
        )
        settings = processes(workers, pin)
        ring = dataset.hyp.loader == "ring" and hasattr(os, "memfd_create")
        self.loader = self.ring = None
        if not ring:
            if workers:
                check_shared_memory((AHEAD * workers + 1) * sampler.batch * 3 * dataset.imgsz**2)
            self.loader = DataLoader(dataset, batch_sampler=sampler, collate_fn=collate, **settings)
        elif workers:
            self.ring = Ring(dataset, sampler, workers, settings["multiprocessing_context"], pin)
        else:
            self.shape = (sampler.most, 3, dataset.imgsz, dataset.imgsz)
            self.room: list[np.ndarray] = []  # a buffer, or two where a copy may still be on its way from one
            self.copies = Copies()

    def __len__(self) -> int:
        return len(self.sampler)

    def start(self, epoch: int, start_batch: int = 0) -> None:
        """Start the workers and let them make the first batches: before CUDA is in use, they are forked."""
        if self.ring:
            self.ring.start(epoch, start_batch)
        elif self.loader and self.loader.num_workers:
            self.started = (epoch, start_batch), iter(self._entered(epoch, start_batch))

    def epoch(self, epoch: int, start_batch: int = 0) -> Iterator[Batch]:
        """Batches of an epoch, from batch `start_batch` on; `pictures` of each: see `EpochSampler.pictures`."""
        for b, batch in enumerate(self._batches(epoch, start_batch), start_batch):
            yield batch | {"pictures": self.sampler.pictures(b)}

    def _batches(self, epoch: int, start_batch: int) -> Iterator[Batch]:
        if not self.loader:
            return (self._by_ring if self.ring else self._by_itself)(epoch, start_batch)
        started, self.started = self.started, None
        if started and started[0] == (epoch, start_batch):
            return batches_of(started[1])
        return batches_of(iter(self._entered(epoch, start_batch)))

    def _entered(self, epoch: int, start_batch: int) -> DataLoader:
        """torch's loader, whose next iterator begins there."""
        self.sampler.epoch, self.sampler.start_batch = epoch, start_batch
        return self.loader

    def close(self) -> None:
        """End the worker processes."""
        if self.ring:
            self.ring.close()
        end_workers(getattr(self.loader, "_iterator", None))

    def _by_ring(self, epoch: int, start_batch: int) -> Iterator[Batch]:
        """Views of the ring's buffers."""
        for b in range(start_batch, len(self)):
            slot = self.ring.wait_for(epoch, b)
            n = len(positions := self.sampler.share(b))
            rows = [self.ring.rows.array[slot, k, :count] for k, count in enumerate(self.ring.counts.array[slot, :n])]
            batch = pack(self.ring.img.array[slot, :n], rows) | self._gains(epoch, positions)
            if self.pin and not self.ring.locked:
                batch["img"] = locked_copy(batch["img"])
            try:
                yield batch
            finally:  # also when the loop is left
                self.ring.release()

    def _gains(self, epoch: int, positions: list[int]) -> dict[str, np.ndarray]:
        """What a batch carries for `recolour`, if it is to be called."""
        if not self.dataset.coloured_later:
            return {}
        return {"gains": np.array([self.dataset.gains(epoch, position) for position in positions]).reshape(-1, 3)}

    def _by_itself(self, epoch: int, start_batch: int) -> Iterator[Batch]:
        """Made in this process; on CUDA into two buffers by turns, so that one is filled while the other is copied."""
        if not self.room:  # not before the first batch: page-locked memory opens the GPU
            self.room = [page_locked(self.shape).numpy() if self.pin else np.empty(self.shape, np.uint8)]
            self.room += [page_locked(self.shape).numpy()] if self.pin else []
        for b in range(start_batch, len(self)):
            positions, img = self.sampler.share(b), self.room[0]
            self.room.reverse()
            self.copies.wait(but=len(self.room) - 1)
            rows = [self.dataset.write(epoch, p, to) for p, to in zip(positions, img, strict=False)]
            try:
                yield pack(img[: len(positions)], rows) | self._gains(epoch, positions)
            finally:  # also when the loop is left
                if self.pin:
                    self.copies.begun()


class EvalLoader:
    """Batches of a split, or a rank's shares of them, the same at every iteration.

    A batch is valid until the next one is asked for. How a picture is padded depends on the whole batch.
    """

    def __init__(self, dataset: EvalDataset, sampler: EpochSampler, workers: int, pin: bool):
        self.dataset, self.pin = dataset, pin
        shares = [sampler.share(b) for b in range(len(sampler)) if sampler.pictures(b)[0]]
        workers = min(workers, len(shares))
        self.started: Iterator[Any] | None = None  # a pass whose batches are being made already
        settings = processes(workers, pin=False) | ({"prefetch_factor": EVAL_AHEAD} if workers else {})
        count = EVAL_AHEAD * workers + 1 if workers else 0
        self.slotted = SlottedDataset(dataset, sampler.batch, count, sampler.most)
        self.loader = DataLoader(self.slotted, batch_sampler=shares, collate_fn=_as_it_is, **settings)

    def __len__(self) -> int:
        return len(self.loader)

    def close(self) -> None:
        """End the worker processes."""
        end_workers(self.loader._iterator)

    def start(self) -> None:
        """Start the workers and let them make the first batches: before CUDA is in use, they are forked."""
        if self.loader.num_workers:
            self.started = iter(self.loader)

    def __iter__(self) -> Iterator[Batch]:
        started, self.started = self.started, None
        return (self.slotted.open(sent, self.pin) for sent in batches_of(started or iter(self.loader)))


def _as_it_is(batch: Batch) -> Batch:
    return batch


def first_batch(dataset: TrainDataset | EvalDataset, n: int) -> Batch:
    """The first `n` samples, at most all, made in the process itself, in their colours; of epoch 0 if there are any."""
    keys = range(min(n, len(dataset)))
    batch = collate([dataset[(0, k) if isinstance(dataset, TrainDataset) else k] for k in keys])
    if "gains" in batch:
        batch["img"] = recolour(batch["img"], batch["gains"], dataset.hyp.hsv_mode)
    return batch


def build_train_loader(
    index: Index,
    hyp: Hyp,
    *,
    batch: int,
    workers: int,
    rank: int = 0,
    world_size: int = 1,
    pin: bool = False,
) -> TrainLoader:
    """Loader of augmented batches; `batch` counts the pictures of all ranks."""
    dataset = TrainDataset(index, hyp, hyp.imgsz)
    return TrainLoader(dataset, EpochSampler(len(dataset), batch, rank, world_size), workers, pin)


def build_eval_loader(
    index: Index,
    *,
    imgsz: int,
    stride: int,
    batch: int,
    workers: int,
    rect: bool = True,
    pin: bool = False,
    pictures: Pictures | None = None,
    white: float | None = None,
    rank: int = 0,
    world_size: int = 1,
) -> EvalLoader:
    """Loader of letterboxed batches in a fixed order; pictures None: decoded for every pass, by `white`.

    `batch` counts the pictures of all ranks, of which each gets its share.
    """
    dataset = EvalDataset(index, imgsz, stride, batch, rect, pictures=pictures, white=white)
    return EvalLoader(dataset, EpochSampler(index.n, batch, rank, world_size), workers, pin)


def open_val_loader(index: Index, hyp: Hyp, stride: int, workers: int, ranks: Ranks, beside: list[Any]) -> EvalLoader:
    """A rank's evaluation loader in a run; its decoded pictures share the cache's room with those of `beside`."""
    kept = {"cache_gb": hyp.cache_gb, "strict": hyp.strict, "beside": beside}
    pictures = open_pictures(index, hyp.imgsz, hyp.cache, reduce=False, white=hyp.white_level, **kept)
    sizes = {"imgsz": hyp.imgsz, "stride": stride, "batch": hyp.batch}
    share = {"rank": ranks.rank, "world_size": ranks.world_size}
    pin = ranks.device.type == "cuda"
    return build_eval_loader(index, **sizes, **share, workers=workers, pin=pin, pictures=pictures)
