"""Names on the command line -> files: weights that are on disk (or, when asked, downloaded) and model yamls."""

import difflib
import logging
import re
from pathlib import Path
from typing import Any

import ultralytics
import yaml
from ultralytics.utils.downloads import GITHUB_ASSETS_NAMES, safe_download

from utils.env import cache_dir, weight_places
from utils.errors import UserError

YAML_SUFFIXES = (".yaml", ".yml")
ZOO = Path(ultralytics.__file__).parent / "cfg" / "models"
CLASSIC = Path(__file__).parents[1] / "anchor"  # the yamls of YOLOv5 and YOLOv3
CLASSIC_NAME = re.compile(r"yolov(?:(?P<v5>5[nsmlx]?)(?P<p6>6)?|(?P<v3>3(?:-spp)?))(?P<u>u)?\.ya?ml")
ASSETS_URL = "https://github.com/ultralytics/assets/releases/download/v8.4.0"
log = logging.getLogger(__name__)


def find_weights(weights: str, download: bool = False) -> Path:
    """Absolute path of a .pt or model .yaml; an official name is downloaded into the cache folder when `download`.

    The folder of a run stands for its weights/best.pt.
    """
    folder = Path(weights).expanduser()
    if folder.is_dir() and (best := _best_in(folder)):
        return best.absolute()
    if not folder.is_dir() and not folder.suffix:
        raise UserError(f"weights '{weights}' have no suffix. Name a .pt checkpoint or a model .yaml, e.g. yolo11n.pt.")
    places = weight_places(weights)
    for path in places:
        if path.is_dir():
            raise UserError(f"weights {path} is a folder without weights/best.pt. Name the .pt file.")
        if path.is_file():
            return path.absolute()
    if Path(weights).suffix in YAML_SUFFIXES:
        return _zoo_yaml(weights)
    if download:
        return _download(weights)
    raise UserError(_not_found(weights, places))


def find_file(name: str) -> Path:
    """Absolute path of an exported file or folder, looked for where weights are."""
    places = weight_places(name)
    for path in places:
        if path.exists():
            return path.absolute()
    raise UserError(_not_found(name, places))


def _best_in(folder: Path) -> Path | None:
    """The weights that a folder stands for: its best.pt, or the only .pt in it."""
    for path in (folder / "weights/best.pt", folder / "best.pt"):
        if path.is_file():
            return path
    files = sorted(folder.glob("*.pt"))
    return files[0] if len(files) == 1 else None


def read_model_yaml(path: Path) -> dict[str, Any]:
    """The dictionary of a model .yaml with its scale letter: that of the file name, else the first one it offers."""
    asked = Path(path)
    file = asked if asked.is_file() else _classic_file(asked.name) or _zoo_file(asked.name)
    try:
        model_yaml = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{file} is not a readable yaml: {error}. Correct it, or name a .pt checkpoint.") from error
    if not isinstance(model_yaml, dict):
        raise UserError(f"{file} holds no model: a mapping with 'nc', 'backbone' and 'head' was expected.")
    scales = model_yaml.get("scales") or {}
    letter = re.search(r"yolov?\d+([a-z])", asked.stem)
    if isinstance(scales, dict) and scales:
        model_yaml["scale"] = letter[1] if letter and letter[1] in scales else next(iter(scales))
    model_yaml["yaml_file"] = asked.name
    return model_yaml


def zoo_yamls() -> dict[str, Path]:
    """File name -> path of every model yaml that the installed ultralytics brings."""
    return {path.name: path for path in sorted(ZOO.rglob("*.yaml"))}


def _classic_file(name: str) -> Path | None:
    """Our own yaml of an anchor-based network: yolov5n.yaml, yolov5n6.yaml, yolov3.yaml, yolov3-spp.yaml.

    ultralytics gives these names to anchor-free variants, which are yolov5nu.yaml and yolov3-sppu.yaml here, as their
    weights are yolov5nu.pt.
    """
    match = CLASSIC_NAME.fullmatch(name)
    if not match or match["u"]:
        return None
    stem = f"yolov{match['v3']}" if match["v3"] else "yolov5-p6" if match["p6"] else "yolov5"
    return CLASSIC / f"{stem}.yaml"


def _without_u(name: str) -> str:
    """yolov5nu.yaml -> yolov5n.yaml, as ultralytics calls it."""
    match = CLASSIC_NAME.fullmatch(name)
    return re.sub(r"u(\.ya?ml)$", r"\1", name) if match and match["u"] and not match["p6"] else name


def _without_scale(name: str) -> str:
    """yolov8n-p2.yaml -> yolov8-p2.yaml"""
    return re.sub(r"(\d+)[nslmx]((?:-.+)?\.ya?ml)$", r"\1\2", name)


def _zoo_file(name: str) -> Path:
    zoo, name = zoo_yamls(), _without_u(name)
    return zoo[name] if name in zoo else zoo[_without_scale(name)]


def _zoo_yaml(weights: str) -> Path:
    """A name of ultralytics' own yamls, scale letter included; the path keeps the asked name, for its scale."""
    zoo, name = zoo_yamls(), Path(weights).name
    if name == weights and (classic := _classic_file(name)):
        log.info(f"{name} is anchor-based, as yolov5n.pt is; ultralytics' anchor-free variant has a u: yolov5nu.yaml")
        return classic.with_name(name)
    if name == weights and not {_without_u(name), _without_scale(_without_u(name))}.isdisjoint(zoo):
        return _zoo_file(name).with_name(name)
    close = difflib.get_close_matches(_without_scale(name), zoo, n=3)
    hint = f" Did you mean {', '.join(close)}?" if close else ""
    places = ", ".join(str(place) for place in weight_places(weights))
    raise UserError(f"model yaml '{weights}' is not a file (looked at {places}) nor one of ultralytics' own.{hint}")


def _not_found(weights: str, places: list[Path]) -> str:
    looked = "; ".join(str(place) for place in places)
    name = Path(weights).name
    if name in GITHUB_ASSETS_NAMES:
        return f"weights '{weights}' are not on disk. Looked for: {looked}. Put the file there, or add --download."
    here = sorted(path.name for path in places[0].parent.glob("*.pt")) if places[0].parent.is_dir() else []
    beside = difflib.get_close_matches(name, here, n=3, cutoff=0.4)
    close = difflib.get_close_matches(name, GITHUB_ASSETS_NAMES, n=3)
    hint = f" Official names close to it: {', '.join(close)}." if close else ""
    hint = f" In {places[0].parent}: {', '.join(beside)}." if beside else hint
    return f"weights '{weights}' are not on disk. Looked for: {looked}. Correct the path.{hint}"


def _download(weights: str) -> Path:
    """Fetch an official asset of ultralytics into the cache folder; any other name is refused."""
    name = Path(weights).name
    if name != weights or name not in GITHUB_ASSETS_NAMES:
        close = difflib.get_close_matches(name, GITHUB_ASSETS_NAMES, n=3)
        hint = f" Did you mean {', '.join(close)}?" if close else ""
        raise UserError(f"'{weights}' is not an official ultralytics name: --download fetches only those.{hint}")
    folder = cache_dir() / "weights"
    folder.mkdir(parents=True, exist_ok=True)
    log.info("downloading %s into %s", name, folder)
    part = folder / f"{name}.part"
    try:
        safe_download(url=f"{ASSETS_URL}/{name}", file=part, unzip=False, min_bytes=1e5)
    except (OSError, RuntimeError) as error:
        raise UserError(f"{name} could not be downloaded from {ASSETS_URL}: {error}. Fetch it by hand.") from error
    return part.replace(folder / name)
