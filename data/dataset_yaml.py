"""Dataset yaml -> where the pictures of each split are, and the names of the classes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from data.download import fetch_dataset
from utils.config import suggest
from utils.env import REPO, cache_dir
from utils.errors import UserError

TOY = ("toy-source", "toy-target")  # drawn on first use


@dataclass(frozen=True)
class DatasetConfig:
    """A dataset yaml, paths resolved; a split is a list of folders, .txt lists or one COCO json, or None."""

    path: Path  # the yaml
    root: Path
    train: list[Path] | None
    val: list[Path] | None
    test: list[Path] | None
    names: list[str]


def load_dataset_yaml(path: str | Path | None, download: bool = False) -> DatasetConfig:
    """Read a dataset yaml in ultralytics' layout; relative paths start from the yaml's own folder."""
    if path is None:
        raise UserError("--data is missing: name a dataset yaml (path, train, val, names); data/ holds examples.")
    file = find_yaml(path)
    content = _read(file)
    text = str(content.get("path") or "").replace("\\", "/").replace("${cache}", cache_dir().as_posix())
    root = Path(file.parent, Path(text).expanduser()).absolute()
    names = _names(content, file)
    if file.stem in TOY and file.parent == REPO / "data" and not root.exists():
        from data.toy import draw  # only where it is needed: everybody else starts faster without

        draw(file.stem.removeprefix("toy-"), root)
    splits = {key: _split(content.get(key), root, key, file) for key in ("train", "val", "test")}
    if not root.exists() and content.get("download") and download:
        fetch_dataset(str(content["download"]), root)
    if not root.exists():
        raise UserError(_absent(file, root, content.get("download")))
    return DatasetConfig(file, root, splits["train"], splits["val"], splits["test"], names)


def find_yaml(path: str | Path) -> Path:
    """The yaml itself, or data/<name>[.yaml] of this repo for a bare name."""
    given = Path(path).expanduser()
    places = [given]
    if given.parent == Path("."):
        places += [REPO / "data" / given.name, REPO / "data" / f"{given.name}.yaml"]
    for place in places:
        if place.is_file():
            return place.absolute()
    known = sorted(p.name for p in (REPO / "data").glob("*.yaml"))
    looked = ", ".join(str(p.absolute()) for p in places)
    raise UserError(f"dataset yaml '{path}' not found; looked for: {looked}.{suggest(given.name, known)}")


def _read(file: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8-sig"))
    except (yaml.YAMLError, UnicodeDecodeError) as e:
        raise UserError(f"{file} is not a readable yaml: {e}") from None
    if not isinstance(content, dict):
        raise UserError(f"{file} must hold 'train', 'val' and 'names'; it holds {type(content).__name__}.")
    return content


def _names(content: dict[str, Any], file: Path) -> list[str]:
    """Class names by id, from a list or a dict of id: name."""
    names = content.get("names")
    if isinstance(names, dict):
        try:
            by_id = {int(key): value for key, value in names.items()}
        except (TypeError, ValueError):
            raise UserError(
                f"{file}: the keys of 'names' must be class ids 0, 1, ...; found {list(names)[:5]}."
            ) from None
        if sorted(by_id) != list(range(len(by_id))):
            raise UserError(
                f"{file}: the ids of 'names' must be 0 to {len(names) - 1} without gaps: {sorted(by_id)[:20]}."
            )
        names = [by_id[k] for k in range(len(by_id))]
    if not isinstance(names, list) or not names:
        raise UserError(f"{file} names no classes. Write 'names: [first, second]' or 'names: {{0: first, 1: second}}'.")
    names = [str(name) for name in names]
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise UserError(f"{file}: 'names' has {twice} more than once. Give each class a name of its own.")
    if content.get("nc") not in (None, len(names)):
        raise UserError(
            f"{file}: nc is {content['nc']}, but 'names' has {len(names)}. Correct one; nc may be left out."
        )
    return names


def _split(value: Any, root: Path, key: str, file: Path) -> list[Path] | None:
    if value is None or value == "" or value == []:
        return None
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(v, str) for v in values):
        raise UserError(f"{file}: '{key}' must be a path or a list of paths, not {value!r}.")
    expanded = (v.replace("\\", "/").replace("${cache}", cache_dir().as_posix()) for v in values)
    return [root / Path(v).expanduser() for v in expanded]


def _absent(file: Path, root: Path, url: Any) -> str:
    message = f"the dataset's folder {root} does not exist ('path' in {file})."
    if url:
        return f"{message} Nothing is fetched by itself: add --download, or unpack {url} so that this folder exists."
    return f"{message} Put the pictures there, or correct 'path' (relative to the yaml's own folder)."
