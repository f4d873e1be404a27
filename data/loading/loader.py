"""Batches: which samples in which order, by how many processes."""

import multiprocessing
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader

from data.index.index import Index
from data.loading.dataset import EvalDataset, Sample, TrainDataset
from data.loading.device.colour import recolour
from data.loading.device.transfer import Copies, locked_copy, page_locked
from data.loading.ring import Ring, died
from data.loading.slots import LISTED, SlottedDataset
from data.pictures.cache import Pictures, open_pictures
from utils.config.schema import Hyp
from utils.device.ranks import Ranks
from utils.errors import UserError

Batch = dict[str, object]
AHEAD, EVAL_AHEAD = 4, 2  # batches that each worker process of torch makes ahead, in training and in evaluation
SHM = Path("/dev/shm")  # where torch passes batches between processes on Linux


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


class EpochSampler:
    """Keys (epoch, position) of this rank's share of every batch."""

    def __init__(self, n: int, batch: int, rank: int = 0, world_size: int = 1):
        if batch < world_size:
            raise UserError(
                f"batch {batch} leaves some of {world_size} processes without a picture. Use --batch {world_size} or "
                "more, or fewer processes."
            )
        self.n, self.batch, self.rank, self.world_size = n, batch, rank, world_size
        self.epoch, self.start_batch = 0, 0

    def __len__(self) -> int:
        return -(-self.n // self.batch)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch = self.epoch  # as it is now: batches are asked for ahead of time
        for b in range(self.start_batch, len(self)):
            yield [(epoch, position) for position in self.share(b)]

    @property
    def fewest(self) -> int:
        """Pictures in the smallest share of the smallest batch, which is the last one; the same for all ranks."""
        return max((self.n - (len(self) - 1) * self.batch) // self.world_size, 1)

    @property
    def most(self) -> int:
        """Pictures in the largest share of a whole batch."""
        return -(-self.batch // self.world_size)

    def share(self, b: int) -> list[int]:
        """Positions of this rank in batch b of any epoch; shares differ by one picture at most, the first are larger.

        A rank for which none is left gets the batch's first one, which does not count: see `pictures`.
        """
        first, (mine, of_all) = b * self.batch, self.pictures(b)
        before = self.rank * (of_all // self.world_size) + min(self.rank, of_all % self.world_size)
        return list(range(first + before, first + before + mine)) or [first]

    def pictures(self, b: int) -> tuple[int, int]:
        """How many pictures of batch b count: of this rank, and of all."""
        of_all = min(self.batch, self.n - b * self.batch)
        return of_all // self.world_size + (self.rank < of_all % self.world_size), of_all


class TrainLoader:
    """Batches of any epoch, from its start or from inside it; a batch is valid until the next one is asked for."""

    def __init__(self, dataset: TrainDataset, sampler: EpochSampler, workers: int, pin: bool):
        self.dataset, self.sampler, self.pin = dataset, sampler, pin
        self.started: tuple[tuple[int, int], Iterator[Batch]] | None = (
            None  # epoch and batch from which they are being made already
        )
        settings = _processes(workers, pin)
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
            return _batches(started[1])
        return _batches(iter(self._entered(epoch, start_batch)))

    def _entered(self, epoch: int, start_batch: int) -> DataLoader:
        """torch's loader, whose next iterator begins there."""
        self.sampler.epoch, self.sampler.start_batch = epoch, start_batch
        return self.loader

    def close(self) -> None:
        """End the worker processes."""
        if self.ring:
            self.ring.close()
        _end_workers(getattr(self.loader, "_iterator", None))

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


def check_shared_memory(needed: int) -> None:
    """UserError where /dev/shm has no room for the bytes of all batches on their way: torch would wait for ever."""
    free = shutil.disk_usage(SHM).free if SHM.is_dir() else needed
    if free < needed:
        raise UserError(
            f"--loader torch passes batches through {SHM}, where {free / 2**20:.0f} MB are free and up to "
            f"{needed / 2**20:.0f} MB are needed. Leave it out (--loader ring needs none), use fewer --workers or "
            "a smaller --batch, or give the container more (docker run --shm-size 8g)."
        )


def pack(img: np.ndarray, rows: list[np.ndarray]) -> Batch:
    """Batch of img (b, 3, h, w) uint8, not copied, and the boxes of each sample (n, 5): class, xywhn."""
    boxes = torch.from_numpy(np.concatenate(rows))
    counts = torch.tensor([len(r) for r in rows])
    place = torch.arange(len(rows), dtype=torch.float32).repeat_interleave(counts)
    return {"img": torch.from_numpy(img), "cls": boxes[:, 0], "bboxes": boxes[:, 1:], "batch_idx": place}


class EvalLoader:
    """Batches of a split, or a rank's shares of them, the same at every iteration.

    A batch is valid until the next one is asked for. How a picture is padded depends on the whole batch.
    """

    def __init__(self, dataset: EvalDataset, sampler: EpochSampler, workers: int, pin: bool):
        self.dataset, self.pin = dataset, pin
        shares = [sampler.share(b) for b in range(len(sampler)) if sampler.pictures(b)[0]]
        workers = min(workers, len(shares))
        self.started: Iterator[Any] | None = None  # a pass whose batches are being made already
        settings = _processes(workers, pin=False) | ({"prefetch_factor": EVAL_AHEAD} if workers else {})
        count = EVAL_AHEAD * workers + 1 if workers else 0
        self.slotted = SlottedDataset(dataset, sampler.batch, count, sampler.most)
        self.loader = DataLoader(self.slotted, batch_sampler=shares, collate_fn=_as_it_is, **settings)

    def __len__(self) -> int:
        return len(self.loader)

    def close(self) -> None:
        """End the worker processes."""
        _end_workers(self.loader._iterator)

    def start(self) -> None:
        """Start the workers and let them make the first batches: before CUDA is in use, they are forked."""
        if self.loader.num_workers:
            self.started = iter(self.loader)

    def __iter__(self) -> Iterator[Batch]:
        started, self.started = self.started, None
        return (self.slotted.open(sent, self.pin) for sent in _batches(started or iter(self.loader)))


def _as_it_is(batch: Batch) -> Batch:
    return batch


def _batches(iterator: Iterator[Batch]) -> Iterator[Batch]:
    """The batches; a UserError from a worker process loses the traceback that torch wrote into its text."""
    try:
        yield from iterator
    except UserError as e:
        _end_workers(iterator)
        raise UserError(str(e).rpartition("UserError: ")[2].strip()) from None
    except RuntimeError:
        codes = [w.exitcode for w in getattr(iterator, "_workers", ()) if w.exitcode]
        _end_workers(iterator)
        if not codes:
            raise
        raise UserError(died(codes[0])) from None


def _end_workers(iterator: Any) -> None:
    """End the worker processes of torch's iterator, if it has any.

    Left to the garbage collector, which an exception's traceback does, torch closes their queues before it tells them,
    and then waits 5 s for them.
    """
    if hasattr(iterator, "_shutdown_workers"):
        iterator._shutdown_workers()


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
    rank: int = 0,
    world_size: int = 1,
) -> EvalLoader:
    """Loader of letterboxed batches in a fixed order; pictures None: decoded for every pass.

    `batch` counts the pictures of all ranks, of which each gets its share.
    """
    dataset = EvalDataset(index, imgsz, stride, batch, rect, pictures=pictures)
    return EvalLoader(dataset, EpochSampler(index.n, batch, rank, world_size), workers, pin)


def _processes(workers: int, pin: bool) -> dict[str, object]:
    """Arguments of DataLoader for a number of worker processes; 0: in this process."""
    own = torch.Generator()  # else every epoch draws from torch's global one: samples do not use it, a model may
    if workers == 0:
        return {"num_workers": 0, "pin_memory": pin, "generator": own}
    cv2.setNumThreads(1)  # ends OpenCV's threads: a forked worker would wait for ever for those of its parent
    return {
        "num_workers": workers,
        "pin_memory": pin,
        "generator": own,
        "persistent_workers": True,
        "prefetch_factor": AHEAD,
        "worker_init_fn": _start_worker,
        "multiprocessing_context": multiprocessing.get_context(_start_method()),
    }


def _start_method() -> str:
    """fork shares the index and starts at once; a forked CUDA context is undefined, so then a fresh process.

    Whoever uses a GPU builds the loaders and calls their `start` before it opens the GPU: then all are forked.
    """
    return "fork" if sys.platform == "linux" and not torch.cuda.is_initialized() else "spawn"


def _start_worker(worker: int) -> None:
    """One thread a worker; Ctrl-C is the main process's to handle, and the worker follows it without a traceback."""
    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def open_val_loader(index: Index, hyp: Hyp, stride: int, workers: int, ranks: Ranks, beside: list[Any]) -> EvalLoader:
    """A rank's evaluation loader in a run; its decoded pictures share the cache's room with those of `beside`."""
    pictures = open_pictures(
        index, hyp.imgsz, hyp.cache, reduce=False, cache_gb=hyp.cache_gb, strict=hyp.strict, beside=beside
    )
    sizes = {"imgsz": hyp.imgsz, "stride": stride, "batch": hyp.batch}
    share = {"rank": ranks.rank, "world_size": ranks.world_size}
    pin = ranks.device.type == "cuda"
    return build_eval_loader(index, **sizes, **share, workers=workers, pin=pin, pictures=pictures)
