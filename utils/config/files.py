"""Hyp files -> values by today's names: those of Preheat, of YOLOv5 and of ultralytics."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_args

from utils.config.foreign import FOREIGN_KEYS, OLD_VALUES, adapt, origin
from utils.config.schema import Hyp
from utils.config.values import read_yaml
from utils.config.words import CHOICES, TEXTS, read_value, today
from utils.env import REPO
from utils.errors import UserError, suggest


def find_hyp_file(name: str) -> Path:
    """A hyp file as given, or in the repo's hyps/ folder, with or without .yaml."""
    places = [Path(name), REPO / name, REPO / "hyps" / name, REPO / "hyps" / f"{name}.yaml"]
    for path in places:
        if path.is_file():
            return path
    have = sorted(p.name for p in (REPO / "hyps").glob("*.yaml"))
    meant = suggest(Path(name).stem, [Path(file).stem for file in have])
    raise UserError(
        f"no hyp file '{name}': looked at {', '.join(map(str, places))}.{meant} In hyps/: {', '.join(have)}."
    )


def load_hyp_file(
    name: str, keep_gains: bool = False, overridden: Mapping[str, Any] = MappingProxyType({})
) -> tuple[dict[str, Any], list[str]]:
    """Values of a hyp file under today's names, and notes on what it was and what is not used.

    `overridden`: values of the command line, which replace those of the file, so that these harm nobody.
    """
    path = find_hyp_file(name)
    content = read_yaml(path) or {}
    if not isinstance(content, dict):
        raise UserError(f"{path} holds a {type(content).__name__}; a hyp file is a list of 'key: value' lines.")
    fields, notes, values = Hyp.model_fields, [], {}
    project = origin(content)
    gains = [k for k in ("box", "cls") if k in content and k not in overridden]
    if project == "yolov5" and gains and not keep_gains:
        content = content | {"gains": "anchor-based"}  # another network will refuse them: see with_gains
    if project or FOREIGN_KEYS & {str(word) for word in content}:
        nullable = {name for name, field in fields.items() if type(None) in get_args(field.annotation)}
        recipe = overridden.get("recipe", content.get("recipe"))
        content, unused, notes = adapt(content, project, nullable, recipe == "ultralytics")
        notes += [f"of {project or 'YOLOv5 or ultralytics'}, not used here: {', '.join(unused)}"] if unused else []
        if project and "recipe" not in content:
            notes.append(f"names no recipe: preheat's timing, unless you say recipe: {project}, which repeats its own")
    for word, value in content.items():
        try:
            key, text, note = today(str(word), str(value), fields)
        except UserError as e:
            raise UserError(f"{path}: {e}") from e
        notes += [note] if note else []
        plain = isinstance(value, int | float | list) and key == word and key not in TEXTS | CHOICES
        plain = plain and (key, str(value).lower()) not in OLD_VALUES
        values[key] = value if plain else read_value(key, str(text))
    return values, [f"{path.name}: {note}" for note in notes]
