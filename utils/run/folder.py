"""The folder of a run, and run.json: what it was made by."""

import errno
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from utils.env import REPO
from utils.errors import FULL, UserError
from utils.files import hold

PACKAGES = (
    "torch", "torchvision", "ultralytics", "albumentations", "numpy", "opencv-python-headless", "faster-coco-eval",
    "ultrafast-pycocotools",
)  # fmt: skip

LAST, OLDER = "last.pt", "last-older.pt"  # the newest state of a run, and the one before it
STABLE, STABLE_BEST = "stable.pt", "stable"  # the state that a longer run goes on from; the best weights up to there


def make_run_folder(project: str, name: str, exist_ok: bool) -> Path:
    """project/name, or project/name2, name3, ... when taken; UserError when it cannot be written.

    Of runs that start at once each makes its own: a folder that another one makes meanwhile is taken, too.
    """
    folder, number = Path(project) / name, 2
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        while not _made(folder, exist_ok):
            folder, number = Path(project) / f"{name}{number}", number + 1
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as e:
        raise UserError(f"cannot write to {folder}: {e.strerror}. Choose another --project.") from e
    return folder


def _made(folder: Path, exist_ok: bool) -> bool:
    """Make a folder; False where there is something of that name, unless it is a folder that may be used."""
    try:
        folder.mkdir(exist_ok=exist_ok)
    except FileExistsError:
        if exist_ok:
            raise
        return False
    return True


@contextmanager
def told_when_lost(folder: Path) -> Iterator[None]:
    """Turn an error of the system that a run meets while it writes into its folder into one message."""
    try:
        yield
    except OSError as e:
        if e.errno not in FULL and folder.is_dir():
            raise
        raise cannot_write(folder, e) from e


def cannot_write(path: Path, e: OSError) -> UserError:
    """What to say where a file of a run, or a file in its folder, cannot be written."""
    if e.errno == errno.ENOENT:
        return UserError(
            f"cannot write {path}: the folder is gone. It was removed, or its disk was, while the run wrote to it. "
            "Start it again, in a folder that stays."
        )
    return UserError(f"cannot write {path}: {e.strerror}. Make room or choose another --project.")


def hold_folder(folder: Path) -> Callable[[], None]:
    """Keep a run folder for this process alone until the function that comes back is called, or the process ends.

    Raises UserError where another process trains in it.
    """
    lock = folder / ".lock"
    try:
        fd = hold(lock)
        by = "" if fd is not None else lock.read_text()
    except OSError as e:
        raise UserError(f"cannot write to {folder}: {e.strerror}. Choose another --project.") from e
    if fd is None:
        raise UserError(
            f"{folder} is being trained in by another process{f' ({by})' if by else ''}: two would write over each "
            "other's state. Wait until it has ended, or stop it."
        )

    def let_go() -> None:
        lock.unlink(missing_ok=True)
        os.close(fd)

    return let_go


def require_free(folder: Path) -> None:
    """UserError where another process trains in a run folder."""
    if (folder / ".lock").exists():
        hold_folder(folder)()


def drop_states(folder: Path) -> None:
    """Remove the states of a run that nobody goes on with, one of many; its weights and its tables stay."""
    for name in (LAST, OLDER, STABLE):
        (folder / "weights" / name).unlink(missing_ok=True)
    shutil.rmtree(folder / "weights" / STABLE_BEST, ignore_errors=True)


def is_closed(folder: Path | None) -> bool:
    """Whether the run in a folder has written the last that it writes; one that was killed before goes on there."""
    return folder is None or (folder / "per_class.csv").exists()


def write_run_json(folder: Path, extra: dict[str, Any]) -> None:
    """Command, versions, git revision, device and threads: what is needed to explain a result later."""
    import torch  # late: whoever only makes a folder starts faster without

    content = {
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "started": time.strftime("%Y-%m-%d %H:%M:%S"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": package_versions(),
        "git": git_revision(),
        "threads": torch.get_num_threads(),
        **extra,
    }
    file = folder / "run.json"
    if extra.get("resumed") and file.is_file():  # the first start explains the run; later ones are listed in it
        first = json.loads(file.read_text(encoding="utf-8"))
        content = first | {"resumes": [*first.get("resumes", []), content]}
    file.write_text(json.dumps(content, indent=2), encoding="utf-8")


def package_versions() -> dict[str, str]:
    """Of the libraries that a result depends on, as far as they are installed."""

    def of(name: str) -> str:
        try:
            return version(name)
        except PackageNotFoundError:
            return "not installed"

    return {name: of(name) for name in PACKAGES}


def git_revision() -> str | None:
    """Commit of the repo, with '+changes' when the tree differs from it; None outside git."""
    try:
        options = {"cwd": REPO, "capture_output": True, "text": True, "timeout": 5, "check": True}
        commit = subprocess.run(["git", "rev-parse", "HEAD"], **options).stdout.strip()
        changed = subprocess.run(["git", "status", "--porcelain", "-uno"], **options).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
    return commit + ("+changes" if changed else "")
