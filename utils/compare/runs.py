"""The runs of a comparison: which are to be made, their command lines, and what each came to."""

import shutil
from pathlib import Path
from typing import Any

from utils.compare.arms import Arm
from utils.compare.launch import Child
from utils.compare.live import Live
from utils.compare.record import ENDED
from utils.compare.scores import final_score
from utils.config.schema import Command

STATUS = {0: "done", 3: "diverged"}  # by the exit code of train.py; any other has failed


def list_runs(record: dict[str, Any], seeds: int, folder: Path) -> None:
    """Bring the list of runs up to `seeds` pairs, or as many as there are; what did not end is to be made again."""
    most = max(
        [seeds, *(look["pairs"] for look in record["looks"]), *(r["seed"] + 1 for r in record["runs"] if ended(r))]
    )
    record["seeds"] = list(range(most))
    known = {(run["arm"], run["seed"]): run for run in record["runs"]}
    runs = []
    for seed in record["seeds"]:
        for arm in record["arms"]:
            run = known.get((arm["name"], seed))
            blank = dict.fromkeys(("exit", "command", "seconds", "device", "score", "message", "secondary"))
            blank |= {"arm": arm["name"], "seed": seed, "status": "missing", "folder": f"runs/{arm['name']}/seed{seed}"}
            runs.append(run if run and kept(folder, run, record["declared"]["metric"]) else blank)
    record["runs"] = runs


def ended(run: dict[str, Any]) -> bool:
    """Whether a run came to a score, be it that of a run that diverged."""
    return run["status"] in ENDED


def kept(folder: Path, run: dict[str, Any], metric: str) -> bool:
    """Whether a run needs not be made again: it ended, and what it left is still there."""
    place = folder / run["folder"]
    return place.is_dir() and (run["status"] == "diverged" or (ended(run) and final_score(place, metric) is not None))


def run_words(folder: Path, run: dict[str, Any], arm: Arm, threads: int, command: Command) -> list[str]:
    """The options of a run of train.py, a new one or one that was interrupted; its device comes later."""
    hyp, place = arm.hyp, folder / run["folder"]
    last = place / "weights/last.pt"
    if last.is_file():  # going on gives the very weights of a run that was never interrupted
        return ["--resume", str(last), "--workers", str(min(hyp.workers, threads))]
    shutil.rmtree(place, ignore_errors=True)
    words = ["--hyp", str(folder / "arms" / f"{run['arm']}.yaml"), "--seed", str(hyp.seed + run["seed"])]
    words += ["--project", str(place.parent), "--name", place.name, "--exist-ok"]
    words += ["--workers", str(min(hyp.workers, threads))]
    return words + ["--download"] * command.download + ["--keep-gains"] * command.keep_gains


def record_run(record: dict[str, Any], child: Child, code: int, live: Live) -> None:
    """Enter what a run came to, and say so."""
    job, declared = child.job, record["declared"]
    run = next(run for run in record["runs"] if (run["arm"], run["seed"]) == (job.arm, job.seed))
    score = final_score(job.folder, declared["metric"]) if code == 0 else None
    status = "failed" if code == 0 and score is None else STATUS.get(code, "failed")
    run |= {
        "status": status,
        "exit": code,
        "command": ["train.py", *job.words, "--device", child.device],
        "seconds": round(child.seconds, 1),
        "device": child.device,
        "score": score,
        "message": None if status == "done" else last_lines(job.folder / "console.txt"),
    }
    (job.folder / "weights/last.pt").unlink(missing_ok=True)  # only a run that was interrupted is gone on with
    name = f"{job.arm} seed {job.seed}"
    if status == "done":
        live.times.append(child.seconds)
        live.say(f"{name}: {declared['metric']} {score:.4f} ({child.seconds:.0f} s)")
    else:
        live.say(f"{name}: {status} (exit code {code}), its last lines:\n{run['message']}")


def last_lines(path: Path, n: int = 8) -> str:
    """The end of what a run printed."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return "\n".join([line.rstrip() for line in lines if line.strip()][-n:])
