"""The index of a split as a file in the cache folder, named by the state of the dataset's files."""

import contextlib
import hashlib
import json
import logging
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from data.dataset_yaml import DatasetConfig
from data.formats import Problem
from utils.env import cache_dir

VERSION = 3  # of the cached file: raise it when the columns or the rules change
TEXT = ("paths", "category_ids", "problems")  # kept as one json: np.load without pickle has no objects


def index_file(config: DatasetConfig, split: str, single_cls: bool, stamps: list[tuple[str, int, int]]) -> Path:
    """Name of the cached index: which dataset, and in which state its files are."""
    state = hashlib.sha256(json.dumps([VERSION, config.names, single_cls]).encode())
    for path, size, mtime in stamps:
        state.update(f"{path}\0{size}\0{mtime}\n".encode(errors="surrogateescape"))
    return cache_dir() / "indexes" / f"{_name(config, split)}-{state.hexdigest()[:20]}.npz"


def newest_index(config: DatasetConfig, split: str) -> Path | None:
    """The cached index of a split, in whatever state its files were then; None where there is none."""
    files = list((cache_dir() / "indexes").glob(f"{_name(config, split)}-*.npz"))
    return max(files, key=lambda file: file.stat().st_mtime_ns, default=None)


def _name(config: DatasetConfig, split: str) -> str:
    which = hashlib.sha256(json.dumps([str(config.path), split]).encode()).hexdigest()[:12]
    return f"{config.path.stem}-{split}-{which}"


def save_index(file: Path, index: Any, columns: tuple[str, ...]) -> None:
    """Write beside the target and move over it: no other run sees half a file. A full disk costs the cache only."""
    temporary = file.with_name(f"{file.name}.{os.getpid()}.tmp")
    text = [list(index.paths), index.category_ids] + [[(p.path, p.line, p.message) for p in index.problems]]
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        for old in file.parent.glob(file.name.rpartition("-")[0] + "-*.npz"):
            old.unlink(missing_ok=True)  # the same dataset in an earlier state
        with open(temporary, "wb") as f:
            arrays = {name: getattr(index, name) for name in columns}
            np.savez(f, text=np.frombuffer(json.dumps(text).encode(), np.uint8), **arrays)
        os.replace(temporary, file)
    except OSError as e:
        with contextlib.suppress(OSError):
            temporary.unlink()
        logging.getLogger(__name__).warning(
            f"the index could not be kept in {file.parent} ({e}); it is rebuilt next time"
        )


def load_index(file: Path, columns: tuple[str, ...]) -> dict[str, Any] | None:
    """The kept fields of an index, or None where there is none of this state (or a damaged one)."""
    try:
        with np.load(file, allow_pickle=False) as content:
            kept: dict[str, Any] = {name: content[name] for name in columns}
            text = json.loads(content["text"].tobytes())
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    return kept | dict(zip(TEXT, text, strict=True)) | {"problems": [Problem(*p) for p in text[-1]]}
