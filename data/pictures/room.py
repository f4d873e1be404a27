"""How much decoded pictures may take, and which old files of them have to go."""

import contextlib
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from utils.errors import UserError
from utils.files import locked

GB = 2**30
FREE = 0.9  # a cache takes no more than this part of what is free


def require_room(size: int, folder: Path, cache: str) -> None:
    """Refuse a cache that would fill the device up."""
    free = shutil.disk_usage(folder).free
    if size > FREE * free:
        other = "off" if cache == "disk" else "disk or --cache off"
        raise UserError(
            f"--cache {cache} needs {size / GB:.1f} GB in {folder}, where {free / GB:.1f} GB are free. "
            f"Use --cache {other}, a smaller imgsz, --cache-gb to keep only a part, or (for disk) another cache folder "
            "by $PREHEAT_CACHE."
        )


def make_room(folder: Path, size: int, limit: int | None, ours: Sequence[Path]) -> None:
    """Remove files of other datasets, the least recently used first: until they take no more than `limit` bytes.

    And until `size` new bytes are free on the disk, where that is possible. ours: files that stay and do not count. A
    run that has a removed file mapped keeps it; a file that is being prepared is left alone.
    """
    for left in folder.glob("*.tmp"):  # by a builder that was killed, if nobody holds the lock
        _remove(left)
    others = {file: file.stat() for file in folder.glob("*.bin") if file not in ours}
    total, free = sum(info.st_size for info in others.values()), shutil.disk_usage(folder).free
    lacking = size - FREE * free if size <= FREE * (free + total) else 0
    if limit is not None:
        lacking = max(lacking, total - limit)
    for file, info in sorted(others.items(), key=lambda item: item[1].st_mtime_ns):
        if lacking > 0 and _remove(file):
            lacking -= info.st_size


def _remove(file: Path) -> bool:
    """Whether the file is gone; one that is being prepared, or that Windows sees mapped, is not."""
    with locked(file.with_name(re.split("[-.]", file.name)[0] + ".lock")) as held:
        if held:
            with contextlib.suppress(OSError):
                file.unlink()
                return True
    return False
