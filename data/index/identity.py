"""Which data a run was made with: a hash of the content of training and evaluation pictures and their boxes."""

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data.definition.config import DatasetConfig
from data.index.build import is_current
from data.index.copies import content_digests
from data.index.index import Index, build_index
from utils.errors import UserError


@dataclass(frozen=True, eq=False)
class Identity:
    """A dataset as it was when it was looked at."""

    content: str  # sha256; the same for a copy in another place
    state: list[str]  # key of the index of each split: the same as long as no file is touched
    indexes: dict[str, Index]  # train, val

    def unchanged(self) -> bool:
        """Whether no picture and no label was touched since."""
        return all(index.file is None or is_current(index.file) for index in self.indexes.values())


def identify(config: DatasetConfig, known: dict | None = None, splits: Sequence[str] = ("train", "val")) -> Identity:
    """The identity of a dataset. `known`: {"state", "content"} of an earlier look, which saves reading all pictures."""
    indexes = {split: build_index(config, split) for split in splits}
    state = [index.file.key if index.file else "" for index in indexes.values()]
    if known and all(state) and known["state"] == state:
        return Identity(known["content"], state, indexes)
    content = hashlib.sha256()
    roots = sorted({str(root) for root in config.roots()}, key=len, reverse=True)
    for split, index in indexes.items():
        content.update(repr([split, index.names, index.category_ids, index.n]).encode())
        for path, digest in zip(index.paths, content_digests(list(index.paths)), strict=True):
            content.update(_relative(path, roots) + b"\0" + (digest or b"gone"))
        for name in ("shapes", "boxes", "classes", "crowd", "offsets", "image_ids"):
            content.update(np.ascontiguousarray(getattr(index, name)))
        if index.parts:
            content.update(repr(index.parts.shares).encode() + index.parts.group.tobytes())
    return Identity(content.hexdigest(), state, indexes)


def require_unchanged(identities: dict[str, Identity]) -> None:
    """UserError when a file of a dataset was touched since the comparison began."""
    changed = [data for data, identity in identities.items() if not identity.unchanged()]
    if changed:
        raise UserError(
            f"{changed[0]} has changed since this comparison began: later runs would see other data than earlier ones. "
            "The finished runs are kept; undo the change and repeat the command, or repeat it to begin anew."
        )


def traits(roots: Iterable[Path], train: Index, val: Index, also: Index | None = None) -> dict[str, Any]:
    """What a run remembers of its data: class names, and of each split its size and digests of files and labels.

    Pictures are told by their place inside the data sets' folders `roots` and by their shape, not read: this costs
    nothing, a moved dataset is the same, and a picture exchanged for another of its name and shape goes unnoticed.
    """
    found: dict[str, Any] = {"names": list(train.names)}
    if train.parts:
        found["train parts"] = [f"{n} x {s:g}" for n, s in zip(train.parts.sizes(), train.parts.shares, strict=True)]
    folders = sorted({str(root) for root in roots}, key=len, reverse=True)
    for split, index in (("train", train), ("val", val), *([("val_also", also)] if also else [])):
        folders = [os.path.commonpath(also.paths)] if index is also else folders  # the last one: another data set
        files, labels = hashlib.sha256(), hashlib.sha256()
        for path in index.paths:
            files.update(_relative(path, folders) + b"\0")
        files.update(np.ascontiguousarray(index.shapes))
        for name in ("boxes", "classes", "crowd", "offsets"):
            labels.update(np.ascontiguousarray(getattr(index, name)))
        found |= {f"{split} pictures": index.n, f"{split} boxes": len(index.boxes)}
        found |= {f"{split} files": files.hexdigest(), f"{split} labels": labels.hexdigest()}
    return found


def _relative(path: str, roots: list[str]) -> bytes:
    """A path inside a data set's folder as seen from the first of `roots` that has it: the same in every copy."""
    root = next((root for root in roots if path.startswith(os.path.join(root, ""))), None)
    return os.fsencode(path if root is None else os.path.relpath(path, root))
