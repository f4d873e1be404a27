"""What a run was made by: a hash of the code it went through, of the files it started from, versions and machine."""

import ast
import hashlib
import platform
from pathlib import Path

from pydantic import BaseModel, Field

from utils.env import REPO
from utils.errors import UserError
from utils.files import sha256
from utils.run.folder import git_revision, package_versions


class DataMark(BaseModel):
    """A data set as it was."""

    content: str | None = Field(None, description="digest of all pictures and boxes, wherever they lie")
    state: list[str] = Field(
        [], description="what its files looked like, to know without reading that they are the same"
    )
    pictures: int | None = Field(None, description="pictures of train and val")


class Fingerprint(BaseModel):
    """What the runs of a comparison were made by and from; all but git and platform must be equal."""

    code: str | None = Field(None, description="digest of train.py and of all that it imports")
    git: str | None = Field(None, description="the commit, to find the code again")
    threads: int | None = Field(None, description="CPU threads of a run")
    device: str | None = Field(None, description="cpu, or the name of the GPU")
    python: str | None = Field(None, description="the version of Python")
    platform: str | None = Field(None, description="the operating system")
    versions: dict[str, str | None] = Field({}, description="of the installed libraries")
    data: dict[str, DataMark] = Field({}, description="data sets by their yaml")
    weights: dict[str, str | None] = Field({}, description="digests of the weights by their name")


def fingerprint(threads: int, device: str, data: dict[str, DataMark], weights: dict[str, str]) -> Fingerprint:
    """What runs would be made by now."""
    values = {
        "code": code_hash(),
        "git": git_revision(),  # to find the code again; the hash decides
        "threads": threads,
        "device": device,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": package_versions(),
    }
    return Fingerprint(**values, data=data, weights=weights)


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


def digest_of(path: Path) -> str:
    """sha256 of a file that must be there; UserError when it cannot be read."""
    digest = sha256(path)
    if digest == "-":
        raise UserError(f"cannot read {path}. Check that it is there and that you may read it.")
    return digest
