"""Does a run that is killed at random instants end as the one that was never stopped, and what does saving cost?

    python benchmarks/soak.py --kills 30 --seed 0
    python benchmarks/soak.py --saving --weights yolov8n.pt --data bccd.yaml --hyp finetune --imgsz 320 --epochs 2

The first kills a toy run (SIGKILL) inside batches, evaluations and saves and right after it has gone on, resumes it to
its end, begins another one while kills are left, and compares each with the run that was never stopped; it exits with 1
when one differs. The second makes a run of the settings given and says which part of it went into saving states.
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("OMP_NUM_THREADS", "1")  # a pool of threads does not survive a fork
import utils.env  # noqa: F401, I001  (first: sets the environment that the libraries read on import)

import torch

import train
from data.toy.draw import draw
from utils.run.log import read_metrics
from utils.run.state.writer import Writer

KINDS = {  # how many of its events, at most, a run sees before it is killed; and the longest time after the last one
    "inside a batch": (9, 0.06),
    "inside an evaluation": (4, 0.04),
    "inside a save": (6, 0.012),
    "as soon as it has gone on": (1, 0.05),
}
STATE = {  # what is compared of last.pt, and what it is called in the table
    "model": "weights", "ema": "average", "optimizer": "optimizer", "gradients": "open window",
    "random": "random state", "progress": "clock and scores",
}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--saving", action="store_true", help="the cost of saving, of a run of the options that follow")
    options, words = parser.parse_known_args()
    if options.saving:
        return saving(words)
    with tempfile.TemporaryDirectory(prefix="preheat-soak-") as folder:
        return soak(Path(folder), options.kills, random.Random(options.seed))


def soak(root: Path, kills: int, rng: random.Random) -> int:
    """Kill and resume runs in `root` until there were so many kills; says what differed, and returns how many runs."""
    draw("target", root / "toy", {"train": 24, "val": 8})
    data = root / "toy/toy.yaml"
    data.write_text("train: images/train\nval: images/val\nnames: [mug, key, leaf, bolt]\n", encoding="utf-8")
    words = [
        "--hyp",
        "demo",
        "--data",
        str(data),
        "--imgsz",
        "64",
        "--epochs",
        "5",
        "--batch",
        "4",
        "nbs=12",
        "lr0=0.001",
    ]
    words += ["close_mosaic=2", "save_every=2 batches", "--noplots", "--device", "cpu", "--workers", "0"]
    whole = root / "whole/exp"
    assert live([*words, "--project", str(whole.parent)], whole.parent / "log.txt", None) == 0
    print("| kill | run | instant | batch that its state stands before |\n| --- | --- | --- | --- |", flush=True)
    done, wrong, number = 0, 0, 0
    while done < kills:
        number += 1
        folder, code = root / f"run{number}/exp", 1
        start = [*words, "--project", str(folder.parent), "--exist-ok"]
        while code:
            there = (folder / "weights/last.pt").exists()
            kind = rng.choice([kind for kind in KINDS if there or not kind.startswith("as soon")])
            going_on = ["--resume", str(folder), "--workers", str(rng.choice([0, 1]))]
            kill = plan_kill(kind, rng) if done < kills else None
            code = live(going_on if there else start, folder.parent / "log.txt", kill)
            if code == -signal.SIGKILL:
                done += 1
                print(f"| {done} | {number} | {kind} | {batch_of(folder)} |", flush=True)
            elif code:
                print((folder.parent / "log.txt").read_text(encoding="utf-8"))
                return 1
        wrong += bool(differ := differences(whole, folder))
        print(f"| | {number} | **its end: {', '.join(differ) + ' differ' if differ else 'equal'}** | |", flush=True)
    print(f"\n{done} kills, {number} runs, {number - wrong} of them equal to the run that was never stopped: ", end="")
    print(", ".join([*STATE.values(), "metrics.csv", "TensorBoard"]))
    return int(wrong > 0)


def plan_kill(kind: str, rng: random.Random) -> Callable[[], None]:
    """What arranges in a child, before it trains, that it is killed at a random instant of a kind."""
    most, longest = KINDS[kind]
    left, delay = rng.randint(1, most), rng.uniform(0, longest)

    def count() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL)).start()

    def on_forward(module: torch.nn.Module, inputs: Any) -> None:
        if type(module).__name__ == "DetectionModel" and module.training == (kind != "inside an evaluation"):
            count()

    def on_event(event: str, args: tuple[Any, ...]) -> None:
        if event == "open" and "last.pt" in str(args[0]) and "w" in str(args[1]):
            count()

    def arrange() -> None:
        if kind == "inside a save":
            sys.addaudithook(on_event)
        else:
            torch.nn.modules.module.register_module_forward_pre_hook(on_forward)

    return arrange


def live(words: list[str], log: Path, arrange: Callable[[], None] | None) -> int:
    """Exit code of train.py in a fork, of a signal the negative number; what it prints goes to the end of `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(output, 1)
            os.dup2(output, 2)
            if arrange:
                arrange()
            train.main(words)
            code = 0
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            sys.stdout.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def batch_of(folder: Path) -> str:
    """Where the state of a run stands; - where there is none yet."""
    last = folder / "weights/last.pt"
    return str(torch.load(last, weights_only=True)["progress"]["ni"]) if last.exists() else "-"


def differences(whole: Path, other: Path) -> list[str]:
    """What of the end of two runs is not the same, bit for bit; times are left out."""
    a, b = (torch.load(run / "weights/last.pt", weights_only=True) for run in (whole, other))
    for state in (a, b):
        del state["progress"]["hours"]
    found = [name for key, name in STATE.items() if not same(a[key], b[key])]
    tables = [[without_times(row) for row in read_metrics(run / "metrics.csv")] for run in (whole, other)]
    found += [] if same(*tables) else ["metrics.csv"]
    return found + ([] if same(curves(whole), curves(other)) else ["TensorBoard"])


def without_times(row: dict[str, Any]) -> dict[str, Any]:
    """A row or curves without what a clock measured."""
    return {key: value for key, value in row.items() if not key.startswith("time/")}


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Every scalar of the event files by step; one that is there twice is twice in it."""
    from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={SCALARS: 0})
    events.Reload()
    return without_times(
        {tag: sorted((e.step, e.value) for e in events.Scalars(tag)) for tag in events.Tags()[SCALARS]}
    )


def same(a: Any, b: Any) -> bool:
    """Whether nested dictionaries and lists are equal bit for bit; NaN is itself."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b or (a != a and b != b)


def saving(words: list[str]) -> int:
    """Print which part of a run went into saving its states; what is written in the background is waited for."""
    spent, states, save = [0.0, 0.0], 0, Writer.save

    def timed(self: Writer, *args: Any) -> None:
        nonlocal states
        cpu, wall = time.process_time(), time.perf_counter()
        save(self, *args)
        self.join()
        spent[0] += time.process_time() - cpu
        spent[1] += time.perf_counter() - wall
        states += 1

    Writer.save = timed
    with tempfile.TemporaryDirectory(prefix="preheat-soak-") as folder:
        cpu, wall = time.process_time(), time.perf_counter()
        train.main([*words, "--project", folder])
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        size = (Path(folder) / "exp/weights/last.pt").stat().st_size / 1e6
    print(f"\n{states} states of {size:.1f} MB\n\n| | run, s | saving, s | part |\n| --- | --- | --- | --- |")
    for name, whole, part in (("CPU", cpu, spent[0]), ("wall clock", wall, spent[1])):
        print(f"| {name} | {whole:.1f} | {part:.2f} | {part / whole:.2%} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
