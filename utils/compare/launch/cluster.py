"""Runs on the machines of a Ray cluster, which finds a place for each and makes those of a lost machine again."""

import io
import logging
import os
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from utils.compare.launch.local import POLL, Child, Job, run_all, start
from utils.errors import UserError


def engine(options: Any) -> Callable[..., Iterator[tuple[Child, int]]]:
    """What makes the runs: `run_all`, or `run_all_on_ray` with its cluster; options: a Compare."""
    if options.engine == "local":
        return run_all
    return partial(run_all_on_ray, address=options.address, gpus=options.run_gpus)


def run_all_on_ray(
    jobs: Iterable[Job],
    slots: Sequence[str],
    threads: int,
    before: Callable[[], None],
    show: Callable[[list[Child]], None],
    address: str | None,
    gpus: float,
) -> Iterator[tuple[Child, int]]:
    """As `run_all`, each run a task of a Ray cluster: the local machine, or the one at `address`.

    A task takes `threads` CPUs and, unless its slot is a CPU, `gpus` GPUs. Repo, data and weights lie at the same paths
    on every node. Where the folder of the comparison does, too (shared storage), a run writes into it, and one whose
    node is lost goes on from its last.pt on another; elsewhere the run folder is sent back, and such a run made again.
    """
    ray = _open_ray(address, threads, len(slots))
    remote = ray.remote(num_cpus=threads, num_gpus=0 if slots[0] == "cpu" else gpus, max_retries=-1)(_make_run)
    todo, running, job = iter(jobs), {}, None
    most = len(slots) if address is None else max(int(ray.cluster_resources().get("CPU", 1) // threads), len(slots))
    try:
        while running or (job := next(todo, None)):
            while len(running) < most and (job := job or next(todo, None)):
                before()
                settings = job.words[job.words.index("--hyp") + 1] if "--hyp" in job.words else None
                text = Path(settings).read_text(encoding="utf-8") if settings else None
                child = Child(job, "cpu" if slots[0] == "cpu" else "0")
                running[remote.remote(str(job.folder.absolute()), job.words, child.device, threads, text)] = child
                job = None
            show(list(running.values()))
            for ref in ray.wait(list(running), timeout=POLL)[0]:
                code, sent = ray.get(ref)
                child = running.pop(ref)
                if sent is not None:
                    shutil.rmtree(child.job.folder, ignore_errors=True)
                    with tarfile.open(fileobj=io.BytesIO(sent)) as packed:
                        packed.extractall(child.job.folder, filter="data")
                yield child, code
    finally:
        for ref in running:
            ray.cancel(ref, force=True)
        ray.shutdown()


def _open_ray(address: str | None, threads: int, slots: int) -> Any:
    """The module, connected; UserError when it is not installed, or nothing answers at `address`."""
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS": "0"}  # it would report its use over the network
    try:
        import ray
    except ImportError as e:
        raise UserError("--engine ray needs Ray, which is not installed: pip install -r requirements-extra.txt") from e
    own = {"address": address} if address else {"address": "local", "num_cpus": threads * slots}  # whoever else has one
    try:
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR, **own)
    except (ConnectionError, RuntimeError, ValueError) as e:
        if address:
            raise UserError(f"no Ray cluster answers at {address}: {e}. Start one, or leave out --address.") from e
        raise UserError(f"a Ray cluster of this machine's own cannot be started: {e}") from e
    return ray


def _make_run(
    folder: str, words: list[str], device: str, threads: int, settings: str | None
) -> tuple[int, bytes | None]:
    """One run on a node: its exit code, and the run folder as a tar where this node does not share it."""
    place, words = Path(folder), list(words)
    hyp = Path(words[words.index("--hyp") + 1]) if "--hyp" in words else None
    shared = hyp.is_file() if hyp else place.is_dir()
    with tempfile.TemporaryDirectory() as own:
        if not shared:
            place = Path(own) / place.name
            Path(own, "arm.yaml").write_text(settings or "", encoding="utf-8")
            words[words.index("--hyp") + 1] = str(Path(own, "arm.yaml"))
            words[words.index("--project") + 1] = own
        last = place / "weights/last.pt"
        if last.is_file() and "--resume" not in words:  # of a node that was lost
            words = ["--resume", str(last), "--workers", words[words.index("--workers") + 1]]
        child = start(Job("", 0, place, words), device, threads)
        code = child.process.wait()
        child.console.close()
        if shared:
            return code, None
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as out:
            out.add(place, arcname=".")
        return code, packed.getvalue()
