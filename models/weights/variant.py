"""Which variant of its yaml a pickled network is: its tensors and recorded attributes decide, not today's parser.

Releases of ultralytics built other networks from a yaml of the same name: a plain or a depthwise class branch, another
number of DFL bins, with or without one-to-one heads, another activation, another eps and momentum of BatchNorm. A yaml
here says so in two keys of its own, `class_branch` and `recorded`, which `apply_variant` turns into modules.
"""

import math
from copy import deepcopy
from typing import Any

from torch import Tensor, nn
from ultralytics.nn.modules import Conv, DWConv
from ultralytics.nn.tasks import DetectionModel

SETTINGS = ("eps", "momentum", "negative_slope", "alpha", "approximate", "add", "_end2end")  # that no tensor shows
ACTIVATIONS = ("SiLU", "ReLU", "ReLU6", "LeakyReLU", "Hardswish", "GELU", "Mish", "ELU", "Sigmoid", "Tanh", "Identity")
Settings = dict[str, dict[str, Any]]  # module path -> {"class": name of an activation} and values of SETTINGS


def is_anchor_based(yaml: dict[str, Any]) -> bool:
    """Whether a model yaml is one of YOLOv5 or YOLOv3: it lists anchors, which none of ultralytics does."""
    return bool(yaml.get("anchors"))


def fitted_yaml(yaml: dict[str, Any], state: dict[str, Tensor]) -> dict[str, Any]:
    """A copy of `yaml` that describes the network whose tensors are `state`; as it is where they do not show a head."""
    fitted = deepcopy(yaml)
    rows = [*(fitted.get("backbone") or []), *(fitted.get("head") or [])]
    head = f"model.{len(rows) - 1}."
    box, plain = state.get(f"{head}cv2.0.2.weight"), f"{head}cv3.0.0.conv.weight" in state
    if box is None or not (plain or f"{head}cv3.0.0.0.conv.weight" in state) or len(rows[-1]) != 4:
        return fitted
    one_to_one = any(name.startswith(f"{head}one2one_cv2.") for name in state)
    if rows[-1][2] == "v10Detect" and (plain or not one_to_one):  # that head is always depthwise with one-to-one heads
        rows[-1][2] = "Detect"
    if rows[-1][2] == "Detect":
        fitted["class_branch"] = "plain" if plain else "depthwise"
        if bool(fitted.get("end2end")) != one_to_one:
            fitted["end2end"] = one_to_one
        if fitted.get("reg_max", 16) != (bins := box.shape[0] // 4):
            fitted["reg_max"] = bins
    return fitted


def describe_variant(yaml: dict[str, Any]) -> str:
    """The choices behind a fitted yaml, in words."""
    parts = [
        f"a {yaml['class_branch']} class branch" if "class_branch" in yaml else "the head of its yaml",
        f"{yaml.get('reg_max', 16)} DFL bins",
        f"{'with' if yaml.get('end2end') else 'without'} one-to-one heads",
        f"{len(yaml.get('recorded') or {})} modules with settings of their own",
    ]
    return ", ".join(parts)


def apply_variant(model: DetectionModel, class_branch: str | None, recorded: Settings | None) -> DetectionModel:
    """Give `model` the class branch and the module settings of a yaml's own keys; both are noted in model.yaml."""
    head = model.model[-1]
    if class_branch is not None and isinstance(head.cv3[0][0], nn.Sequential) != (class_branch == "depthwise"):
        _replace_class_branches(head, class_branch)
        model.yaml["class_branch"] = class_branch
        for module in head.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps, module.momentum = 1e-3, 0.03  # ultralytics' initialize_weights
    modules = dict(model.named_modules(remove_duplicate=False))  # all Conv share one activation object
    for path, values in (recorded or {}).items():
        if path in modules:
            _set(model, path, modules[path], values)
    if recorded:
        model.yaml["recorded"] = recorded
    return model


def differing_settings(model: DetectionModel, recorded: Settings) -> Settings:
    """The part of `recorded` in which `model` differs."""
    found: Settings = {}
    for path, module in model.named_modules(remove_duplicate=False):
        values = {key: value for key, value in recorded.get(path, {}).items() if _current(module, key) != value}
        if "class" in values and type(module).__name__ not in ACTIVATIONS:
            values.pop("class")  # not an activation here: the tensors judge
        if values:
            found[path] = recorded[path] if "class" in values else values
    return found


def _current(module: nn.Module, key: str) -> Any:
    return type(module).__name__ if key == "class" else getattr(module, key, False if key == "_end2end" else None)


def _set(model: DetectionModel, path: str, module: nn.Module, values: dict[str, Any]) -> None:
    """Write settings into one module; an activation is exchanged, because the network shares one object of them."""
    name = values.get("class", type(module).__name__)
    if name in ACTIVATIONS and type(module).__name__ in ACTIVATIONS:
        parent, _, child = path.rpartition(".")
        module = getattr(nn, name)()
        setattr(model.get_submodule(parent), child, module)
    for key in SETTINGS:
        if key in values and isinstance(values[key], bool | int | float | str):
            setattr(module, key, values[key])


def _replace_class_branches(head: nn.Module, kind: str) -> None:
    """Build the class branches anew as the other kind, of the same widths, with the class prior as bias."""
    first, hidden = [box[0].conv.in_channels for box in head.cv2], head.cv3[0][-1].in_channels
    head.cv3 = nn.ModuleList(_class_level(kind, x, hidden, head.nc) for x in first)
    for level, stride in zip(head.cv3, head.stride.tolist(), strict=True):
        nn.init.constant_(level[-1].bias, math.log(5 / head.nc / (640 / stride) ** 2))  # as bias_init has it
    if getattr(head, "one2one_cv3", None) is not None:
        head.one2one_cv3 = deepcopy(head.cv3)


def _class_level(kind: str, x: int, hidden: int, nc: int) -> nn.Sequential:
    """One level of a class branch: x channels -> nc, two 3x3 convolutions or two depthwise pairs."""
    if kind == "plain":
        return nn.Sequential(Conv(x, hidden, 3), Conv(hidden, hidden, 3), nn.Conv2d(hidden, nc, 1))
    return nn.Sequential(
        nn.Sequential(DWConv(x, x, 3), Conv(x, hidden, 1)),
        nn.Sequential(DWConv(hidden, hidden, 3), Conv(hidden, hidden, 1)),
        nn.Conv2d(hidden, nc, 1),
    )
