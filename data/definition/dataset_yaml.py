"""Dataset yaml -> where the pictures of each split are, and the names of the classes."""

import logging
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from data.definition.config import OWN, SPLITS, DatasetConfig
from data.definition.darknet import read_data_file
from data.definition.download import fetch_dataset, is_archive
from data.definition.listed import names_yaml, read_listed, require_common
from data.definition.names import EXAMPLE, count_of, found_names, joined, names_of
from data.definition.places import resolve, resolve_split
from data.definition.safe_yaml import read_yaml
from data.formats.voc_folder import is_devkit
from utils.errors import UserError, suggest

log = logging.getLogger(__name__)
FEW = 1000  # yamls that are looked at for a suggestion
TOY = ("toy-source", "toy-target")  # drawn on first use


def load_dataset_yaml(path: str | Path | None, download: bool = False, above: tuple[Path, ...] = ()) -> DatasetConfig:
    """Read a dataset yaml in ultralytics' layout; relative paths start from the yaml's own folder.

    above: the yamls that list this one.
    """
    if path is None:
        raise UserError(
            "--data is missing: name a dataset yaml (path, train, val, names); data/ holds examples. "
            "To try it out: --hyp demo"
        )
    file = find_yaml(path)
    content = _content_of(file)
    root = resolve(content.get("path") or ".", file.parent, "path", file).absolute()
    names = names_of(content, file)
    if file.stem in TOY and file.parent in OWN and not root.exists():
        from data.toy.draw import draw  # only where it is needed: everybody else starts faster without

        draw(file.stem.removeprefix("toy-"), root)
    content.setdefault("val", content.get("validation"))  # as ultralytics
    if not root.exists() and download and content.get("download"):
        fetch_dataset(str(content["download"]), root)
    if not root.exists() and _lies_beside(file, content):
        log.info(f"{file}: 'path: {content['path']}' is not here; the data beside the yaml are used")
        root = file.parent
    if not root.exists():
        raise UserError(_absent(file, root, content))
    entries = {key: _entries(content.get(key)) for key in SPLITS}
    splits: dict[str, Any] = {
        key: resolve_split([v for v in values if not names_yaml(v)], root, key, file) for key, values in entries.items()
    }
    _refuse_other_tasks(content, splits, file)
    open_yaml = partial(load_dataset_yaml, download=download, above=(*above, file))
    for key, values in entries.items():
        listed = read_listed([v for v in values if names_yaml(v)], key, root, (*above, file), open_yaml)
        splits[key] = [*(splits[key] or []), *listed] or None
    return _named(DatasetConfig(file, root, **splits, names=names or []), content)


def _content_of(file: Path) -> dict[str, Any]:
    """What the file says; a folder in the devkit's layout of VOC says it by itself."""
    if file.is_dir():
        return {"path": str(file), "train": ".", "val": "."}
    return read_data_file(file) if file.suffix.lower() == ".data" else read_yaml(file, text_keys=("names",))


def _lies_beside(file: Path, content: dict[str, Any]) -> bool:
    """Whether `path` is another machine's, and the places of train and val start from the yaml's own folder."""
    if not Path(str(content.get("path"))).is_absolute():
        return False
    names = [name for key in ("train", "val") for name in _entries(content.get(key)) if isinstance(name, str)]
    return bool(names) and all((file.parent / name.replace("\\", "/")).exists() for name in names)


def _entries(value: Any) -> list[Any]:
    """What a split names, as a list."""
    return value if isinstance(value, list) else [] if value in (None, "") else [value]


def _named(config: DatasetConfig, content: dict[str, Any]) -> DatasetConfig:
    """The definition with its class names: given, found in jsons and xmls, or those of the data sets that it lists."""
    listed = [place.config for split in SPLITS for place in config.listed(split)]
    if config.names:
        require_common(config, listed)
        return config
    own = {split: config.own(split) for split in SPLITS}
    names = found_names(own)
    if not names and (any(own.values()) or not listed):
        names = _placeholders(content, config.path)
    names = joined([names, *(other.names for other in listed)])
    if listed and count_of(content, config.path) not in (None, len(names)):
        raise UserError(
            f"{config.path}: nc is {content['nc']}, but there are {len(names)} classes, with those of the data sets "
            "that it lists. Leave nc out."
        )
    return replace(config, names=names)


def _placeholders(content: dict[str, Any], file: Path) -> list[str]:
    """class_0, class_1, ... for a yaml that has nc alone, as ultralytics names them."""
    nc = count_of(content, file)
    if nc is None:
        raise UserError(f"{file} names no classes. {EXAMPLE} Only a COCO json or a VOC folder has names of its own.")
    return [f"class_{k}" for k in range(nc)]


def _refuse_other_tasks(content: dict[str, Any], splits: dict[str, list[Path] | None], file: Path) -> None:
    """What would train, but on something else than the user means."""
    if content.get("channels") not in (None, 1, 3):  # 1: grey pictures are read as three equal channels
        raise UserError(f"{file}: 'channels: {content['channels']}': pictures have three channels here (or one).")
    labels = [place for places in splits.values() for place in places or [] if place.suffix.lower() != ".json"]
    if content.get("kpt_shape") and labels:
        raise UserError(
            f"{file} has 'kpt_shape': its labels are keypoints, whose columns would be taken for polygons. Keep the "
            f"first five columns of every row in a copy of the labels, and leave kpt_shape out."
        )


def find_yaml(path: str | Path) -> Path:
    """The yaml itself, or <name>[.yaml] of data/ or data/toy/ for a bare name, or for one of data/ as it once was.

    Of a folder: the only yaml in it, or the folder itself where it is a VOC devkit.
    """
    given = Path(path).expanduser()
    places = [given]
    if given.parent in (
        Path("."),
        *map(Path, ("data", "data/toy")),
        *OWN,
    ):  # hyp files of older runs say data/toy-target.yaml
        places += [folder / (given.name + suffix) for folder in OWN for suffix in ("", ".yaml")]
    for place in places:
        if place.is_file():
            return place.absolute()
    if given.is_dir():
        return _in_folder(given)
    known = sorted(p.name for folder in OWN for p in folder.glob("*.yaml"))
    looked = ", ".join(str(p.absolute()) for p in places)
    meant = suggest(str(given), _near(given)) or suggest(given.name, known)
    raise UserError(f"dataset yaml '{path}' not found; looked for: {looked}.{meant}")


def _near(given: Path) -> list[str]:
    """Yamls in the folder of a path that leads nowhere or, where that is not there either, in the folders beside it."""
    here, beside = given.parent, given.parent.parent
    there = here.glob("*.y*ml") if here.is_dir() else beside.glob("*/*.y*ml") if beside.is_dir() else ()
    return sorted(map(str, islice(there, FEW)))


def _in_folder(folder: Path) -> Path:
    """What defines the data set in a folder."""
    yamls = sorted(p for p in folder.iterdir() if p.suffix.lower() in (".yaml", ".yml") and p.is_file())
    if len(yamls) == 1:
        return yamls[0].absolute()
    if not yamls and is_devkit(folder):
        return folder.absolute()
    there = "write one for it (path, train, val, names)"
    if yamls:
        there = f"name the one in it that is meant ({', '.join(p.name for p in yamls)})"
    elif xmls := [p for p in (folder / "Annotations", *folder.glob("VOC*/Annotations")) if p.is_dir()]:
        there = f"{xmls[0]} looks like VOC's, but JPEGImages is missing beside it. Put the pictures there, or {there}"
    raise UserError(f"{folder} is a folder, not a dataset yaml: {there}.")


def _absent(file: Path, root: Path, content: dict[str, Any]) -> str:
    message = f"the dataset's folder {root} does not exist ('path: {content.get('path')}' in {file})."
    url = str(content.get("download") or "")
    if is_archive(url):
        return f"{message} Nothing is fetched by itself: add --download, or unpack {url} so that this folder exists."
    if url:
        message += " Its 'download' is a script, which is never run: get the dataset by hand."
    return (
        f"{message} Put the pictures there, or correct 'path': it starts from the yaml's own folder (ultralytics: from "
        f"its datasets folder), and may be absolute."
    )
