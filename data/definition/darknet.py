"""A .data file of Darknet -> the mapping that a dataset yaml would hold."""

from pathlib import Path
from typing import Any

from data.formats.text import NotText, decode_text
from utils.errors import UserError

MOST = 2**20  # bytes of a .data file or of a list of names
SPLITS = {"train": "train", "valid": "val", "test": "test"}


def read_data_file(file: Path) -> dict[str, Any]:
    """`train`, `valid` and `names` of a file of `key = value` lines, each found where Darknet, or CVAT, means it to be.

    `classes` has to be the number of names; what belongs to training (backup, eval) is left alone.
    """
    pairs = [line.partition("=")[::2] for line in _lines(file) if "=" in line and not line.startswith("#")]
    told = {key.strip(): value.strip() for key, value in pairs}
    if not told.keys() & SPLITS.keys() or "names" not in told:
        raise UserError(
            f"{file} has no line 'train = list.txt', or none 'names = obj.names', as Darknet's .data files have."
        )
    content: dict[str, Any] = {SPLITS[key]: str(_find(told[key], file)) for key in SPLITS.keys() & told.keys()}
    content["names"] = [line for line in _lines(_find(told["names"], file)) if line]
    return content | ({"nc": int(told["classes"])} if told.get("classes", "").isdecimal() else {})


def _find(value: str, file: Path) -> Path:
    """A path of the file: from its folder, from the one above (data/obj.data says data/train.txt), or beside it."""
    written = Path(value.replace("\\", "/"))
    places = [file.parent / written, file.parent.parent / written, file.parent / written.name]
    return next((place for place in places if place.exists()), places[0])


def _lines(file: Path) -> list[str]:
    try:
        if file.stat().st_size > MOST:
            raise NotText(f"more than {MOST // 2**20} MB")
        return [line.strip() for line in decode_text(file.read_bytes())[0].splitlines()]
    except (OSError, NotText) as e:
        raise UserError(f"{file} cannot be read ({e}). Correct its path in the .data file, or write a yaml.") from None
