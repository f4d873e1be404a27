"""A split is read: every picture's header and label, but for those known already from a stored index."""

import os
import time
import warnings
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import numpy as np

from data.formats.rows import Read
from data.index.columns import Paths, from_columns, to_columns
from data.index.file import IndexFile
from data.index.state import State, stamp_all
from data.index.table import Problems, Table, join, pack
from data.sources.checks import all_background, counted_from_one, written_as_corners
from data.sources.depth import Depth
from data.sources.share import group_of
from data.sources.split import Source
from utils.device.parallel import MOST, do_all

CHUNK = 100  # pictures that a process reads in one go
TICK = 0.02  # seconds; the clock that files are dated by stands still for up to 10 ms


def read_split(source: Source, stored: IndexFile | None, title: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Header and columns of an index; pictures that can be used come first, then those that cannot."""
    time.sleep(TICK)  # else a file that was written just now could change again and keep its time
    state = _look(source)
    known = _known(source, state, stored)
    fresh = np.flatnonzero(known < 0)
    table = _read(source, fresh, title)
    if len(fresh) < len(known):
        before = from_columns(Table, stored.columns)
        known[fresh] = len(before.shapes) + np.arange(len(fresh))
        table = join([before, table]).take(known)
    image_ids, group = np.array(source.image_ids, np.int64), group_of(source.shares)
    if not table.usable.all():
        order = np.argsort(~table.usable, kind="stable")
        table, image_ids, group = table.take(order), image_ids[order], group[order]
        state = state.take(order)
    several = len(source.shares) > 1
    cause = None if several else counted_from_one(table.classes, table.problems, source.names)
    causes = all_background(group[: table.usable.sum()], table.offsets, source.shares) if several else []
    corners = None if several else written_as_corners(table.boxes, table.problems, not source.by_picture)
    problems = Problems.of(([cause] if cause else causes) + ([corners] if corners else []) + source.problems)
    table = replace(
        table,
        problems=Problems.join([problems, table.problems]),
        problem_offsets=table.problem_offsets + len(problems),
    )
    header = {"names": source.names, "category_ids": source.category_ids, "sha256": source.sha256}
    header["usable"] = int(table.usable.sum())
    header["depth"] = asdict(Depth.of(table.tops[: header["usable"]]))
    columns = to_columns(state) | to_columns(table) | {"image_ids": image_ids}
    if any(share.part != 1 for share in source.shares):
        header["shares"] = [(share.name, share.part) for share in source.shares]
        columns["group"] = group
    return header, columns


def _look(source: Source) -> State:
    """The files of a source as they are before they are read."""
    pictures, labels = Paths.of(source.pictures), Paths.of(source.labels)
    watched = np.array(list(source.watched.values()), np.int64).reshape(-1, 2)
    return State(pictures, labels, Paths.of(source.watched), *stamp_all(pictures, labels), watched)


def _known(source: Source, state: State, stored: IndexFile | None) -> np.ndarray:
    """Row of each picture (n,) in the stored index, or -1 where its files, or their folders, are not as they were."""
    known = np.full(len(state.paths), -1, np.int64)
    if stored is None or not source.by_picture:
        return known
    old = from_columns(State, stored.columns)
    then = dict(zip(old.watched, map(tuple, old.watched_stamps.tolist()), strict=True))
    same = {path for path, stamp in source.watched.items() if then.get(path) == stamp}
    changed = set(source.watched) - same  # two files of a folder may have changed places
    rows = {path: row for row, path in enumerate(old.paths)}
    for i, (picture, label) in enumerate(zip(source.pictures, source.labels, strict=True)):
        if os.path.dirname(picture) not in changed and os.path.dirname(label) not in changed:
            known[i] = rows.get(picture, -1)
    found = np.flatnonzero(known >= 0)
    for now, before in ((state.path_stamps, old.path_stamps), (state.label_stamps, old.label_stamps)):
        known[found[(now[found] != before[known[found]]).any(1)]] = -1
        found = np.flatnonzero(known >= 0)
    return known


def _read(source: Source, pictures: np.ndarray, title: str) -> Table:
    """Read some pictures (k,) of a source, by all cores."""
    size = max(CHUNK, -(-len(pictures) // MOST))
    parts = [pictures[start : start + size].tolist() for start in range(0, len(pictures), size)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PIL warns about large pictures and odd EXIF; what is unusable is reported
        return join(do_all([partial(_read_part, source.read, part) for part in parts], title, size))


def _read_part(read: Any, pictures: list[int]) -> Table:
    rows: list[Read] = [read(i) for i in pictures]
    return pack(rows)
