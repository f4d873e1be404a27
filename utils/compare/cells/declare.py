"""What a comparison declares, from the command line or from a file: its cells, and the arms that meet in each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from utils.compare.arms import OWN, Arm, Compare, Words, read_words, resolve_arms
from utils.compare.folder import write_text
from utils.config.schema import Command, Hyp
from utils.config.values import read_yaml
from utils.config.words import is_option
from utils.errors import UserError, suggest

SEVERAL = ("data", "weights")  # options that take several values: a cell for each pair of them
LISTS = ("data", "weights", "cells", "arms", "settings", "sweep", "parts")  # keys of a file that hold more than a value
ABROAD = (
    "jobs",
    "devices",
    "engine",
    "address",
    "run_gpus",
)  # options that say where runs take place: no part of a declaration
DECLARATION = "declaration.yaml"


@dataclass(frozen=True)
class Cell:
    """One place in which the arms meet: data, weights and a value of the swept key."""

    name: str  # of its folder; empty when it is the only one
    group: str  # the name without the value of the sweep
    value: Any  # of the swept key; None without a sweep
    settings: dict[str, Any]  # of this cell alone
    arms: list[Arm]


@dataclass(frozen=True)
class Asked:
    """One comparison, over one cell or several."""

    words: Words
    command: Command
    cells: list[Cell]
    key: str | None  # that is swept
    notes: list[str]

    @property
    def options(self) -> Compare:
        """Of the comparison, as given or by default."""
        return self.words.options

    @property
    def all(self) -> list[tuple[Cell, Arm]]:
        """Every arm of every cell."""
        return [(cell, arm) for cell in self.cells for arm in cell.arms]

    @property
    def first_fold(self) -> dict[str, Any]:
        """The key by which a run trains on the first fold, for its counts; none where a pair is a seed."""
        return {"fold": f"1/{self.options.folds}"} if self.options.folds else {}


def read_asked(argv: Sequence[str]) -> list[Asked]:
    """Command line -> the comparisons it asks for: one, or one for each part of a file. Raises UserError."""
    words = list(argv)
    content: dict[str, Any] = {}
    if words and not is_option(words[0]) and Path(words[0]).suffix.lower() in (".yaml", ".yml"):
        content = _read_file(words.pop(0))
    words, several = _take_several(words)
    parts = content.pop("parts", None)
    if parts is None:
        return [_asked(content, words, several)]
    if not isinstance(parts, dict) or not all(isinstance(part, dict) for part in parts.values()):
        raise UserError("parts: is a list of 'name: declaration' entries, each of them as a file of its own would be.")
    project = f"{content.get('project', Compare.model_fields['project'].default)}/{content.pop('name', 'exp')}"
    return [
        _asked(_laid_over(content, {"project": project} | part | {"name": str(name)}), words, several)
        for name, part in parts.items()
    ]


def _laid_over(content: Mapping[str, Any], part: Mapping[str, Any]) -> dict[str, Any]:
    """A part of a declaration over what all parts share; settings are joined key by key."""
    settings = {**(content.get("settings") or {}), **(part.get("settings") or {})}
    return {**content, **part, "settings": settings}


def _read_file(path: str) -> dict[str, Any]:
    """A declaration file; UserError for a file that is something else."""
    content = read_yaml(Path(path))
    known = {*LISTS, *Compare.model_fields}
    if not isinstance(content, dict) or not content.keys() & (set(LISTS) - {"data", "weights"}):
        hint = f" Did you mean --data {path}?" if isinstance(content, dict) and "names" in content else ""
        raise UserError(f"{path} declares no comparison: it has none of arms, cells, sweep, settings, parts.{hint}")
    unknown = next((str(key) for key in content if key not in known), None)
    if unknown is not None:
        where = " It is a setting of runs: put it under settings." if unknown in Hyp.model_fields else ""
        raise UserError(f"{path}: unknown key '{unknown}'.{where or suggest(unknown, sorted(known))}")
    return content


def _take_several(words: list[str]) -> tuple[list[str], dict[str, list[str]]]:
    """Words without `--data a b` and `--weights a b`, and those lists; one value alone is an ordinary option."""
    rest: list[str] = []
    several: dict[str, list[str]] = {}
    while words:
        word = words.pop(0)
        rest.append(word)
        key = word.removeprefix("--")
        if word == f"--{key}" and key in SEVERAL:
            values = []
            while words and not words[0].startswith("--") and (not values or not is_option(words[0])):
                values.append(words.pop(0))
            if len(values) > 1:
                several[key] = values
                rest.pop()
            else:
                rest += values
    return rest, several


def _asked(content: Mapping[str, Any], argv: list[str], several: Mapping[str, list[Any]]) -> Asked:
    """A comparison from a file's content and a command line, which counts more."""
    places = {key: several.get(key) or _as_list(content.get(key)) for key in SEVERAL}
    given_here = {
        key for key in SEVERAL if any(w == f"--{key}" or w.startswith((f"--{key}=", f"{key}=")) for w in argv)
    }
    places = {key: [] if key in given_here else values for key, values in places.items()}
    line = _as_words(content) + argv
    specs = _specs(places, content.get("cells"), given_here | several.keys())
    words = _with_folds(read_words(line, names_data=any("data" in spec or "weights" in spec for spec in specs)))
    key, values = _sweep(words, specs)
    specs = [(spec, value) for spec in specs for value in values] if key else [(spec, None) for spec in specs]
    notes, cells, command = list(words.notes), [], None
    names = _names([spec for spec, _ in specs])
    for (spec, value), group in zip(specs, names, strict=True):
        own = {k: v for k, v in spec.items() if k != "name"} | ({key: value} if key else {})
        command, arms, more = resolve_arms(words, own)
        label = f"{key}={value}" if key else ""
        name = "-".join(part for part in (group, label) if part)
        cells.append(Cell(_folder_name(name), group, value, own, arms))
        notes += more
    _refuse(words.options, cells)
    return Asked(words, command, cells, key, list(dict.fromkeys(notes)))


def _with_folds(words: Words) -> Words:
    """The same, with as many pairs as there are folds in all deals; UserError for what does not go with folds."""
    options = words.options
    if options.folds is None:
        return words
    pairs = options.folds * options.repeats
    misplaced = [key for key in ("seeds", "max_seeds") if key in words.given_options and getattr(options, key) != pairs]
    own = [key for _, group in words.groups for key in ("fold=", "fold_seed=") if any(w.startswith(key) for w in group)]
    if misplaced or own or words.shared.get("fold"):
        what = f"--{misplaced[0].replace('_', '-')}" if misplaced else "fold"
        raise UserError(
            f"{what} does not go with --folds {options.folds}: a pair is a fold, which gives {pairs} pairs with "
            f"--repeats {options.repeats}. Leave it out."
        )
    return replace(words, options=options.model_copy(update={"seeds": pairs, "max_seeds": None}))


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _as_words(content: Mapping[str, Any]) -> list[str]:
    """Options, settings and arms of a file as the words that would say the same."""
    options = {key: content[key] for key in Compare.model_fields if key in content and key != "sweep"}
    options |= content.get("settings") or {}
    words = [f"--{key}={as_word(value)}" for key, value in options.items()]
    sweep = content.get("sweep")
    if sweep is not None:
        if isinstance(sweep, dict) and len(sweep) == 1 and isinstance(next(iter(sweep.values())), list):
            sweep = "".join(f"{key}={','.join(as_word(v) for v in values)}" for key, values in sweep.items())
        words.append(f"--sweep={sweep}")
    arms = content.get("arms") or {}
    if not isinstance(arms, dict):
        raise UserError("arms: is a list of 'name: settings' entries, as 'warm: {hyp: finetune, warmup_epochs: 1}'.")
    for name, own in arms.items():
        words += ["--arm", str(name)]
        if isinstance(own, dict):
            words += [str(own["hyp"])] if "hyp" in own else []
            words += [f"{key}={as_word(value)}" for key, value in own.items() if key != "hyp"]
        else:
            words += [str(word) for word in _as_list(own)]
    return words


def as_word(value: Any) -> str:
    """A value of YAML as a word of a command line."""
    if isinstance(value, list | dict):
        return yaml.safe_dump(value, default_flow_style=True).strip()
    return (
        {None: "none", True: "true", False: "false"}[value] if value is None or isinstance(value, bool) else str(value)
    )


def _specs(places: Mapping[str, list[Any]], cells: Any, elsewhere: set[str]) -> list[dict[str, Any]]:
    """Settings of every cell but the swept key: those that a file lists, each data set, each weights file, combined.

    elsewhere: keys that the command line gives, so that those of the listed cells do not count.
    """
    if cells is not None and not (isinstance(cells, list) and all(isinstance(cell, dict) for cell in cells)):
        raise UserError("cells: is a list of entries as '{data: bccd.yaml, imgsz: 224}'.")
    listed = [{k: v for k, v in cell.items() if k not in elsewhere} for cell in cells or []] or [{}]
    sides = [[v if isinstance(v, dict) else {key: v} for v in places[key]] or [{}] for key in SEVERAL]
    specs: list[dict[str, Any]] = []
    for cell, *more in product(listed, *sides):
        spec = {**cell, **more[0], **more[1]}
        specs += [spec] if spec not in specs else []
    return specs


def _names(specs: Sequence[Mapping[str, Any]]) -> list[str]:
    """A name for each cell: its own, or what tells it from others; empty when it is the only one."""
    keys = [key for key in SEVERAL if len({str(spec.get(key)) for spec in specs}) > 1]
    return [
        str(spec["name"]) if "name" in spec else "-".join(Path(str(spec[key])).stem for key in keys if key in spec)
        for spec in specs
    ]


def _folder_name(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_.=+" else "_" for c in name)


def _sweep(words: Words, specs: Sequence[Mapping[str, Any]]) -> tuple[str | None, list[Any]]:
    """The swept key and its values; (None, []) without a sweep."""
    text = words.options.sweep
    if text is None:
        return None, []
    key, equals, values = text.partition("=")
    key = key.strip().replace("-", "_")
    found = [yaml.safe_load(f"[{value}]")[0] if value.strip() else None for value in values.split(",")]
    found = [float(v) if isinstance(v, str) and _is_number(v) else v for v in found]
    if not equals or len(found) < 2 or None in found or len(set(map(str, found))) < len(found):
        raise UserError(f"--sweep {text}: name a key and at least two values of it, as lr0=0.001,0.003,0.01.")
    if key not in Hyp.model_fields or key in OWN or key in ("data", "weights", "seed"):
        why = f"{key} is no setting to sweep." if key in Hyp.model_fields else f"there is no key '{key}'."
        raise UserError(f"--sweep {text}: {why}{suggest(key, list(Hyp.model_fields))} Several data sets: --data A B C.")
    for name, own in [*words.groups, *(("a cell", [f"{k}=" for k in spec]) for spec in specs)]:
        if any(word.partition("=")[0].removeprefix("--").replace("-", "_") == key for word in own if "=" in word):
            raise UserError(f"{key} is swept, and {name} gives it, too: leave one of them out.")
    return key, found


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _refuse(options: Compare, cells: Sequence[Cell]) -> None:
    """What several cells, or folds, cannot have."""
    names = [cell.name.casefold() for cell in cells]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"two cells are named '{twice}'. Give each a name: of its own in a declaration file (cells:).")
    if len(cells) > 1 and options.max_seeds is not None and options.max_seeds != options.seeds:
        raise UserError(
            "--max-seeds is for looks at one data set: over several cells the number of seeds is fixed before the "
            "first run (--seeds), and the answer is given once, when all runs have ended."
        )
    if options.repeats > 1 and options.folds is None:
        raise UserError("--repeats goes with --folds K. Other seeds without folds: --seeds.")
    own = next((key for cell in cells for key in ("fold", "fold_seed") if key in cell.settings), None)
    if options.folds and own:
        raise UserError(
            f"{own} does not go with --folds {options.folds}, by which it is given to every run. Remove it."
        )


def declaration(asked: Asked, folder: Path) -> str:
    """The text of declaration.yaml: `python compare.py` with this file repeats the comparison into the same folder."""
    words, options = asked.words, asked.options
    content: dict[str, Any] = {"project": str(folder.parent), "name": folder.name}
    content |= {
        k: v for k, v in options.model_dump().items() if k not in (*ABROAD, *content, "sweep") and v is not None
    }
    content["settings"] = {key: value for key, value in words.shared.items() if key != "noplots"}
    content["arms"] = {name: list(own) for name, own in words.groups}
    if asked.key:
        content["sweep"] = {asked.key: list(dict.fromkeys(cell.value for cell in asked.cells))}
    groups = {cell.group: {k: v for k, v in cell.settings.items() if k != asked.key} for cell in asked.cells}
    if list(groups) != [""]:
        content["cells"] = [{"name": name, **settings} for name, settings in groups.items()]
    again = f"python compare.py {folder / DECLARATION}"
    return f"# Declared before the first run. Again, or further where it stopped: {again}\n" + yaml.safe_dump(
        content, sort_keys=False, allow_unicode=True, default_flow_style=None, width=110
    )


def write_declaration(asked: Asked, folder: Path) -> None:
    """Write declaration.yaml."""
    write_text(folder / DECLARATION, declaration(asked, folder))
