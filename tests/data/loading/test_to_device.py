"""Batches on their way to a GPU that is not there: a runtime whose copies are made as late as its events allow."""

import gc
import os
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch

from data.definition.dataset_yaml import load_dataset_yaml
from data.index.index import Index, build_index
from data.loading.device import transfer
from data.loading.loader import TrainLoader, build_eval_loader, build_train_loader
from utils.config.schema import Hyp
from utils.device.ranks import Ranks, worker_count
from utils.device.streams import Batch, sent_ahead

HYP = Hyp(imgsz=64, epochs=3)


class LateGPU:
    """What the loaders ask of CUDA: registered memory, and copies that are made when their event is waited for."""

    def __init__(self, refuses: bool):
        self.refuses, self.registered, self.asked = refuses, set(), []
        self.main = self.current = LateStream(self)
        self.left: list[list[torch.Tensor]] = []  # of each copy, what is not copied yet

    @property
    def queue(self) -> list[Callable[[], object]]:
        """Copies that the current stream has not made yet."""
        return self.current.queue

    def cudaHostRegister(self, address: int, size: int, flags: int) -> int:  # noqa: N802
        self.asked.append(address)
        if self.refuses:
            return 801
        if any(address < end and start < address + size for start, end in self.registered):
            return 712  # registered already
        self.registered.add((address, address + size))
        return 0

    def cudaHostUnregister(self, address: int) -> int:  # noqa: N802
        found = {place for place in self.registered if place[0] == address}
        self.registered -= found
        return 0 if found else 713

    def check_error(self, code: int) -> None:
        if code:
            raise RuntimeError(f"CUDA error {code}")

    def event(self) -> SimpleNamespace:
        """As torch.cuda.Event."""
        behind: list[Callable[[], object]] = []

        def synchronize() -> None:
            for copy in behind:
                copy()

        return SimpleNamespace(record=lambda: behind.extend(self.queue), synchronize=synchronize, behind=behind)

    def stream(self, device: torch.device) -> "LateStream":
        """As torch.cuda.Stream."""
        return LateStream(self)

    @contextmanager
    def inside(self, stream: "LateStream") -> Iterator[None]:
        """As torch.cuda.stream."""
        before, self.current = self.current, stream
        yield
        self.current = before

    def copy(self, img: torch.Tensor) -> torch.Tensor:
        """A copy that is made later."""
        to, left = torch.zeros_like(img), [img]
        self.left.append(left)
        self.queue.append(lambda: [to.copy_(img) for img in left] and left.clear())
        to.record_stream = lambda stream: stream.uses.append(to)
        return to


class LateStream:
    """As torch.cuda.Stream: what it is given waits until a host waits for it."""

    def __init__(self, gpu: LateGPU):
        self.gpu, self.queue, self.uses = gpu, [], []

    def record_event(self) -> SimpleNamespace:
        event = self.gpu.event()
        event.behind.extend(self.queue)
        return event

    def wait_event(self, event: SimpleNamespace) -> None:
        self.queue.extend(event.behind)

    def wait_stream(self, stream: "LateStream") -> None:
        self.wait_event(stream.record_event())


@pytest.fixture(params=[False, True], ids=["registers", "refuses"])
def gpu(request, monkeypatch) -> LateGPU:
    gpu = LateGPU(request.param)
    monkeypatch.setattr(torch.cuda, "cudart", lambda: gpu)
    monkeypatch.setattr(torch.cuda, "check_error", gpu.check_error)
    monkeypatch.setattr(torch.cuda, "Event", gpu.event)
    monkeypatch.setattr(torch.cuda, "Stream", gpu.stream)
    monkeypatch.setattr(torch.cuda, "stream", gpu.inside)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: gpu.current)
    monkeypatch.setattr(transfer, "_said", [])
    return gpu


@pytest.fixture(scope="module")
def index(toy) -> Index:
    return build_index(load_dataset_yaml(toy), "train")


@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize("workers", [0, 2])
def test_no_buffer_is_written_over_before_its_copy_has_been_made(gpu, index, workers, ahead, caplog):
    """Also when the loop is left: the copy of its last batch may still be on its way when the next epoch begins.

    ahead: each batch is sent in a stream of its own before the loop has got the one in front of it.
    """
    caplog.set_level("INFO")
    oracle = build_train_loader(index, HYP, batch=4, workers=0)
    loader = build_train_loader(index, HYP, batch=4, workers=workers, pin=True)
    arrived, wanted = [], []
    for epoch, count in ((0, 2), (1, 5), (1, 3)):
        wanted += [batch["img"].clone() for _, batch in zip(range(count), oracle.epoch(epoch), strict=False)]
        for k, there in enumerate(sent(gpu, loader.epoch(epoch), ahead)):
            arrived.append(there)
            if k + 1 == count:
                break
    loader.close()
    del loader
    gc.collect()
    assert gpu.refuses or not workers or not any(gpu.left), "memory was let go with a copy on its way"
    for copy in gpu.queue:
        copy()
    assert not ahead or len(gpu.main.uses) == 10
    assert len(arrived) == 10 and all(torch.equal(a, b) for a, b in zip(arrived, wanted, strict=True))
    assert sum("locks no memory" in line for line in caplog.messages) == (gpu.refuses or not workers)


def sent(gpu: LateGPU, batches: Iterator[Batch], ahead: bool) -> Iterator[torch.Tensor]:
    """The pictures of batches on the GPU."""
    if ahead:
        yield from (img for _, img in sent_ahead(batches, torch.device("cuda"), lambda batch: gpu.copy(batch["img"])))
    else:
        yield from (gpu.copy(batch["img"]) for batch in batches)


def test_memory_is_registered_as_long_as_its_ring_lives(gpu, index):
    for _ in range(2):
        loader = build_train_loader(index, HYP, batch=4, workers=1, pin=True)
        assert len(list(loader.epoch(0))) == 5
        assert len(gpu.registered) == (not gpu.refuses)
        loader.close()
        del loader
        gc.collect()
        assert not gpu.registered


@pytest.mark.parametrize("kind", ["ring", "torch"])
def test_workers_are_at_work_before_the_gpu_is_opened(gpu, index, kind):
    """Started at an epoch that a resumed run begins with; evaluation's, too, whose first pass they are ahead of."""
    hyp = HYP.model_copy(update={"loader": kind})
    train = TrainLoader(build_train_loader(index, hyp, batch=4, workers=0).dataset, *sampler_of(index, hyp))
    train.start(1)
    val = build_eval_loader(index, imgsz=64, stride=32, batch=4, workers=2, pin=True)
    val.start()
    assert not gpu.asked and not torch.cuda.is_initialized()
    running = train.ring.workers if kind == "ring" else train.started[1]._workers
    assert all(worker.is_alive() for worker in [*running, *val.started._workers])
    plain = build_train_loader(index, HYP, batch=4, workers=0)
    for epoch in (1, 2, 0):
        for batch, other in zip(train.epoch(epoch), plain.epoch(epoch), strict=True):
            assert torch.equal(batch["img"], other["img"])
    alone = build_eval_loader(index, imgsz=64, stride=32, batch=4, workers=0)
    for _ in range(2):
        for batch, other in zip(val, alone, strict=True):
            assert torch.equal(batch["img"], other["img"])
    train.close()


def sampler_of(index: Index, hyp: Hyp) -> tuple:
    """The rest of a loader's arguments: two workers; pinned where no GPU is needed to make the batches."""
    return build_train_loader(index, hyp, batch=4, workers=0).sampler, 2, hyp.loader == "ring"


def test_a_process_that_is_not_forked_gets_the_place_of_an_index_and_no_path(index, monkeypatch, tmp_path):
    monkeypatch.setenv("PREHEAT_CACHE", str(tmp_path))
    assert index.file
    for cache in ("off", "disk"):
        dataset = build_train_loader(index, HYP.model_copy(update={"cache": cache}), batch=4, workers=0).dataset
        dataset[(0, 0)]
        sent = pickle.dumps(dataset)
        assert b"images/train" not in sent and index.shapes.tobytes() not in sent
        assert torch.equal(pickle.loads(sent)[(1, 3)]["img"], dataset[(1, 3)]["img"])


@pytest.mark.parametrize("cores", [1, 2, 6])
def test_workers_leave_a_core_to_the_rank_that_they_work_for(monkeypatch, cores):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)), raising=False)
    for ranks in (1, 2, 3):
        rank = Ranks(0, ranks, torch.device("cpu"))
        share = max(cores // ranks, 1)
        assert worker_count(None, rank) == max(share - 1, 1)
        assert [worker_count(n, rank) for n in (0, 1, 99)] == [0, 1, share]
