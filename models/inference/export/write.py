"""A detector as ONNX, TorchScript or OpenVINO file."""

import json
import logging
import warnings
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from models.inference.export.extra import extra
from models.inference.export.metadata import Choices, describe
from models.inference.export.plain import plain_network
from utils.errors import UserError


def export(model: nn.Module, kind: str, folder: Path, stem: str, choices: Choices) -> Path:
    """Write the file of a kind of KINDS below `folder`; UserError where it cannot be written."""
    network, told = plain_network(model.cpu().float(), choices), describe(model, choices, stem)
    images = torch.zeros(max(choices.batch, 2 if choices.dynamic else 1), 3, choices.imgsz, choices.imgsz)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the tracer, about shapes that it takes for constants: they are
            network(images)  # anchors are made
            return KINDS[kind](network, images, folder / f"{stem}{SUFFIXES[kind]}", told, choices)
    except OSError as e:
        raise UserError(f"cannot write {folder}: {e.strerror}. Make room, or choose another --project.") from e


def _onnx(network: nn.Module, images: torch.Tensor, path: Path, told: dict[str, Any], choices: Choices) -> Path:
    onnx = extra("onnx", "--format onnx")
    axes = None
    if choices.dynamic:
        axes = {"images": {0: "batch", 2: "height", 3: "width"}, "output0": {0: "batch"}}
        if not told["end2end"] and not choices.nms:
            axes["output0"][2] = "anchors"
    names = {"input_names": ["images"], "output_names": ["output0"]}
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    torch.onnx.export(network, images, str(path), opset_version=choices.opset, dynamic_axes=axes, dynamo=False, **names)
    model = onnx.load(str(path))
    for key, value in told.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, str(value)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path


def _torchscript(network: nn.Module, images: torch.Tensor, path: Path, told: dict[str, Any], choices: Choices) -> Path:
    traced = torch.jit.trace(network, images, strict=False, check_trace=False)
    traced.save(str(path), _extra_files={"config.txt": json.dumps(told)})
    return path


def _openvino(network: nn.Module, images: torch.Tensor, path: Path, told: dict[str, Any], choices: Choices) -> Path:
    openvino = extra("openvino", "--format openvino")
    traced = torch.jit.trace(network, images, strict=False, check_trace=False)
    shape = [-1, 3, -1, -1] if choices.dynamic else list(images.shape)
    model = openvino.convert_model(traced, input=[shape], example_input=images)
    path.mkdir(parents=True, exist_ok=True)
    stem = path.name.removesuffix(SUFFIXES["openvino"])
    openvino.save_model(model, path / f"{stem}.xml", compress_to_fp16=False)
    (path / "metadata.yaml").write_text(yaml.safe_dump(told, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return path


KINDS = {"onnx": _onnx, "torchscript": _torchscript, "openvino": _openvino}
SUFFIXES = {"onnx": ".onnx", "torchscript": ".torchscript", "openvino": "_openvino_model"}
