"""Parameter groups by role and part, the optimizers, and the one function that writes rates into them."""

from typing import Any

import torch
from torch import nn
from ultralytics.optim.muon import MuSGD

from models.training.ema import EMA
from utils.config.schema import Hyp
from utils.schedule.plan import group_names
from utils.schedule.rates import Rates

MUON = 0.2  # share of lr with which musgd takes the orthogonalised step, beside the whole SGD step
NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.LocalResponseNorm)


def parameter_groups(model: nn.Module, hyp: Hyp) -> dict[str, list[nn.Parameter]]:
    """Trainable parameters by role: every `bias`, the weights of normalisation layers, all other weights.

    Where hyp gives a part rates of its own: by part and role, "backbone.bias" ... "head.weight". The head is the last
    module of the network (Detect), the backbone everything before it. A group without parameters is left out. `musgd`
    orthogonalises every `weight`, hence matrices and filters only; what is none of the rest is `other`, and the groups
    of the class branch have names of their own, `cls.weight`.
    """
    groups: dict[str, list[nn.Parameter]] = {name: [] for name in group_names(hyp)}
    head = list(getattr(model, "model", model).children())[-1]
    branches = (getattr(head, name, None) for name in ("cv3", "one2one_cv3"))
    of_classes = {module for branch in branches if branch is not None for module in branch.modules()}
    in_head, by_part, muon = set(head.modules()), "head.weight" in groups, hyp.optimizer == "musgd"
    for module in model.modules():
        part = ("head." if module in in_head else "backbone.") if by_part else ""
        part += "cls." if muon and module in of_classes else ""
        for name, parameter in module.named_parameters(recurse=False):
            matrix = muon and parameter.ndim in (2, 4)
            role = "bias" if name == "bias" else "norm" if isinstance(module, NORMS) else "other" if muon else "weight"
            role = "weight" if matrix else role
            if parameter.requires_grad:
                groups.setdefault(part + role, []).append(parameter)
    return {name: parameters for name, parameters in groups.items() if parameters}


def build_optimizer(model: nn.Module, hyp: Hyp, weight_decay: float, decays_all: bool = False) -> torch.optim.Optimizer:
    """The optimizer that hyp names, with groups addressed by their `name`.

    Of the roles only `weight` (and `other`) decays, by `weight_decay`; with `decays_all` biases and norms do too.
    Learning rates and momentum are those of hyp until `set_rates` writes the first batch's.
    """
    decaying = ("weight", "other", "bias", "norm") if decays_all else ("weight", "other")
    groups = [
        {"params": parameters, "name": name, "weight_decay": weight_decay if name.endswith(decaying) else 0.0}
        for name, parameters in parameter_groups(model, hyp).items()
    ]
    if hyp.optimizer == "musgd":
        groups = [group | {"use_muon": group["name"].endswith("weight")} for group in groups]
        return MuSGD(groups, hyp.lr0, hyp.momentum, nesterov=hyp.momentum > 0, muon=MUON, sgd=1.0)
    # on a CPU AdamW's fused step takes a quarter of the time; SGD's half, but of little, and adds in another order
    fused = next(model.parameters()).is_cuda or hyp.optimizer != "sgd"
    options: dict[str, Any] = {"lr": hyp.lr0, ("fused" if fused else "foreach"): True}
    if hyp.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=hyp.momentum, nesterov=hyp.momentum > 0, **options)
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[hyp.optimizer]
    return kind(groups, betas=(hyp.momentum, 0.999), **options)


def with_settings_of(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """A saved state with the kernels (fused, foreach) and the weight decay of `optimizer`.

    Those it was saved with suit another device, and perhaps another batch.
    """
    if len(state.get("param_groups", ())) != len(optimizer.param_groups):
        return state  # which is refused, with the rest that does not fit
    groups = [
        saved | {key: group[key] for key in ("fused", "foreach", "weight_decay") if key in group}
        for saved, group in zip(state["param_groups"], optimizer.param_groups, strict=True)
    ]
    return state | {"param_groups": groups}


def set_rates(optimizer: torch.optim.Optimizer, rates: Rates) -> None:
    """Write learning rate and momentum (beta1 of Adam) into every group: the only place that does."""
    for group in optimizer.param_groups:
        group["lr"] = rates.lr[group["name"]]
        if "betas" in group:
            group["betas"] = (rates.momentum, group["betas"][1])
        else:
            group["momentum"] = rates.momentum


def applied_rates(optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """What the optimizer really holds: {"lr/bias": ..., "lr/norm": ..., "lr/weight": ..., "momentum": ...}.

    With groups by part the tags are lr/backbone.bias ... lr/head.weight.
    """
    rates = {f"lr/{group['name']}": float(group["lr"]) for group in optimizer.param_groups}
    group = optimizer.param_groups[-1]
    return rates | {"momentum": group["betas"][0] if "betas" in group else group["momentum"]}


def optimizer_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler, ema: EMA, clip_norm: float | None
) -> torch.Tensor:
    """One step with the gradient summed so far: unscale, clip, step, clear, average. Returns the norm before clipping.

    A step whose norm is NaN or infinite is skipped in every precision: weights, momentum and EMA stay as they were.
    """
    scaler.unscale_(optimizer)
    parameters = [p for p in model.parameters() if p.grad is not None]
    norm = nn.utils.get_total_norm([p.grad for p in parameters])
    if clip_norm:  # else all gradients would be multiplied by 1
        nn.utils.clip_grads_with_norm_(parameters, clip_norm, norm)
    taken = norm.isfinite()
    _step_where(taken, optimizer)
    scaler.update()
    optimizer.zero_grad(set_to_none=True)
    ema.update(model, taken)
    return norm


def _step_where(taken: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
    """Step if `taken` (0-dim bool); the fused kernels decide on the device, so that nothing waits for it."""
    if not optimizer.param_groups[0].get("fused"):
        if taken:
            optimizer.step()
        return
    zero_momentum(optimizer)
    optimizer.grad_scale, optimizer.found_inf = None, (~taken).float()
    optimizer.step()
    del optimizer.grad_scale, optimizer.found_inf


def all_finite(*models: nn.Module) -> bool:
    """Whether no weight and no statistic of the networks is NaN or infinite; one wait for the device."""
    floats = [v for model in models for v in model.state_dict().values() if v.is_floating_point()]
    return bool(torch.stack(torch._foreach_norm(floats)).isfinite().all())


def first_lost(model: nn.Module) -> str:
    """What of a network is NaN or infinite, in words; empty where all is finite."""
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            if name.rpartition(".")[2].startswith("running_"):
                return f"a BatchNorm statistic ({name}: an activation overflowed; with amp: fp16 try bf16 or off)"
            return f"a weight ({name})"
    return ""


def zero_momentum(optimizer: torch.optim.Optimizer) -> None:
    """Give SGD its momentum buffers as zeros, which is what a first step makes of none.

    The fused kernel's own are uninitialised memory, which a first step that is skipped leaves as it is.
    """
    for group in optimizer.param_groups:
        for p in group["params"] if group.get("momentum") else ():
            if p.grad is not None and optimizer.state[p].get("momentum_buffer") is None:
                optimizer.state[p]["momentum_buffer"] = torch.zeros_like(p.grad)
