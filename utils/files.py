"""Files: written whole, their state and digest, and a lock, which the system lets go of when its holder dies."""

import contextlib
import hashlib
import logging
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # Windows: nobody waits; what is written there must be moved into place whole
    fcntl = None

Stamp = tuple[int, int]  # size, mtime_ns
WAITS = (0.02, 0.1, 0.4)  # seconds before a file that may not be replaced is tried again
log = logging.getLogger(__name__)


def write_whole(path: Path, content: bytes | Callable[[BinaryIO], object], older: Path | None = None) -> None:
    """Write a file so that `path` is at every instant the old file or the new one, also after a loss of power.

    content: bytes, or a function that writes them into the open file. It is written beside the target, flushed to the
    disk and moved over it; what is raised on the way, OSError too, is the caller's to explain, and leaves the old file.
    older: where what `path` was before stays.
    """
    beside = _beside(path)
    try:
        with open(beside, "w+b") as file:
            file.write(content) if isinstance(content, bytes) else content(file)
            file.flush()
            os.fsync(file.fileno())
        if older and path.is_file():
            keep_as(path, older)
        _move(beside, path)
    finally:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)  # there only if writing was cut short


def save_whole(path: Path, content: object, older: Path | None = None) -> None:
    """Write what torch.save makes of `content`, as write_whole does.

    By torch's own function: the one that ultralytics puts in its place tries three times more, after seconds, into the
    file that holds what the first try left.
    """
    from torch.serialization import save  # late: who writes no tensors starts without torch

    try:
        write_whole(path, lambda file: save(content, file), older)
    except RuntimeError as e:  # torch hides what the system said behind an error of its own
        raise (e.__context__ if isinstance(e.__context__, OSError) else e) from None


def write_new(path: Path, content: bytes | Callable[[BinaryIO], object]) -> Path:
    """Write new content of `path` under a name that nobody has open, <stem>-<number>-<random><suffix>; see newest().

    For files that are mapped into memory: Windows lets nobody rename or write over these, and elsewhere who has the old
    one mapped keeps it. Older ones are removed, where the system allows that; where not, the next time.
    """
    number = _family(path)[-1][0] + 1
    new = path.with_name(f"{path.stem}-{number:06d}-{secrets.token_hex(4)}{path.suffix}")
    write_whole(new, content)
    for *_, older in _family(path)[:-1]:
        with contextlib.suppress(OSError):
            older.unlink()
    return newest(path)


def newest(path: Path) -> Path:
    """Where the newest content of `path` lies that write_new has written; `path` itself where that has written none."""
    return _family(path)[-1][-1]


def _family(path: Path) -> list[tuple[int, str, Path]]:
    """The files of write_new for a path, the newest last, as number, name and path; the path itself is number 0."""
    of_family = re.compile(f"{re.escape(path.stem)}-(\\d{{6,}})-[0-9a-f]{{8}}{re.escape(path.suffix)}")
    try:
        found = [
            (int(match[1]), match[0], path.with_name(match[0]))
            for match in map(of_family.fullmatch, os.listdir(path.parent))
            if match
        ]
    except OSError:  # no folder
        found = []
    return [(0, path.name, path), *sorted(found)]


def keep_as(path: Path, other: Path) -> None:
    """Give the file at `path`, which is only ever replaced whole, a second name; a copy where links are not known."""
    beside = _beside(other)
    try:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        try:
            os.link(path, beside)
        except OSError:
            shutil.copyfile(path, beside)
        _move(beside, other)
    finally:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)


def _move(beside: Path, path: Path) -> None:
    """Move a file over another one; a program that has it open for a moment (a scanner, on Windows) is waited for."""
    for wait in (*WAITS, None):
        try:
            os.replace(beside, path)
            return
        except PermissionError:
            if wait is None:
                raise
            time.sleep(wait)


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.{os.getpid()}.tmp")


@contextlib.contextmanager
def locked(path: Path, waiting: str | None = None) -> Iterator[bool]:
    """Hold the lock file `path`, which is gone afterwards; yields whether it is held.

    Where another process holds it: say `waiting` and wait; without such a text go on without it.
    """
    fd = _take(path, waiting) if fcntl else -1
    try:
        yield fd is not None
    finally:
        if fd is not None and fd >= 0:
            with contextlib.suppress(OSError):
                path.unlink()  # while it is held: who waits for this one sees that it is gone, and takes a new one
            os.close(fd)


def _take(path: Path, waiting: str | None) -> int | None:
    """Descriptor of the lock, or None."""
    while True:
        fd = os.open(path, os.O_CREAT | os.O_RDWR, 0o666)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if waiting is None:
                    os.close(fd)
                    return None
                log.info(waiting)
                fcntl.flock(fd, fcntl.LOCK_EX)
        except BaseException:
            os.close(fd)
            raise
        if _is_at(fd, path):
            return fd
        os.close(fd)


def _is_at(fd: int, path: Path) -> bool:
    """Whether the open file is still the one at `path`."""
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False


def hold(path: Path) -> int | None:
    """Descriptor of a lock on the file `path`, or None where another process has it; closing it lets go.

    The end of this process, however it comes, lets go too; unlike `locked`, its forks have no part in it.
    """
    fd = os.open(path, os.O_CREAT | os.O_RDWR, 0o666)
    try:
        if fcntl:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # EACCES or EAGAIN, by the system
        os.close(fd)
        return None
    os.ftruncate(fd, 0)
    os.write(fd, str(os.getpid()).encode())
    return fd


def sha256(path: str | Path) -> str:
    """The digest of a file's content; '-' where there is none to read."""
    try:
        with open(path, "rb") as f:
            return hashlib.file_digest(f, "sha256").hexdigest()
    except OSError:
        return "-"


def stamp(path: str | bytes | Path, folder: int | None = None) -> Stamp:
    """Size and mtime_ns of a file; (-1, -1) where there is none. folder: an open one that the path starts from."""
    try:
        info = os.stat(path, dir_fd=folder)
    except OSError:
        return -1, -1
    return info.st_size, info.st_mtime_ns
