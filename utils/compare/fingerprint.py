"""What a run was made by: a hash of the code it went through, of the files it started from, versions and machine."""

import ast
import hashlib
import platform
from pathlib import Path
from typing import Any

from utils.env import REPO
from utils.run.folder import git_revision, package_versions


def fingerprint(threads: int, device: str) -> dict[str, Any]:
    """Everything that must be equal for two runs to be comparable, but for their settings, weights and data."""
    return {
        "code": code_hash(),
        "git": git_revision(),  # to find the code again; the hash decides
        "threads": threads,
        "device": device,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": package_versions(),
    }


def code_hash(script: str = "train.py") -> str:
    """sha256 of a script and of every module of ours that it imports, directly or not."""
    content = hashlib.sha256()
    for path in sorted(reached(REPO / script)):
        content.update(str(path.relative_to(REPO)).encode() + b"\0" + path.read_bytes() + b"\0")
    return content.hexdigest()


def reached(script: Path) -> set[Path]:
    """The script and the files of our modules that it imports, found by parsing, also inside functions."""
    found, todo = set(), [script]
    while todo:
        path = todo.pop()
        if path in found:
            continue
        found.add(path)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            else:
                continue
            modules = [REPO.joinpath(*name.split(".")).with_suffix(".py") for name in names]
            todo += [module for module in modules if module.is_file()]
    return found
