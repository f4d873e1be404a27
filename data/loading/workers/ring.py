"""Batches through shared buffers allocated once: each worker process writes its samples straight into their places.

A queue of pickled batches costs more than making them. Here a worker claims the next sample of the stream under a lock
and writes it into the batch that it belongs to; the last one of a batch says so. The stream runs across epochs, so the
first batches of an epoch are ready when the one before has ended.
"""

import os
import time
import traceback
import weakref
from typing import Any

import cv2
import numpy as np

from data.loading.blocks import Blocks
from data.loading.dataset import TrainDataset
from data.loading.device.transfer import Copies, lock_pages
from data.pictures.shared import SharedArray
from utils.device.parallel import leave_signals_to_parent
from utils.errors import UserError

LOOK = 5.0  # seconds after which a waiting worker looks whether its parent is alive
POLL = 0.1  # seconds after which the waiting loop looks whether its workers are
CONTROL = np.dtype([(name, np.int64) for name in (
    "epoch", "start",  # where the stream begins: the batch numbers below count from there
    "limit",  # batches that may be begun
    "batch", "place",  # next sample to be claimed
    "claimed", "finished",  # samples
    "failed",
)])  # fmt: skip


def _end(workers: list[Any], parent: int) -> None:
    """Stop the workers of a ring; a worker that inherited them leaves them alone."""
    alive = [worker for worker in workers if os.getpid() == parent and worker.pid and worker.is_alive()]
    for worker in alive:
        worker.kill()
    for worker in alive:
        worker.join(LOOK)


def died(code: int) -> str:
    """Message about a worker process that has ended with this exit code; below 0 it is the signal's number."""
    why = {-9: ": killed, as when memory runs out", -7: ": bus error, as when a disk or shared memory is full"}
    return (
        f"a data worker died (exit code {code}{why.get(code, '')}). "
        "Use fewer --workers or a smaller --batch, or make room in memory or on the disk."
    )


class Ring:
    """Worker processes and the buffers of `slots` batches; each sample is the one that dataset.write makes."""

    def __init__(self, dataset: TrainDataset, sampler: Any, workers: int, context: Any, pin: bool = False):
        share = sampler.most
        self.dataset, self.sampler, self.parent = dataset, sampler, os.getpid()
        self.slots = max(4, -(-2 * workers // share) + 2)
        self.img = SharedArray((self.slots, share, 3, dataset.imgsz, dataset.imgsz), np.uint8)
        self.rows = SharedArray((self.slots, share, dataset.most_boxes, 5), np.float32)  # class, xywhn
        self.counts = SharedArray((self.slots, share), np.int64)  # rows of each sample
        self.done = SharedArray((self.slots,), np.int64)  # samples written
        self.control = SharedArray((), CONTROL)
        self.blocks = Blocks(len(dataset), dataset.imgsz, context) if dataset.decodes else None
        self.lock, self.room, self.errors = context.Lock(), context.Semaphore(0), context.SimpleQueue()
        self.ready = [context.Semaphore(0) for _ in range(self.slots)]
        self.given = self.consumed = 0  # batches of the stream that the loop has got, and has finished with
        self.pin, self.copies, self.locked = pin, Copies() if pin else None, False
        self.workers = [context.Process(target=self._work, daemon=True) for _ in range(workers)]
        weakref.finalize(self, _end, self.workers, self.parent)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"workers": [], "copies": None}  # for a spawned worker

    def start(self, epoch: int, b: int) -> None:
        """Let the workers make the batches from batch b of an epoch on, before anybody waits for one."""
        self._restart(epoch, b)

    def lock_pages(self) -> None:
        """Open the way to the GPU, once the workers run: they are not to inherit what CUDA has begun."""
        self.pin, self.locked = False, lock_pages(self.img.array, self, self.copies)

    def wait_for(self, epoch: int, b: int) -> int:
        """The slot of batch b of an epoch, all of it written; the stream restarts unless this is the next in line."""
        if not self.workers[0].pid or self._at(self.given)[:2] != (epoch, b):
            self._restart(epoch, b)
        if self.pin:
            self.lock_pages()
        slot = self.given % self.slots
        while not self.ready[slot].acquire(timeout=POLL):
            self._look_after_workers()
        if self.control.array["failed"]:
            self._look_after_workers()
        self.given += 1
        return slot

    def release(self) -> None:
        """The batch that was waited for may be written over; on CUDA one batch later, when its copy has been made."""
        if self.copies is not None:
            self.copies.begun()
            if len(self.copies.events) == 1:
                return
            self.copies.wait(but=1)
        self.done.array[self.consumed % self.slots] = 0
        self.consumed += 1
        self._permit(self.consumed + self.slots - 1, self.consumed + self.slots)

    def close(self) -> None:
        """End the workers."""
        _end(self.workers, self.parent)

    def _at(self, k: int) -> tuple[int, int, list[int]]:
        """Epoch, batch and positions of the k-th batch of the stream; no positions past the last epoch."""
        control, nb = self.control.array, len(self.sampler)
        first = int(control["epoch"])
        epoch, b = first + (int(control["start"]) + k) // nb, (int(control["start"]) + k) % nb
        last = max(self.dataset.hyp.epochs, first + 1)
        return epoch, b, self.sampler.share(b) if epoch < last else []

    def _permit(self, start: int, stop: int) -> None:
        """Let batches start..stop - 1 of the stream be made."""
        sizes = [len(self._at(k)[2]) for k in range(start, stop)]
        self.control.array["limit"] = start + sum(size > 0 for size in sizes)
        for _ in range(sum(sizes)):
            self.room.release()

    def _restart(self, epoch: int, b: int) -> None:
        """Begin the stream at another place: let no sample begin, wait for those under way, count from zero."""
        control = self.control.array
        control["limit"] = 0
        if self.copies is not None:
            self.copies.wait()
        while not self._idle():
            self._look_after_workers()
            time.sleep(1e-3)
        try:
            for ready in self.ready:
                while ready.acquire(block=False):
                    pass
            self.done.array[:] = 0
            control[...] = 0
            control["epoch"], control["start"] = epoch, b
            self.given = self.consumed = 0
        finally:
            self.lock.release()
        for worker in self.workers:
            if not worker.pid:
                worker.start()
        self._permit(0, self.slots)

    def _idle(self) -> bool:
        """Take the lock if no sample is under way."""
        if not self.lock.acquire(timeout=POLL):
            return False
        if self.control.array["claimed"] == self.control.array["finished"]:
            return True
        self.lock.release()
        return False

    def _look_after_workers(self) -> None:
        """Raise what a worker has reported, or that one has died."""
        dead = [worker.exitcode for worker in self.workers if worker.pid and not worker.is_alive()]
        if not dead and not self.control.array["failed"]:
            return
        told = None if self.errors.empty() else self.errors.get()
        self.close()
        if told is None:
            raise UserError(died(dead[0]))
        by_user, text = told
        raise UserError(text) if by_user else RuntimeError(f"in a data worker:\n{text}")

    def _work(self) -> None:
        """A worker: claim, make, write, until the parent is gone."""
        cv2.setNumThreads(1)
        leave_signals_to_parent()
        self.dataset.blocks = self.blocks
        try:
            while os.getppid() == self.parent:
                claimed = self._claim()
                if claimed:
                    self._make(*claimed)
        except UserError as e:
            self._fail(True, str(e))
        except Exception:
            self._fail(False, traceback.format_exc())

    def _claim(self) -> tuple[int, int, int, int, int] | None:
        """Next sample: its slot and place there, samples of the batch, epoch, position; None: none for now."""
        if not self.room.acquire(timeout=LOOK):
            return None
        control = self.control.array
        with self.lock:
            k, place = int(control["batch"]), int(control["place"])
            if k >= control["limit"]:
                return None  # the permit was of an earlier stream
            epoch, _, positions = self._at(k)
            if self.blocks is None or self.blocks.enter(epoch, positions[place]):
                control["claimed"] += 1
                over = place + 1 == len(positions)
                control["batch"], control["place"] = (k + 1, 0) if over else (k, place + 1)
                return k % self.slots, place, len(positions), epoch, positions[place]
        self.room.release()
        time.sleep(3e-4)  # samples under way still read the block whose place this one's needs
        return None

    def _make(self, slot: int, place: int, size: int, epoch: int, position: int) -> None:
        rows = self.dataset.write(epoch, position, self.img.array[slot, place])
        self.rows.array[slot, place, : len(rows)] = rows
        self.counts.array[slot, place] = len(rows)
        with self.lock:
            self.control.array["finished"] += 1
            self.done.array[slot] += 1
            if self.blocks:
                self.blocks.leave(epoch, position)
            if self.done.array[slot] == size:
                self.ready[slot].release()

    def _fail(self, by_user: bool, text: str) -> None:
        """This worker cannot go on: wake the loop, whichever batch it waits for."""
        self.errors.put((by_user, text))
        self.control.array["failed"] = 1
        for ready in self.ready:
            ready.release()
