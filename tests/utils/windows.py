"""What Windows forbids, for a test on Linux: a file that is mapped into memory is neither replaced nor removed."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

MAPS = Path("/proc/self/maps")


def is_mapped(path: object) -> bool:
    """Whether this process has a file mapped, as the kernel says."""
    name = os.path.realpath(os.fspath(path))
    return any(line.endswith(name) for line in MAPS.read_text().splitlines())


def forbid_as_windows_does(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """From here on the system refuses as Windows does; the list takes up what was refused."""
    if not MAPS.exists():
        pytest.skip("only Linux tells what is mapped")
    refused: list[str] = []

    def forbidding(call: Callable, which: int) -> Callable:
        def forbidden(*args: object, **more: object) -> object:
            if is_mapped(args[which]):
                refused.append(os.fspath(args[which]))
                raise PermissionError(errno.EACCES, "a file with a mapped section open", args[which])
            return call(*args, **more)

        return forbidden

    for name, which in (("replace", 1), ("rename", 1), ("unlink", 0), ("remove", 0)):
        monkeypatch.setattr(os, name, forbidding(getattr(os, name), which))
    return refused
