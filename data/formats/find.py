"""Files of a split: which pictures there are, and where their labels lie."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from data.formats.text import NotText, decode_text
from utils.errors import UserError
from utils.files import Stamp, stamp

SUFFIXES = {".avif", ".bmp", ".dng", ".gif", ".jp2", ".jpeg", ".jpg", ".mpo", ".png", ".tif", ".tiff", ".webp"}
R = TypeVar("R")


def find_pictures(sources: list[Path], root: Path, watched: dict[str, Stamp] | None = None) -> list[str]:
    """Absolute paths of all pictures of a split, sorted, each once; sources: folders, .txt lists, pictures.

    watched: takes up every folder and list that was read, as it was just before.
    """
    watched = {} if watched is None else watched
    found: set[str] = set()
    for source in sources:
        if source.is_dir():
            found.update(_walk(str(source), watched))
        elif source.suffix.lower() == ".txt" and source.is_file():
            found.update(_read_list(source, root, watched))
        elif source.suffix.lower() in SUFFIXES and source.is_file():
            found.add(str(source))
        else:
            raise UserError(
                f"{source} does not exist (or is neither a folder, a .txt list, nor a picture). Correct train/val/test "
                f"or 'path' in the dataset yaml; relative paths start from {root}."
            )
    return sorted(found)


def _walk(folder: str, watched: dict[str, Stamp], above: tuple[str, ...] = ()) -> Iterator[str]:
    """Pictures of a folder and all below; a link back to a folder above is not followed."""
    real = os.path.realpath(folder)
    if real in above:
        return
    watched[folder] = stamp(folder)  # before it is read: what comes later is noticed next time
    parent, folders, files = next(os.walk(folder), (folder, [], []))  # nothing where it may not be read
    for name in files:
        if os.path.splitext(name)[1].lower() in SUFFIXES and not name.startswith("._"):  # ._x: written by macOS
            yield os.path.join(parent, name)
    for name in folders:
        yield from _walk(os.path.join(parent, name), watched, (*above, real))


def _read_list(path: Path, root: Path, watched: dict[str, Stamp]) -> Iterator[str]:
    """Pictures of a .txt list; relative lines start from the list's folder, or else from the dataset's root."""
    watched[str(path)] = stamp(path)
    try:
        text, _ = decode_text(path.read_bytes())
    except (OSError, NotText) as e:
        raise UserError(f"{path} is no list of pictures ({e}). Write a path a line, as UTF-8 text.") from None
    for line in text.splitlines():
        entry = line.strip().replace("\\", "/")
        if entry and os.path.splitext(entry)[1].lower() in SUFFIXES:
            beside = os.path.normpath(path.parent / entry)
            if os.path.exists(beside):
                yield beside
            else:
                above = os.path.dirname(beside)  # where it may appear
                watched.setdefault(above, stamp(above))
                yield os.path.normpath(root / entry)


def label_path(picture: str) -> str:
    """.../images/a/b.jpg -> .../labels/a/b.txt: the last folder `images` counts; without one, beside the picture."""
    stem = os.path.splitext(picture)[0] + ".txt"
    before, found, after = stem.rpartition(f"{os.sep}images{os.sep}")
    return f"{before}{os.sep}labels{os.sep}{after}" if found else stem
