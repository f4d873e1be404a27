"""An exported file as a detector that val.py, detect.py and the comparison with PyTorch use like any other."""

import json
import logging
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor, nn

from models.detector import AsItIs, load_for_eval
from models.inference.export.extra import extra
from models.inference.export.metadata import Metadata, understand
from models.weights.find import find_file
from utils.errors import UserError

log = logging.getLogger(__name__)
Run = Callable[[Tensor], Tensor]  # pictures (b, 3, h, w) float32 in 0..1 -> the file's output


class Exported(AsItIs):
    """What a file computes, with what it says of itself; where it takes a fixed number of pictures, groups of them."""

    def __init__(self, run: Run, told: Metadata):
        super().__init__()
        self.run = run
        self.names, self.stride = dict(enumerate(told.names)), torch.tensor([float(told.stride)])
        self.args, self.thresholds, self.end2end = told.trained, told.thresholds, told.end2end
        self.fixed, self.told = told.fixed, told

    def forward(self, images: Tensor) -> Tensor:
        if self.fixed is None:
            return self.run(images)
        outputs = []
        for part in images.split(self.fixed[0]):
            lacking = self.fixed[0] - len(part)
            whole = torch.cat((part, part.new_zeros(lacking, *part.shape[1:]))) if lacking else part
            outputs.append(self.run(whole)[: len(part)])
        return torch.cat(outputs)


def open_weights(weights: str, download: bool = False) -> nn.Module:
    """The detector of a checkpoint, or of an .onnx, .torchscript or OpenVINO folder, as load_for_eval gives it."""
    kind = kind_of(weights)
    if kind is None:
        return load_for_eval(weights, download)
    path = find_file(weights)
    return {"onnx": _open_onnx, "torchscript": _open_torchscript, "openvino": _open_openvino}[kind](path)


def check_size(model: nn.Module, options: Any) -> bool:
    """Whether pictures may have any shape (rect), or the file takes squares of its own size only.

    UserError where another size is asked for; what suppression inside a file means for the options is said.
    """
    told = getattr(model, "told", None)
    if told and told.nms:
        inside = ", ".join(f"{key} {told.args[key]}" for key in ("conf", "iou", "max_det") if key in told.args)
        log.info(f"suppression is inside {options.weights} ({inside}; a box has one class): options cannot loosen it")
    if told is None or told.fixed is None:
        return True
    if told.fixed[1] != told.fixed[2] or options.imgsz != told.fixed[1]:
        raise UserError(
            f"{options.weights} takes pictures of {told.fixed[2]} x {told.fixed[1]} only, not imgsz {options.imgsz}. "
            "Leave --imgsz out, or export it again with --dynamic."
        )
    return False


def kind_of(weights: str) -> str | None:
    """The kind of an exported file by its name; None for weights."""
    path = Path(weights).expanduser()
    if path.suffix.lower() in (".onnx", ".torchscript"):
        return path.suffix.lower()[1:]
    openvino = path.suffix.lower() == ".xml" or path.name.endswith("_openvino_model")
    return "openvino" if openvino or (path.is_dir() and any(path.glob("*.xml"))) else None


def _open_onnx(path: Path) -> Exported:
    runtime = extra("onnxruntime", f"{path.name}")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    wanted = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    providers = [name for name in wanted if name in runtime.get_available_providers()]
    try:
        session = runtime.InferenceSession(str(path), options, providers=providers)
    except Exception as e:  # its own classes, which it does not document
        raise _damaged(path, e) from None
    name = session.get_inputs()[0].name

    def run(images: Tensor) -> Tensor:
        array = np.ascontiguousarray(images.float().cpu().numpy())
        return torch.from_numpy(session.run(None, {name: array})[0]).to(images.device)

    return Exported(run, understand(dict(session.get_modelmeta().custom_metadata_map), path))


def _open_torchscript(path: Path) -> Exported:
    try:
        with zipfile.ZipFile(path) as archive:
            config = next((n for n in archive.namelist() if n.endswith("/extra/config.txt")), None)
            told = json.loads(archive.read(config)) if config else {}
        networks = {torch.device("cpu"): _load(path, torch.device("cpu"))}
    except (zipfile.BadZipFile, RuntimeError, ValueError, OSError) as e:
        raise _damaged(path, e) from None

    def run(images: Tensor) -> Tensor:
        if images.device not in networks:  # constants of a trace move with the file, not with .to
            networks[images.device] = _load(path, images.device)
        return networks[images.device](images.contiguous())

    return Exported(run, understand(told, path))


def _load(path: Path, device: torch.device) -> torch.jit.ScriptModule:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there will be another way one day
        return torch.jit.load(str(path), map_location=device).eval()


def _open_openvino(path: Path) -> Exported:
    openvino = extra("openvino", f"{path.name}")
    folder = path if path.is_dir() else path.parent
    files = sorted(folder.glob("*.xml")) if path.is_dir() else [path]
    if len(files) != 1:
        raise UserError(f"{folder} holds {len(files)} .xml files; an OpenVINO folder has one. Name the file.")
    try:
        core = openvino.Core()
        threads = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "INFERENCE_PRECISION_HINT": "f32"}
        compiled = core.compile_model(core.read_model(str(files[0])), "CPU", threads)
    except RuntimeError as e:
        raise _damaged(files[0], e) from None
    about = folder / "metadata.yaml"
    told: Any = yaml.safe_load(about.read_text(encoding="utf-8")) if about.is_file() else {}

    def run(images: Tensor) -> Tensor:
        array = np.ascontiguousarray(images.float().cpu().numpy())
        return torch.from_numpy(np.array(compiled(array)[0])).to(images.device)

    return Exported(run, understand(told or {}, folder))


def _damaged(path: Path, error: Exception) -> UserError:
    first = (str(error).splitlines() or [type(error).__name__])[0][:200]
    return UserError(f"{path} cannot be opened ({first}). Export or copy it again.")
