"""Freeze parts of a detector by name."""

import difflib

from torch import nn
from ultralytics.nn.tasks import DetectionModel

from utils.errors import UserError

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm)


def freeze(model: DetectionModel, spec: int | str | list[str | int] | None) -> list[str]:
    """Stop training the parts that `spec` names; returns the names of their parameters.

    A number (10 or '10') is that many leading layers; a list, or names with commas between, holds backbone, neck, head,
    modules such as model.3 or model.22.cv2, and numbers of single layers. The fixed convolution of the box
    distribution (dfl) never trains, asked or not.
    """
    prefixes = [f"{name}." for name in _modules(model, spec)]
    frozen = []
    for name, parameter in model.named_parameters():
        if any(name.startswith(prefix) for prefix in prefixes) and ".dfl." not in name:
            parameter.requires_grad_(False)
            frozen.append(name)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise UserError(f"freeze: {spec} leaves nothing to train. Freeze fewer layers.")
    return frozen


def keep_frozen_bn_eval(model: nn.Module) -> None:
    """Frozen normalisation keeps its statistics; call it after each model.train()."""
    for module in model.modules():
        if isinstance(module, NORMS) and module.weight is not None and not module.weight.requires_grad:
            module.eval()


def _modules(model: DetectionModel, spec: int | str | list[str | int] | None) -> list[str]:
    """Names of the modules that a spec stands for."""
    if spec is None or spec == "" or spec == []:
        return []
    if isinstance(spec, str) and "," in spec:
        spec = [part.strip() for part in spec.split(",") if part.strip()]
    if isinstance(spec, list):
        return [name for part in spec for name in _part(model, part)]
    if isinstance(spec, int) or spec.strip().isdigit():
        n = len(model.model)
        if not 0 <= int(spec) < n:
            raise UserError(f"freeze: {spec} leading layers, but the network has {n} with its head. Use 0 to {n - 1}.")
        return [f"model.{i}" for i in range(int(spec))]
    return _part(model, spec)


def _part(model: DetectionModel, part: str | int) -> list[str]:
    """Names of the modules behind one name of a spec."""
    n, backbone = len(model.model), len(model.yaml["backbone"])
    groups = {"backbone": range(backbone), "neck": range(backbone, n - 1), "head": range(n - 1, n)}
    part = str(part).strip()
    if part in groups:
        return [f"model.{i}" for i in groups[part]]
    known = dict(model.named_modules())
    name = f"model.{part}" if part.isdigit() else part
    if name in known and name not in ("", "model"):
        return [name]
    close = difflib.get_close_matches(part, [*groups, *known], n=1)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    raise UserError(f"freeze: no part '{part}'.{hint} Use a number, backbone, neck, head, or model.0 to model.{n - 1}.")
