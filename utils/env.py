"""Environment of the libraries and the cache folder; the only module whose import has an effect. Import it first."""

import ctypes
import os
import signal
import sys
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parent.parent
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # of <malloc.h>


def cache_dir() -> Path:
    """Folder of indexes, decoded pictures, toy data and settings: $PREHEAT_CACHE, else ~/.cache/preheat."""
    return Path(os.environ.get("PREHEAT_CACHE") or Path.home() / ".cache" / "preheat").expanduser().absolute()


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def keep_freed_memory() -> None:
    """Let the C library keep large blocks that are freed, for the next ones: fresh pages for every tensor cost a CPU a
    third of a forward pass in full precision. Of glibc; another one is left as it is.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(M_TOP_PAD, 64 * 2**20)


def weight_places(name: str) -> list[Path]:
    """Where weights of this name are looked for, in order."""
    path = Path(name).expanduser()
    if path.is_absolute():
        return [path]
    own = REPO / path if path.parts[:1] == ("models",) else REPO / "models" / path  # as hyps/demo.yaml names it
    return [Path.cwd() / path, own, cache_dir() / "weights" / path]


def end_at_once(number: int, frame: Any) -> None:
    """End a program that has nothing to lose yet, or any more, where a signal comes: one line, 128 + its number."""
    os.write(2, f"stopped by {signal.Signals(number).name}\n".encode())
    os._exit(128 + number)


def let_imports_be_stopped() -> None:
    """Where the program is a script of this repo, Ctrl-C ends it quietly while it imports; `run_script` takes over."""
    program = Path(getattr(sys.modules.get("__main__"), "__file__", None) or "/")
    if program.resolve().parent in (REPO, REPO / "data/index"):
        signal.signal(signal.SIGINT, end_at_once)


def set_environment() -> None:
    """Offline, no telemetry, safe loading, every core; what the user has set already is kept, safe loading excepted."""
    os.environ["ULTRALYTICS_SAFE_LOAD"] = "1"  # without it a yaml's `activation`, also one inside a .pt, is evaluated
    os.environ.setdefault("YOLO_CONFIG_DIR", str(cache_dir() / "ultralytics"))
    os.environ.setdefault("YOLO_OFFLINE", "true")
    os.environ.setdefault("YOLO_VERBOSE", "false")  # errors only
    os.environ.setdefault("YOLO_AUTOINSTALL", "false")  # ultralytics would call pip for a picture it cannot read
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # albumentations asks a server for its newest version
    os.environ.setdefault("MPLBACKEND", "Agg")
    os.environ.setdefault("MPLCONFIGDIR", str(cache_dir() / "matplotlib"))  # its list of fonts
    os.environ.setdefault("OMP_NUM_THREADS", str(cores()))  # ultralytics, imported before torch, sets 1
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # repeatable matrix products on CUDA
    try:
        Path(os.environ["YOLO_CONFIG_DIR"]).mkdir(parents=True, exist_ok=True)
    except OSError as e:
        print(f"error: cannot write the cache folder {cache_dir()}: {e.strerror}. Set PREHEAT_CACHE.", file=sys.stderr)
        raise SystemExit(2) from None


let_imports_be_stopped()
set_environment()
