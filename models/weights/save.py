"""Write a detector: in ultralytics' own checkpoint format, or, an anchor-based one, as a plain dictionary."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
import ultralytics
from torch import Tensor, nn
from ultralytics.nn.tasks import BaseModel
from ultralytics.utils import DEFAULT_CFG_DICT

from models.weights.unpickle import THRESHOLDS, read_checkpoint
from models.weights.variant import is_anchor_based
from utils.files import save_whole
from utils.run.folder import cannot_write


def save_weights(
    path: str | Path,
    model: BaseModel,
    names: list[str] | dict[int, str],
    hyp: dict[str, Any],
    epoch: int,
    metrics: dict[str, float],
) -> None:
    """Write `model` to `path` in fp16; the file is whole or not there at all.

    ultralytics.YOLO opens it, unless the network is anchor-based, for which ultralytics has no class: then it is a
    plain dictionary, without any pickled class, that every script here loads; its tensors have YOLOv5's names.
    """
    path = Path(path)
    train_args = _train_args(hyp)
    copy = _frozen_copy(model, names, train_args)
    checkpoint = {
        "epoch": epoch,
        "best_fitness": metrics.get("val/mAP50-95"),
        **_network(copy),
        "ema": None,  # the model is the average already
        "updates": None,
        "optimizer": None,
        "scaler": None,
        "train_args": train_args,
        "train_metrics": dict(metrics),
        "date": datetime.now().astimezone().isoformat(),
        "version": ultralytics.__version__,
        "license": "AGPL-3.0 License (https://ultralytics.com/license)",
        "docs": "https://docs.ultralytics.com",
    }
    _write(path, checkpoint)


def add_thresholds(path: Path, model: BaseModel, thresholds: dict[str, Any]) -> None:
    """Write the file again with the scores of best F1 on val; `model` is the detector that was read from it."""
    told = read_checkpoint(path)  # its objects are shells, and only the plain values are used
    copy = _frozen_copy(model, model.names, told["train_args"])
    _write(path, told | _network(copy) | {THRESHOLDS: thresholds})


def _write(path: Path, checkpoint: dict[str, Any]) -> None:
    try:
        save_whole(path, checkpoint)
    except OSError as error:
        raise cannot_write(path, error) from error


def _network(model: BaseModel) -> dict[str, Any]:
    """What a file holds of a network: itself, or, of an anchor-based one, what it takes to build it anew."""
    if not is_anchor_based(model.yaml):
        return {"model": model}
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    names, stride = list(model.names.values()), [float(s) for s in model.stride]
    return {"state_dict": state, "yaml": model.yaml, "names": names, "nc": model.nc, "stride": stride}


def _rounded(tensor: Tensor) -> Tensor:
    """What a file keeps of floats: fp16, which has no room above 65504."""
    return torch.nan_to_num_(tensor.detach().to(torch.float16, copy=True))


@contextmanager
def as_stored(model: nn.Module) -> Iterator[None]:
    """While it lasts, the weights of `model` are those that a file would keep; then its own again, bit for bit."""
    floats = [tensor.detach() for tensor in model.state_dict().values() if tensor.is_floating_point()]
    own = [tensor.clone() for tensor in floats]
    for tensor in floats:
        tensor.copy_(_rounded(tensor))
    try:
        yield
    finally:
        for tensor, value in zip(floats, own, strict=True):
            tensor.copy_(value)


def _frozen_copy(model: BaseModel, names: list[str] | dict[int, str], args: dict[str, Any]) -> BaseModel:
    """fp16 copy on the CPU in NCHW strides (channels-last weights break older fusers), without training-only state."""
    copy = deepcopy(model).cpu().half().to(memory_format=torch.contiguous_format).eval()
    for tensor in copy.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(_rounded(tensor))
    for parameter in copy.parameters():
        parameter.requires_grad = False
    copy.criterion = None
    vars(copy).pop("thresholds", None)  # of a detector read for evaluation; they stand beside it
    copy.names = dict(names) if isinstance(names, dict) else dict(enumerate(names))
    copy.args, copy.task = args, "detect"
    return copy


def _train_args(hyp: dict[str, Any]) -> dict[str, Any]:
    """The keys that ultralytics knows too, as it expects to read them, fold and white_level; paths stay as given."""
    shared = {key: value for key, value in hyp.items() if key in DEFAULT_CFG_DICT}
    ours = {key: hyp[key] for key in ("fold", "fold_seed") if hyp.get("fold")}  # for val.py: which were not seen
    ours |= {"white_level": hyp["white_level"]} if hyp.get("white_level") else {}  # of pictures with more than 8 bits
    return {**shared, **ours, "task": "detect", "mode": "train", "model": hyp.get("weights"), "data": hyp.get("data")}
