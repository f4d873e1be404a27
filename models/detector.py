"""Detectors: from weights on disk, with the shapes of a saved run; and as they are evaluated."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any, Literal

import numpy as np
import torch
from torch import nn
from ultralytics.nn.tasks import BaseModel

from models.anchor.loss import AnchorLoss
from models.anchor.network import AnchorModel
from models.build import build_network, label, rebuild, resize_class_branches
from models.decode import decoding_in_full
from models.fold import fold, pack
from models.head import Transfer, keep_head, rebuild_head
from models.loss.detection import DetectionLoss
from models.weights.find import YAML_SUFFIXES, find_weights, read_model_yaml
from models.weights.load import Source, load_weights
from utils.config.schema import Hyp
from utils.errors import UserError

HEADS = {"keep": keep_head, "rebuild": rebuild_head}


def build_detector(
    weights: str,
    names: list[str],
    head: Literal["keep", "rebuild"] = "keep",
    imgsz: int | None = None,
    download: bool = False,
) -> tuple[BaseModel, Transfer]:
    """A detector for the classes `names`, fp32 on the CPU, and what it took from `weights` (.pt; .yaml: nothing).

    Fresh tensors come from torch's global seed; reading the checkpoint does not touch it. `imgsz` is checked
    against the stride.
    """
    path = find_weights(weights, download)
    if path.suffix in YAML_SUFFIXES:
        model = label(build_network(read_model_yaml(path), len(names), weights), names)
        transfer = Transfer(0, len(model.state_dict()), [], list(names))
    else:
        model, transfer = HEADS[head](_source_model(load_weights(path)), names)
    if imgsz is not None:
        check_imgsz(imgsz, int(model.stride.max()))
    return model, transfer


def load_for_eval(weights: str, download: bool = False) -> BaseModel:
    """The detector in a checkpoint, as it is: fp32, evaluation mode, on the CPU, with its own .names.

    Its .args are what the run behind it was told, plain values only, its .thresholds what was chosen on val, or None.
    """
    path = find_weights(weights, download)
    if path.suffix in YAML_SUFFIXES:
        raise UserError(f"{weights} describes a network without weights. Name a .pt checkpoint.")
    source = load_weights(path)
    model = _source_model(source).eval()
    model.args, model.thresholds = source.args, source.thresholds
    return model


def open_model(
    hyp: Hyp, names: list[str], state: dict[str, Any] | None, download: bool
) -> tuple[BaseModel, Transfer | None]:
    """The detector for `names`: from weights, from a yaml, or with the shapes of a saved state."""
    if state:
        return model_from_yaml(state["yaml"], state["names"]), None
    if hyp.weights is None:
        raise UserError(
            "--weights is missing: name a checkpoint (.pt) to fine-tune, or a .yaml for random weights. To try it "
            "out: --hyp demo"
        )
    return build_detector(hyp.weights, names, hyp.head, hyp.imgsz, download)


def model_from_yaml(yaml: dict[str, Any], names: list[str]) -> BaseModel:
    """The shapes of a detector that build_detector made, from its .yaml, with random weights."""
    model = build_network(yaml, yaml.get("head_nc", len(names)), "the checkpoint's yaml")
    return label(resize_class_branches(model, len(names)), names)


def loss_of(
    model: nn.Module, hyp: Hyp, counts: np.ndarray | None = None, world_size: int = 1
) -> DetectionLoss | AnchorLoss:
    """The loss that a detector is trained with; counts (nc,): training boxes of each class."""
    return (AnchorLoss if isinstance(model, AnchorModel) else DetectionLoss)(model, hyp, counts, world_size)


class AsItIs(nn.Module):
    """Something that detects and is no network of its own: an exported file, or several detectors as one."""

    def members(self) -> list[nn.Module]:
        """The detectors that it is made of."""
        return []

    def of(self, parts: list[nn.Module]) -> nn.Module:
        """The same made of others."""
        return self


@contextmanager
def for_evaluation(model: nn.Module) -> Iterator[nn.Module]:
    """The copy of `model` to evaluate: folded, on a CPU packed, and its head decodes boxes in full precision under any
    autocast. It stays on the device on which `model` is."""
    if isinstance(model, AsItIs):
        with ExitStack() as stack:
            yield model.of([stack.enter_context(for_evaluation(part)) for part in model.members()]).eval()
        return
    folded = pack(fold(model))
    with nullcontext() if isinstance(folded, AnchorModel) else decoding_in_full(folded):  # which always does
        yield folded


def _source_model(source: Source) -> BaseModel:
    with torch.random.fork_rng(devices=[]):  # layers are initialised, then overwritten: no draw of the run's seed
        return rebuild(source)


def check_imgsz(imgsz: int, stride: int) -> None:
    """UserError naming the nearest sizes when the network cannot take this one."""
    if imgsz % stride:
        below, above = imgsz // stride * stride, (imgsz // stride + 1) * stride
        near = f"{below} or {above}" if below else str(above)
        raise UserError(f"imgsz {imgsz} is not a multiple of the network's stride {stride}. Use {near}.")
