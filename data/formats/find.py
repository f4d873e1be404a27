"""Files of a split: which pictures there are, where their labels lie, and which files are neither."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from data.formats.rows import Problem
from data.formats.text import NotText, decode_text
from utils.errors import UserError, suggest
from utils.files import Stamp, stamp

SUFFIXES = {
    ".avif", ".bmp", ".dng", ".gif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".mpo", ".pbm", ".pgm", ".png", ".pnm",
    ".ppm", ".tif", ".tiff", ".webp",
}  # fmt: skip
UNREAD = {  # pictures too, but no decoder that is installed here reads them
    ".arw", ".cr2", ".cr3", ".exr", ".hdr", ".heic", ".heif", ".jxl", ".nef", ".orf", ".psd", ".raf", ".rw2", ".svg",
    ".tga",
}  # fmt: skip
SHOWN = 20  # lines of a list that are named one by one


def find_pictures(
    sources: list[Path], root: Path, watched: dict[str, Stamp] | None = None, problems: list[Problem] | None = None
) -> list[str]:
    """Absolute paths of all pictures of a split, sorted, each once; sources: folders, .txt lists, pictures.

    watched: takes up every folder and list that was read, as it was just before. problems: takes up what was found and
    is not used.
    """
    watched = {} if watched is None else watched
    problems = [] if problems is None else problems
    found: set[str] = set()
    for source in sources:
        if source.is_dir():
            unread: Counter[str] = Counter()
            found.update(_walk(str(source), watched, unread))
            for suffix, count in sorted(unread.items()):
                why = "which nothing installed here reads"
                text = f"{count} files end with {suffix}, {why}; they are not used. Convert them."
                problems.append(Problem(str(source), None, text, "file"))
        elif source.suffix.lower() == ".txt" and source.is_file():
            found.update(_read_list(source, root, watched, problems))
        elif source.suffix.lower() in SUFFIXES and source.is_file():
            found.add(str(source))
        else:
            raise UserError(
                f"{source} does not exist (or is neither a folder, a .txt list, nor a picture). Correct train/val/test "
                f"or 'path' in the dataset yaml; relative paths start from {root}.{_meant(source)}"
            )
    return sorted(found)


def _meant(absent: Path) -> str:
    """A suggestion where something with a name like it lies there, as of another case: Windows takes both for one."""
    there = os.listdir(absent.parent) if absent.parent.is_dir() else []
    return suggest(absent.name, sorted(there))


def is_foreign(folder: str) -> bool:
    """Whether a folder of this name inside one of pictures holds a program's copies: Jupyter's, Synology's, macOS's."""
    return folder.startswith(".") or folder in ("@eaDir", "__MACOSX")


def _walk(folder: str, watched: dict[str, Stamp], unread: Counter[str], above: tuple[str, ...] = ()) -> Iterator[str]:
    """Pictures of a folder and all below; a link back to a folder above is not followed. `unread` counts by suffix."""
    real = os.path.realpath(folder)
    if real in above:
        return
    watched[folder] = stamp(folder)  # before it is read: what comes later is noticed next time
    parent, folders, files = next(os.walk(folder), (folder, [], []))  # nothing where it may not be read
    for name in files:
        if name.startswith("._"):  # written by macOS
            continue
        suffix = os.path.splitext(name)[1].lower()
        if suffix in SUFFIXES:
            yield os.path.join(parent, name)
        elif suffix in UNREAD:
            unread[suffix] += 1
    for name in folders:
        if is_foreign(name):
            continue
        yield from _walk(os.path.join(parent, name), watched, unread, (*above, real))


def _read_list(path: Path, root: Path, watched: dict[str, Stamp], problems: list[Problem]) -> Iterator[str]:
    """Pictures of a .txt list; relative lines start from the list's folder, or else from the dataset's root.

    A line that starts with data/, as darknet writes them from its own folder, is also looked for without it.
    """
    watched[str(path)] = stamp(path)
    try:
        text, _ = decode_text(path.read_bytes())
    except (OSError, NotText) as e:
        raise UserError(f"{path} is no list of pictures ({e}). Write a path a line, as UTF-8 text.") from None
    found: list[Problem] = []
    stripped = 0  # lines that are there only without data/
    for number, line in enumerate(text.splitlines(), 1):
        entry = line.strip().replace("\\", "/")
        if not entry or entry.startswith("#"):
            continue
        why = _no_path(entry)
        if why:
            found.append(Problem(str(path), number, f"{why}: {entry[:60]}. Write the path of a picture alone.", "row"))
            continue
        beside = os.path.normpath(path.parent / entry)
        short = os.path.normpath(root / entry.removeprefix("data/"))
        if os.path.exists(beside):
            yield beside
        elif entry.startswith("data/") and not os.path.exists(root / entry) and os.path.exists(short):
            stripped += 1
            yield short
        else:
            above = os.path.dirname(beside)  # where it may appear
            watched.setdefault(above, stamp(above))
            yield os.path.normpath(root / entry)
    problems += found[:SHOWN]
    if len(found) > SHOWN:
        text = f"{len(found) - SHOWN} more lines are no path of a picture."
        problems.append(Problem(str(path), None, text, "file"))
    if stripped:
        text = f"{stripped} lines start with data/, as darknet writes them; they are found in {root} without it."
        problems.append(Problem(str(path), None, text, "remark"))


def _no_path(entry: str) -> str:
    """Why a line of a list is no path of a picture; empty when it is one."""
    if os.path.splitext(entry)[1].lower() in SUFFIXES:
        return ""
    if entry[0] in "\"'" and entry[-1] == entry[0]:
        return "a path in quotes is not used"
    if any(os.path.splitext(word)[1].lower() in SUFFIXES for word in entry.split()[:1]):
        return "there is more than a path, and the line is not used; boxes stand in label files"
    return "a line that ends with no suffix of a picture is not used"


def label_path(picture: str) -> str:
    """.../images/a/b.jpg -> .../labels/a/b.txt: the last folder `images` counts; without one, beside the picture."""
    stem = os.path.splitext(picture)[0] + ".txt"
    before, found, after = stem.rpartition(f"{os.sep}images{os.sep}")
    return f"{before}{os.sep}labels{os.sep}{after}" if found else stem
