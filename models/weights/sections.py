"""The sections of a Darknet .cfg, as they are written."""

from dataclasses import dataclass, field
from pathlib import Path

from utils.errors import UserError


@dataclass
class Section:
    """A part of the file, [kind] and its options, with the line that it begins at."""

    kind: str
    line: int
    options: dict[str, str] = field(default_factory=dict)


def sections_of(path: Path) -> list[Section]:
    """The parts of a file; UserError naming a line that is neither [kind] nor key=value."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not readable as text ({error}). Copy the cfg again.") from error
    found: list[Section] = []
    for number, line in enumerate(text.splitlines(), 1):
        line = line.partition("#")[0].partition(";")[0].strip()
        key, equals, value = line.partition("=")
        if line.startswith("[") and line.endswith("]"):
            found.append(Section(line[1:-1].strip().lower(), number))
        elif equals and found:
            found[-1].options[key.strip()] = value.strip()
        elif line:
            raise UserError(f"{path}, line {number}: '{line[:80]}' is neither [layer] nor key=value. Correct it.")
    if not found:
        raise UserError(f"{path} is empty. Copy the cfg again.")
    return found
