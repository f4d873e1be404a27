"""The same samples whatever the batch size, the workers, the ranks and the place where an epoch is entered."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from data.definition.dataset_yaml import load_dataset_yaml
from data.index.columns import Paths
from data.index.index import Index, build_index
from data.loading.dataset import TrainDataset
from data.loading.loader import build_eval_loader, build_train_loader
from data.loading.workers.processes import check_shared_memory
from data.loading.workers.shares import EpochSampler
from data.pictures.decode import Decoder
from data.pictures.shared import SharedArray
from tests.helpers import forked
from utils.config.schema import Hyp
from utils.env import REPO
from utils.errors import UserError

HYP = Hyp(imgsz=64, epochs=20)


@pytest.fixture(scope="module")
def index(testdata) -> Index:
    whole = build_index(load_dataset_yaml(testdata / "bccd/bccd.yaml"), "val")
    return whole.take(np.arange(30))


def samples(batches) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """(img, boxes with class) of every picture of the batches, in order; copies, for the loader writes over them."""
    result = []
    for batch in batches:
        rows = torch.cat([batch["cls"][:, None], batch["bboxes"]], 1)
        result += [(img.clone(), rows[batch["batch_idx"] == k]) for k, img in enumerate(batch["img"])]
    return result


def same(a: list, b: list) -> bool:
    return len(a) == len(b) and all(
        torch.equal(x, y) for p, q in zip(a, b, strict=True) for x, y in zip(p, q, strict=True)
    )


def test_batches_have_the_promised_form(index):
    batches = build_train_loader(index, HYP, batch=8, workers=0).epoch(0)
    batches = [{key: value.clone() for key, value in batch.items() if key != "pictures"} for batch in batches]
    assert [len(b["img"]) for b in batches] == [8, 8, 8, 6]
    for b in batches:
        n = len(b["cls"])
        assert b["img"].shape[1:] == (3, 64, 64) and b["img"].dtype == torch.uint8
        assert b["cls"].shape == b["batch_idx"].shape == (n,) and b["bboxes"].shape == (n, 4)
        assert b["cls"].dtype == b["batch_idx"].dtype == b["bboxes"].dtype == torch.float32
        assert (b["batch_idx"].diff() >= 0).all()


def test_batch_size_and_workers_change_no_sample(index):
    one = build_train_loader(index, HYP, batch=7, workers=0)
    many = build_train_loader(index, HYP, batch=4, workers=2)
    for epoch in (0, 3, 15, 3):  # back to an earlier one as well; 15: mosaic is closed
        assert same(samples(one.epoch(epoch)), samples(many.epoch(epoch)))


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("cache", ["off", "ram"])
def test_the_ring_gives_the_bits_of_torch(index, cache, workers):
    """Mosaic, mixup and the epochs without them, a short last batch, more workers than cores."""
    hyp = HYP.model_copy(update={"mixup": 0.3, "cache": cache})
    oracle = build_train_loader(index, hyp.model_copy(update={"loader": "torch"}), batch=8, workers=0)
    ring = build_train_loader(index, hyp, batch=8, workers=workers)
    for epoch in (0, 1, 15):
        assert same(samples(oracle.epoch(epoch)), samples(ring.epoch(epoch)))


SPAWN = """
import sys
sys.path.insert(0, {repo!r})
import utils.env

if __name__ == "__main__":  # what a worker does not need is imported here: it runs this file, too
    import torch
    import data.loading.loader
    from data.definition.dataset_yaml import load_dataset_yaml
    from data.index.index import build_index
    from utils.config.schema import Hyp

    data.loading.workers.processes._start_method = lambda: "spawn"
    index = build_index(load_dataset_yaml({yaml!r}), "val")
    for cache in ("off", "disk", "ram"):  # a worker each: it takes a second to start
        hyp = Hyp(imgsz=64, epochs=1, cache=cache)
        one, none = (data.loading.loader.build_train_loader(index, hyp, batch=16, workers=w) for w in (1, 0))
        for a, b in zip(one.epoch(0), none.epoch(0), strict=True):
            assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a if key != "pictures")
        one.close()
    print("same")
"""


@pytest.mark.slow
def test_a_spawned_worker_makes_the_same_batches(testdata, tmp_path, forked_runs):
    """As where CUDA is in use before the loader is built: buffers and columns are mapped again."""
    script = tmp_path / "spawn.py"
    script.write_text(SPAWN.format(repo=str(REPO), yaml=str(testdata / "bccd/bccd.yaml")))
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout == "same\n", done.stderr


def test_workers_decode_each_picture_once(testdata, monkeypatch):
    """Whichever worker needs it first, for all of its mosaic partners; two blocks of positions, the last one longer."""
    index = build_index(load_dataset_yaml(testdata / "bccd/bccd.yaml"), "train").take(np.arange(150))
    decoded, load = SharedArray((150,), np.int64), Decoder.load

    def count(decoder: Decoder, i: int) -> np.ndarray:
        decoded.array[i] += 1
        return load(decoder, i)

    monkeypatch.setattr(Decoder, "load", count)
    loader = build_train_loader(index, Hyp(imgsz=64, epochs=1, close_mosaic=0), batch=16, workers=3)
    assert len(samples(loader.epoch(0))) == 150
    loader.close()
    assert (decoded.array == 1).all()


def test_the_next_epoch_is_begun_ahead_but_none_after_the_last(index):
    loader = build_train_loader(index, HYP, batch=8, workers=1)
    for epoch, ahead in ((3, 30), (HYP.epochs - 1, 0)):
        samples(loader.epoch(epoch))
        deadline = time.monotonic() + 20
        control = loader.ring.control.array
        while control["finished"] < 30 + ahead and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.1)
        assert control["finished"] == control["claimed"] == 30 + ahead
    loader.close()


def test_an_epoch_entered_or_left_in_the_middle(index):
    loader = build_train_loader(index, HYP, batch=4, workers=1)
    whole = samples(loader.epoch(2))
    assert same(samples(loader.epoch(2, start_batch=5)), whole[20:])
    next(loader.epoch(7))  # left after a batch, with more of them on their way
    assert same(samples(loader.epoch(2)), whole)


def test_ranks_share_each_batch(index):
    single = samples(build_train_loader(index, HYP, batch=8, workers=0).epoch(1))
    for world_size in (2, 3):
        same_batch = {"batch": 8, "workers": 0, "world_size": world_size}
        ranks = [build_train_loader(index, HYP, rank=r, **same_batch).epoch(1) for r in range(world_size)]
        together = [s for batches in zip(*ranks, strict=True) for batch in batches for s in samples([batch])]
        assert same(together, single)


@given(st.integers(1, 70), st.integers(1, 20), st.integers(1, 9))
def test_every_picture_of_a_batch_counts_in_one_rank(n, batch, world_size):
    """And every rank has one at least, with the same number of batches: none may wait for another."""
    if batch < world_size:
        with pytest.raises(UserError, match="without a picture"):
            EpochSampler(n, batch, 0, world_size)
        return
    samplers = [EpochSampler(n, batch, r, world_size) for r in range(world_size)]
    whole, counted = list(EpochSampler(n, batch)), 0
    assert {len(sampler) for sampler in samplers} == {len(whole)}
    for b, keys in enumerate(zip(*samplers, strict=True)):
        counts = [sampler.pictures(b) for sampler in samplers]
        assert [key for mine, (count, _) in zip(keys, counts, strict=True) for key in mine[:count]] == whole[b]
        assert {of_all for _, of_all in counts} == {len(whole[b])}
        assert [len(mine) for mine in keys] == [max(count, 1) for count, _ in counts]
        assert max(map(len, keys)) <= samplers[0].most
        counted += sum(count for count, _ in counts)
    assert counted == n


def test_global_random_state_is_left_alone(index):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    for workers in (0, 1):
        list(build_train_loader(index, HYP, batch=8, workers=workers).epoch(0))
        list(build_eval_loader(index, imgsz=64, stride=32, batch=8, workers=workers))
    assert torch.equal(before, torch.get_rng_state())


def test_evaluation_batches(index):
    zero, two = (build_eval_loader(index, imgsz=64, stride=32, batch=8, workers=w) for w in (0, 2))
    assert same(samples(zero), samples(two)) and same(samples(two), samples(two)) and len(zero) == 4
    batches = list(zero)
    assert not any(tensor.is_shared() for batch in two for tensor in batch.values() if torch.is_tensor(tensor))
    assert sorted(i for b in batches for i in b["index"]) == list(range(30))
    assert all(len(b["letterbox"]) == len(b["ori_shape"]) == len(b["index"]) == len(b["img"]) for b in batches)
    assert batches[0]["ori_shape"][0] == (480, 640)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("kind", ["evaluation", "ring", "torch"])
def test_a_picture_that_vanished_is_named_without_a_traceback(index, tmp_path, workers, kind):
    broken = replace(index, paths=Paths.of([str(tmp_path / "gone.jpg")] * index.n))
    others = set(multiprocessing.active_children())
    with pytest.raises(UserError) as caught:
        if kind == "evaluation":
            list(build_eval_loader(broken, imgsz=64, stride=32, batch=8, workers=workers))
        else:
            list(build_train_loader(broken, HYP.model_copy(update={"loader": kind}), batch=8, workers=workers).epoch(0))
    assert str(caught.value).startswith(str(tmp_path / "gone.jpg")) and "Traceback" not in str(caught.value)
    assert set(multiprocessing.active_children()) <= others, "its workers have ended"


@pytest.mark.parametrize("kind", ["evaluation", "ring", "torch"])
def test_a_loader_is_closed_at_once(index, kind):
    """With batches on their way; as a run ends on Ctrl-C."""
    others = set(multiprocessing.active_children())
    if kind == "evaluation":
        loader = build_eval_loader(index, imgsz=64, stride=32, batch=2, workers=2)
        batches = iter(loader)
    else:
        loader = build_train_loader(index, HYP.model_copy(update={"loader": kind}), batch=2, workers=2)
        batches = loader.epoch(0)
    next(batches)
    assert len(set(multiprocessing.active_children()) - others) == 2
    began = time.monotonic()
    loader.close()
    assert set(multiprocessing.active_children()) <= others and time.monotonic() - began < 4


def test_a_bug_in_a_worker_keeps_its_traceback(index, monkeypatch):
    monkeypatch.setattr(TrainDataset, "write", lambda *_: 1 / 0)
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        next(build_train_loader(index, HYP, batch=8, workers=2).epoch(0))


def test_a_killed_worker_is_said(index):
    loader = build_train_loader(index, HYP, batch=8, workers=1)
    batches = loader.epoch(0)
    next(batches)
    os.kill(loader.ring.workers[0].pid, signal.SIGKILL)
    with pytest.raises(UserError, match="worker died .exit code -9"):
        list(batches)
        list(loader.epoch(1))


def test_a_killed_worker_of_the_evaluation_ends_it(index):
    loader = build_eval_loader(index, imgsz=64, stride=32, batch=2, workers=1)
    batches = iter(loader)
    next(batches)
    began = time.monotonic()
    with pytest.raises((UserError, RuntimeError), match="worker"):  # RuntimeError: out of torch's own signal handler
        os.kill(loader.loader._iterator._workers[0].pid, signal.SIGKILL)
        list(batches)
        list(loader)
    assert time.monotonic() - began < 20


def test_an_evaluation_left_in_the_middle_starts_anew(index):
    loader = build_eval_loader(index, imgsz=64, stride=32, batch=4, workers=2)
    whole = samples(loader)
    next(iter(loader))
    assert same(samples(loader), whole)


def test_workers_start_where_opencv_has_threads(index):
    threads = cv2.getNumThreads()
    cv2.setNumThreads(4)
    try:
        cv2.warpAffine(np.zeros((2000, 2000, 3), np.uint8), np.eye(2, 3), (2000, 2000))  # by threads of its own
        loader = build_eval_loader(index, imgsz=64, stride=32, batch=8, workers=1)
        batches = next(iter(loader))
        assert len(batches["img"]) == 8
    finally:
        cv2.setNumThreads(threads)


def test_batches_that_do_not_fit_into_shared_memory_are_refused():
    check_shared_memory(1)
    with pytest.raises(UserError, match="--loader ring"):
        check_shared_memory(2**60)


SCRIPT = """
import signal, sys, time
sys.path.insert(0, {repo!r})
import utils.env
from data.definition.dataset_yaml import load_dataset_yaml
from data.index.index import build_index
from data.loading.workers import ring
from data.loading.loader import build_train_loader
from utils.config.schema import Hyp

if __name__ == "__main__":
    ring.LOOK = 1.0  # seconds
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in a shell's background
    index = build_index(load_dataset_yaml({yaml!r}), "val")
    loader = build_train_loader(index, Hyp(imgsz=64, epochs=20), batch=8, workers=2)
    batches = loader.epoch(0)
    next(batches)
    print(*[w.pid for w in loader.ring.workers], flush=True)
    {then}
"""


def start(testdata: Path, then: str, popen: type[subprocess.Popen] = forked.Popen) -> subprocess.Popen:
    script = SCRIPT.format(repo=str(REPO), yaml=str(testdata / "bccd/bccd.yaml"), then=then)
    # a session of its own, so that a signal to the group reaches the workers and not this test
    pipe = subprocess.PIPE
    return popen([sys.executable, "-c", script], stdout=pipe, stderr=pipe, text=True, start_new_session=True)


def alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks processes up in /proc")
def test_workers_die_with_a_killed_parent(testdata):
    process = start(testdata, "time.sleep(60)")
    pids = [int(word) for word in process.stdout.readline().split()]
    assert len(pids) == 2 and all(map(alive, pids))
    process.kill()
    process.wait()
    deadline = time.monotonic() + 20  # they look for their parent every second
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not any(map(alive, pids))


@pytest.mark.slow
def test_workers_are_quiet(testdata):
    """Nothing is printed when the program ends with batches on their way, nor by workers on Ctrl-C."""
    done = start(testdata, "pass", subprocess.Popen)  # a fork would not end as an interpreter does
    done.stdout.readline()
    assert done.communicate(timeout=60) == ("", "") and done.returncode == 0
    stopped = start(testdata, "time.sleep(60)")
    stopped.stdout.readline()
    os.killpg(stopped.pid, signal.SIGINT)
    out, err = stopped.communicate(timeout=60)
    assert out == "" and err.count("Traceback") == 1  # the main process's own
