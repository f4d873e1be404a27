"""How fast an index of many pictures starts, and what memory it needs: python benchmarks/index.py --folder F

Of a dataset of small JPEGs, each with a label file of its own (made in F at the first call, and kept):

stat         os.stat of all pictures and labels in the plainest way: two processes, each over its half of a list of str
cached       build_index in a fresh process when nothing has changed, imports not counted; taken in turns with `stat`
trust        the same with trust=True
count        count_pictures, as `train.py --plan` calls it
first        build_index without a kept index: every picture and label is read (one time only)
memory       of `cached`, imports included: the most that the process and its children had together, what they share
             counted once (PSS), and the mapped file as far as it was touched
workers      the training loader's 4 worker processes go through an epoch (imgsz 32, mosaic, no cache): private memory
             (USS) of all four together after the first tenth and at the end, and with their part of what is shared
             (PSS)

Every time is a median over the rounds in turns, with file information in the page cache of the system.
"""

import argparse
import multiprocessing
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import utils.env  # noqa: F401  (the environment of the scripts)
from benchmarks.million import make_dataset

WORKERS = 4
MB = 2**20


def main() -> None:
    """Print one table for every number of rows."""
    parser = argparse.ArgumentParser(description="Start time and memory of the index.")
    parser.add_argument("--folder", type=Path, required=True, help="where the datasets are made and kept")
    parser.add_argument("--rows", type=int, nargs="+", default=[200_000, 1_000_000])
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    for n in args.rows:
        yaml = str(make_dataset(args.folder, n))
        with tempfile.TemporaryDirectory(dir=args.folder) as cache:
            os.environ["PREHEAT_CACHE"] = cache  # of the processes that are started from here on
            measure(yaml, n, args.rounds)


def measure(yaml: str, n: int, rounds: int) -> None:
    """The table of one dataset."""
    first = fresh(start, yaml)["seconds"]
    files = fresh(stat_plainly, yaml)["files"]  # warms the system's cache of file information, too
    plain, cached, trust, count = [], [], [], []
    for _ in range(rounds):
        plain.append(fresh(stat_plainly, yaml)["seconds"])
        cached.append(fresh(start, yaml)["seconds"])
        trust.append(fresh(start, yaml, trust=True)["seconds"])
        count.append(fresh(count_rows, yaml)["seconds"])
    base = statistics.median(plain)
    print(f"\n{n} pictures, {files} files, {os.cpu_count()} cores, Python {sys.version.split()[0]}, {rounds} rounds")
    print(f"{'':8}{'seconds':>10}{'of stat':>10}   of each round")
    for name, seconds in {"stat": plain, "cached": cached, "trust": trust, "count": count, "first": [first]}.items():
        median = statistics.median(seconds)
        each = " ".join(f"{s:.3f}" for s in seconds)
        print(f"{name:8}{median:10.3f}{median / base:10.2f}   {each}")
    print(f"memory  {fresh(start, yaml, memory=True)['peak'] / MB:10.0f} MB at most, processes and imports together")
    for i, moment in enumerate(fresh(work, yaml)["moments"]):
        private, shared = (sum(m[k] for m in moment) / MB for k in ("private", "pss"))
        print(f"workers {private:10.0f} MB private, {shared:.0f} MB PSS of {WORKERS}, {'at the end' if i else 'early'}")


def fresh(function: Callable[..., dict[str, Any]], *args: Any, **kwargs: Any) -> dict[str, Any]:
    """What a function finds in a process of its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *args, **kwargs).result()


def start(yaml: str, trust: bool = False, memory: bool = False) -> dict[str, Any]:
    """Open the index of the training pictures as train.py does."""
    from data.definition.dataset_yaml import load_dataset_yaml
    from data.index.index import build_index

    assert "torch" not in sys.modules
    config = load_dataset_yaml(yaml)
    watch = Watch() if memory else None
    began = time.perf_counter()
    index = build_index(config, "train", trust=trust)
    seconds = time.perf_counter() - began
    assert len(index) and index.file.key
    return {"seconds": seconds, "peak": watch.stop() if watch else None}


def count_rows(yaml: str) -> dict[str, Any]:
    """Count the training pictures as --plan does."""
    from data.index.index import count_pictures

    began = time.perf_counter()
    assert count_pictures(yaml)[1]
    return {"seconds": time.perf_counter() - began}


def stat_plainly(yaml: str) -> dict[str, Any]:
    """os.stat of every picture and label of the training split, by two processes."""
    root = Path(yaml).parent
    folders = [parent for kind in ("images", "labels") for parent, _, _ in os.walk(root / kind / "train")]
    files = [entry.path for folder in folders for entry in os.scandir(folder) if entry.is_file()]
    files.sort()
    halves = [files[: len(files) // 2], files[len(files) // 2 :]]
    processes = [multiprocessing.get_context("fork").Process(target=stat_each, args=(half,)) for half in halves]
    began = time.perf_counter()
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return {"seconds": time.perf_counter() - began, "files": len(files)}


def stat_each(files: list[str]) -> None:
    """The plainest way."""
    for file in files:
        os.stat(file)


def work(yaml: str) -> dict[str, Any]:
    """Memory of the training loader's workers, early in an epoch and at its end."""
    from data.definition.dataset_yaml import load_dataset_yaml
    from data.index.index import build_index
    from data.loading.loader import build_train_loader
    from utils.config.schema import Hyp

    index = build_index(load_dataset_yaml(yaml), "train", trust=True)
    loader = build_train_loader(index, Hyp(imgsz=32, epochs=1, close_mosaic=0), batch=64, workers=WORKERS)
    moments, early = [], len(loader) // 10
    for b, _ in enumerate(loader.epoch(0), 1):
        if b in (early, len(loader)):
            moments.append([memory_of(worker.pid) for worker in loader.ring.workers])
    loader.close()
    return {"moments": moments}


def memory_of(pid: int) -> dict[str, int]:
    """Bytes of a process: all of its own, and its part of what it shares (pss); its own alone (private)."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    kb = {line.split(":")[0]: int(line.split()[1]) for line in lines}
    private = kb["Private_Clean"] + kb["Private_Dirty"]
    return {"pss": kb["Pss"] * 1024, "private": private * 1024}


class Watch:
    """The most memory that this process and its children have together, looked at every few milliseconds."""

    def __init__(self) -> None:
        self.peak, self.over = 0, threading.Event()
        self.thread = threading.Thread(target=self._look)
        self.thread.start()

    def _look(self) -> None:
        while not self.over.wait(0.005):
            total = memory_of(os.getpid())["pss"]
            for child in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
                try:
                    total += memory_of(int(child))["pss"]
                except (OSError, KeyError):  # it has just ended
                    continue
            self.peak = max(self.peak, total)

    def stop(self) -> int:
        """Bytes."""
        self.over.set()
        self.thread.join()
        return self.peak


if __name__ == "__main__":
    main()
