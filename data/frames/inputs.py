"""What --source means: pictures, videos or a camera, with every file that is neither named."""

import glob
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from data.definition.dataset_yaml import load_dataset_yaml
from data.formats.find import SUFFIXES, is_foreign
from data.formats.header import picture_shape
from data.formats.text import NotText, decode_text
from data.sources.split import open_source
from utils.device.parallel import MOST, do_all
from utils.errors import UserError

VIDEOS = {".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm", ".wmv"}
CHUNK = 200  # headers that a process reads in one go


@dataclass(frozen=True)
class Inputs:
    """What there is to detect on."""

    pictures: list[str]  # absolute paths, each once, sorted
    shapes: np.ndarray  # (n, 2) int64 height, width of each picture as seen
    videos: list[str] = field(default_factory=list)
    camera: str | None = None  # its number, or the address of a stream
    skipped: list[tuple[str, str]] = field(default_factory=list)  # (file, why it is not used)
    image_ids: dict[str, int] | None = None  # of a COCO json, by path; None: nobody numbers the pictures
    category_ids: list[int] | None = None  # of a COCO json, one for each class of its yaml


def find_inputs(sources: list[str], split: str = "val", download: bool = False) -> Inputs:
    """A picture, folder, glob, video, list (.txt or - for standard input), dataset yaml, camera number or stream each.

    UserError where nothing is found that can be used, with what was found instead.
    """
    if len(sources) == 1 and (sources[0].isdecimal() or "://" in sources[0]):
        return Inputs([], np.zeros((0, 2), np.int64), camera=sources[0])
    if len(sources) == 1 and sources[0].lower().endswith((".yaml", ".yml")):
        return _split(sources[0], split, download)
    found = [path for source in sources for path in _files(source)]
    files = sorted(dict.fromkeys(os.path.abspath(path) for path in found))
    inputs = _sorted_out(files)
    if not inputs.pictures and not inputs.videos:
        told = "; ".join(f"{path}: {why}" for path, why in inputs.skipped[:5]) or "there is no file"
        raise UserError(f"no picture and no video in {', '.join(sources)} ({told}). Name a picture, folder or video.")
    return inputs


def _split(source: str, split: str, download: bool) -> Inputs:
    """The pictures of a dataset's split, without their labels."""
    config = load_dataset_yaml(source, download)
    listed = open_source(config, split, False)
    if not listed.pictures:
        raise UserError(f"no pictures in {listed.where} ('{split}' of {config.path}).")
    inputs = _sorted_out(list(dict.fromkeys(listed.pictures)))
    if not inputs.pictures:
        raise UserError(f"no picture of '{split}' of {config.path} can be used: {': '.join(inputs.skipped[0])}.")
    if config.listed(split) or not all(place.suffix.lower() == ".json" for place in config.own(split)):
        return inputs
    ids = dict(zip(listed.pictures, map(int, listed.image_ids), strict=True))
    return Inputs(
        inputs.pictures, inputs.shapes, skipped=inputs.skipped, image_ids=ids, category_ids=listed.category_ids
    )


def _files(source: str) -> Iterable[str]:
    """Every file that a source stands for, whatever it is."""
    if source == "-":
        return [line.strip() for line in sys.stdin if line.strip()]
    path = Path(source).expanduser()
    if path.is_dir():
        return _below(path)
    if path.suffix.lower() == ".txt" and path.is_file():
        return _listed(path)
    if path.exists():
        return [str(path)]
    if glob.has_magic(source):
        return (found for found in glob.iglob(str(path), recursive=True) if os.path.isfile(found))
    raise UserError(
        f"source '{source}' does not exist. Name a picture, folder, 'glob*.jpg', video, list.txt, dataset yaml, camera "
        "number, or - for a list on standard input."
    )


def _below(folder: Path) -> Iterator[str]:
    """Every file in a folder and those below, but for folders that hold a program's copies."""
    for at, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not is_foreign(name)]
        yield from (os.path.join(at, name) for name in names)


def _listed(path: Path) -> list[str]:
    """The lines of a list; relative ones start from its folder, or else from the working folder."""
    try:
        text, _ = decode_text(path.read_bytes())
    except (OSError, NotText) as e:
        raise UserError(f"{path} is no list of pictures ({e}). Write a path a line, as UTF-8 text.") from None
    lines = [line.strip() for line in text.splitlines()]
    beside = [(line, os.path.join(path.parent, line)) for line in lines if line and not line.startswith("#")]
    return [there if os.path.exists(there) or not os.path.exists(line) else line for line, there in beside]


def _sorted_out(files: list[str]) -> Inputs:
    """Files by what they are; a picture by its header, a video by its name."""
    skipped, videos, candidates = [], [], []
    for path in files:
        name, suffix = os.path.basename(path), os.path.splitext(path)[1].lower()
        if name.startswith("."):  # written by a system, nobody's picture
            continue
        if suffix in SUFFIXES or (not suffix and len(files) == 1):
            candidates.append(path)
        elif suffix in VIDEOS and os.path.isfile(path):
            videos.append(path)
        else:
            skipped.append((path, "neither a picture nor a video" if os.path.exists(path) else "there is no such file"))
    size = max(CHUNK, -(-len(candidates) // MOST))
    parts = [candidates[start : start + size] for start in range(0, len(candidates), size)]
    heads = [head for part in do_all([partial(_heads, part) for part in parts], "headers", size) for head in part]
    pictures, shapes = [], []
    for path, (shape, why) in zip(candidates, heads, strict=True):
        if shape is None:
            skipped.append((path, why.rstrip(".")))
        else:
            pictures.append(path)
            shapes.append(shape)
    return Inputs(pictures, np.array(shapes, np.int64).reshape(-1, 2), videos, skipped=skipped)


def _heads(paths: list[str]) -> list[tuple[tuple[int, int] | None, str]]:
    return [picture_shape(path) for path in paths]
