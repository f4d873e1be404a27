"""A model yaml -> network, ultralytics' or an anchor-based one; a yaml names layers and literals, and nothing else."""

import ast
from copy import deepcopy
from typing import Any

import torch
from torch import nn
from ultralytics.nn import tasks
from ultralytics.nn.tasks import BaseModel, DetectionModel

from models.anchor.network import AnchorModel
from models.weights.load import Source, refuse_other_task
from models.weights.variant import apply_variant, describe_variant, differing_settings, is_anchor_based
from utils.errors import UserError

BROKEN = (RuntimeError, ValueError, TypeError, KeyError, IndexError, AttributeError, AssertionError, ArithmeticError)


def build_network(yaml: dict[str, Any], nc: int, where: str) -> BaseModel:
    """The network of `yaml` with `nc` classes and random weights, fp32, in training mode.

    A yaml that lists anchors is one of YOLOv5 or YOLOv3 and gives an AnchorModel, any other a DetectionModel.
    """
    yaml = deepcopy(yaml)
    check_yaml(yaml, where)
    yaml.pop("head_nc", None)
    class_branch, recorded = yaml.pop("class_branch", None), yaml.pop("recorded", None)
    yaml["nc"] = nc
    try:
        anchored = is_anchor_based(yaml)
        model = AnchorModel(yaml, nc, where) if anchored else DetectionModel(yaml, ch=3, verbose=False)
        return apply_variant(model, class_branch, recorded)
    except BROKEN as error:
        raise UserError(f"{where}: no network can be built from its yaml ({error}). Correct the yaml.") from error


def rebuild(source: Source) -> BaseModel:
    """The network of a checkpoint, built anew from its yaml, every tensor loaded; with .names and yaml['head_nc']."""
    nc, where = len(source.names), str(source.path)
    if source.yaml.get("nc", nc) != nc:
        raise UserError(f"{where} names {nc} classes but its network has {source.yaml['nc']}. Use intact weights.")
    model = build_network(source.yaml, _width_nc(source, nc), where)
    resize_class_branches(model, nc)
    problems = _mismatches(model, source)
    if problems:
        raise UserError(
            f"{where} does not fit the network that its yaml describes ({len(problems)} tensors differ, first "
            f"{problems[0]}): pruned, fused, or saved by a very different version. Tried what its tensors show: "
            f"{describe_variant(source.yaml)}. Use the unfused original weights."
        )
    apply_variant(model, None, {**(source.yaml.get("recorded") or {}), **differing_settings(model, source.recorded)})
    model.load_state_dict(source.state)
    return label(model, source.names)


def label(model: BaseModel, names: list[str]) -> BaseModel:
    """Write the classes where the libraries look for them, and the width of the class branch into the yaml."""
    head, nc = model.model[-1], len(names)
    model.nc, model.names, model.task = nc, dict(enumerate(names)), "detect"
    model.yaml["nc"] = nc
    if isinstance(model, AnchorModel):
        return model
    head.nc, head.no = nc, nc + 4 * head.reg_max
    width = head.cv3[0][-1].in_channels
    usual = max(head.cv2[0][0].conv.in_channels, min(nc, 100))  # ultralytics' rule, nn/modules/head.py
    model.yaml.pop("head_nc", None)
    if width != usual:
        model.yaml["head_nc"] = width  # that many classes give this width
    return model


def class_branches(model: BaseModel) -> list[nn.ModuleList]:
    """The class branches of the head (one-to-many, and one-to-one where there is one), each a list over levels."""
    head = model.model[-1]
    branches = (getattr(head, "cv3", None), getattr(head, "one2one_cv3", None))
    return [branch for branch in branches if branch is not None]


def resize_class_branches(model: BaseModel, nc: int) -> BaseModel:
    """Give the class branches `nc` outputs, freshly initialised, whatever their hidden width."""
    for level in (level for branch in class_branches(model) for level in branch):
        if level[-1].out_channels != nc:
            level[-1] = nn.Conv2d(level[-1].in_channels, nc, 1)
    return model


def check_yaml(yaml: dict[str, Any], where: str) -> None:
    """Refuse a yaml that is no detector's, and one that names what is neither a known layer nor a literal."""
    rows = [*(yaml.get("backbone") or []), *(yaml.get("head") or [])]
    if not yaml.get("backbone") or not yaml.get("head"):
        raise UserError(f"{where} has no 'backbone' and 'head' lists, so it is not a model yaml. Name another file.")
    for row in rows:
        if not (isinstance(row, list) and len(row) == 4 and isinstance(row[2], str) and isinstance(row[3], list)):
            raise UserError(f"{where}: layer {row} is not [from, number, module, arguments]. Correct it.")
    refuse_other_task(rows[-1][2], where)
    for row in rows:
        _check_layer(row[2], where)
    if (channels := yaml.get("channels") or 3) != 3:
        raise UserError(f"{where} expects {channels} image channels; only 3 (RGB) are supported. Use other weights.")
    if (activation := yaml.get("activation")) is not None:
        _check_activation(activation, where)


def _check_layer(name: str, where: str) -> None:
    """Known layers only: torch.nn's, torchvision.ops', and those of ultralytics.nn.modules."""
    if name.startswith("nn."):
        layer = getattr(nn, name[3:], None)
    elif name.startswith("torchvision.ops."):
        import torchvision  # only a yaml that names it pays for the import

        layer = getattr(torchvision.ops, name[16:], None)
    else:
        layer = getattr(tasks, name, None)
        if not getattr(layer, "__module__", "").startswith("ultralytics.nn.modules."):
            layer = nn.Identity if name == "Silence" else None  # YOLOv9's old name for Identity
    is_layer = isinstance(layer, type) and issubclass(layer, nn.Module)
    if not is_layer or name == "TorchVision":  # TorchVision downloads weights while it is built
        raise UserError(f"{where}: '{name}' is not a layer that a model yaml may name; nothing ran. Correct the yaml.")


def _check_activation(spec: Any, where: str) -> None:
    """ultralytics evaluates this string: allow only [torch.]nn.Class(literals)."""
    try:
        call = ast.parse(str(spec).strip(), mode="eval").body
        parts = ast.unparse(call.func).split(".") if isinstance(call, ast.Call) else []
        literals = [ast.literal_eval(value) for value in [*call.args, *(k.value for k in call.keywords)]]
        layer = getattr(nn, parts[-1], None) if parts[:-1] in (["nn"], ["torch", "nn"]) else None
        allowed = isinstance(layer, type) and issubclass(layer, nn.Module) and literals is not None
    except (SyntaxError, ValueError, TypeError, AttributeError, RecursionError, MemoryError):
        allowed = False
    if not allowed:
        raise UserError(
            f"{where}: activation {str(spec)[:200]!r} is refused, and nothing in it ran. "
            "Write a layer of torch.nn with literal arguments, e.g. 'nn.SiLU()'."
        )


def _width_nc(source: Source, nc: int) -> int:
    """How many classes give the class branch its hidden width: not always nc, ultralytics widens it in transfers."""
    last = len(source.yaml.get("backbone") or []) + len(source.yaml.get("head") or []) - 1
    weight = source.state.get(f"model.{last}.cv3.0.2.weight")  # (nc, hidden, 1, 1)
    box = source.state.get(f"model.{last}.cv2.0.0.conv.weight")  # (_, channels of the first level, 3, 3)
    if weight is None or box is None or not isinstance(weight, torch.Tensor):
        return nc
    hidden, usual = weight.shape[1], max(box.shape[1], min(nc, 100))
    return nc if hidden == usual else min(hidden, 100)


def _mismatches(model: BaseModel, source: Source) -> list[str]:
    """Names of tensors that are missing, unexpected or of another shape."""
    wanted = {name: tensor.shape for name, tensor in model.state_dict().items()}
    given = {name: tensor.shape for name, tensor in source.state.items()}
    return sorted(name for name in wanted.keys() | given.keys() if wanted.get(name) != given.get(name))
