"""Whether a checkpoint is what it claims to be: looked at before and after it is read, so that nobody's file takes all
memory or fails in the middle of a step.
"""

import zipfile
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from utils.errors import UserError
from utils.run.state.progress import Progress

VISITS = 10**6  # values that a checkpoint may hold, counted as often as they are met; real ones hold some ten thousand
VIEWS = 4  # times its own size that the tensors of a file may take where several share a storage
THREADS = 1024
DAMAGED = "Copy or download it again."


def require_archive(path: Path) -> None:
    """UserError unless a file is a zip archive that needs no more room than it takes on the disk.

    torch.save never compresses: what does is a bomb, and so are members that share their bytes. Only the archive's
    list of contents and the pickle are read; that may not name `bytearray`, which torch would call with any size.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            size, held = path.stat().st_size, sum(member.file_size for member in members)
            if held > size or any(member.compress_type != zipfile.ZIP_STORED for member in members):
                raise UserError(
                    f"{path} holds {held / 2**20:,.0f} MB in {size / 2**20:,.1f} MB: it is packed, which torch.save "
                    "never does, and was not unpacked. Get it from a source you trust."
                )
            pickles = [archive.read(member) for member in members if member.filename.endswith("/data.pkl")]
    except (zipfile.BadZipFile, OSError, NotImplementedError, RuntimeError, ValueError) as error:
        raise UserError(f"{path} is truncated or damaged ({error}). {DAMAGED}") from error
    if any(b"bytearray" in content for content in pickles):
        raise UserError(
            f"{path} names builtins.bytearray, which no checkpoint needs: it was refused, and nothing in it ran. Get "
            "it from a source you trust."
        )


def require_bounded(content: Any, path: Path) -> None:
    """UserError where what was read would unfold into more than a file of this size can mean.

    That are tensors that are not dense, claim more numbers than are stored, or share their storage too often, and lists
    in lists that hold each other.
    """
    room, size, seen, left = 0, path.stat().st_size, set(), [content]
    for _ in range(VISITS):
        if not left:
            break
        value = left.pop()
        if isinstance(value, torch.Tensor):
            if value.layout != torch.strided or value.is_meta or value.is_quantized:
                raise UserError(f"{path} holds a tensor that is not dense, as those of a detector are. {DAMAGED}")
            bytes_claimed = value.numel() * value.element_size()
            room += bytes_claimed
            if bytes_claimed > value.untyped_storage().nbytes() or room > VIEWS * size:
                raise UserError(f"{path} holds a tensor {tuple(value.shape)} whose numbers are not in it. {DAMAGED}")
        elif isinstance(value, Mapping):
            left += [*value.keys(), *value.values()]
        elif isinstance(value, list | tuple | set | frozenset):
            left += value
        elif hasattr(value, "__dict__") and not isinstance(value, type) and id(value) not in seen:
            seen.add(id(value))
            left += vars(value).values()
    if left:
        raise UserError(f"{path} holds more than {VISITS:,} values, some in themselves. {DAMAGED}")


def require_state(state: dict[str, Any], path: Path) -> None:
    """UserError where what says of itself that it is a last.pt has not what makes one."""
    kinds: dict[str, type] = dict.fromkeys(("model", "ema", "optimizer", "scaler", "loss", "gradients", "random"), dict)
    kinds |= {"hyp": dict, "yaml": dict, "names": list, "progress": dict, "threads": int}
    wrong = [key for key, kind in kinds.items() if not isinstance(state.get(key), kind)]
    if not wrong:
        known = {field.name: type(getattr(Progress(), field.name)) for field in fields(Progress)}
        wrong += [
            f"progress.{key}"
            for key, value in state["progress"].items()
            if not (isinstance(value, known.get(key, ())) or (known.get(key) is float and isinstance(value, int)))
        ]
        wrong += [] if 1 <= state["threads"] <= THREADS else ["threads"]
        wrong += [] if all(isinstance(name, str) for name in state["names"]) else ["names"]
    if wrong:
        raise UserError(f"{path} is damaged: {', '.join(wrong[:5])} is missing or of another kind. {DAMAGED}")


def require_fit(state: dict[str, Any], parts: Mapping[str, Any], model: torch.nn.Module) -> None:
    """UserError where a saved state is not one of these parts: names and shapes of all weights, averages, momenta, ...

    torch checks those of a network only; a momentum of another shape would fail in the first step.
    """
    shapes = {name: p.shape for name, p in model.named_parameters()}
    for name, part in parts.items():
        switched_off = name == "scaler" and not (state[name] and part.state_dict())  # by the device of one of both
        if name != "optimizer" and not switched_off:
            require_same(state[name], part.state_dict(), name)
    for name, tensor in state["gradients"].items():
        _require(isinstance(tensor, torch.Tensor) and shapes.get(name) == tensor.shape, f"gradients.{name}")
    require_same(state["random"].get("cpu"), torch.get_rng_state(), "random.cpu")
    optimizer, saved = parts["optimizer"], state["optimizer"]
    groups = saved.get("param_groups")
    _require(isinstance(groups, list) and isinstance(saved.get("state"), dict), "optimizer")
    require_same(
        [g.get("params") for g in groups], [g["params"] for g in optimizer.state_dict()["param_groups"]], "optimizer"
    )
    every = [p for group in optimizer.param_groups for p in group["params"]]
    for k, own in saved["state"].items():
        _require(isinstance(k, int) and 0 <= k < len(every) and isinstance(own, dict), f"optimizer.state.{k}")
        for key, value in own.items():
            fits = not isinstance(value, torch.Tensor) or value.ndim == 0 or value.shape == every[k].shape
            _require(fits, f"optimizer.state.{k}.{key}")


def require_same(found: Any, expected: Any, where: str) -> None:
    """UserError unless both have the same names, lengths, shapes and kinds of values."""
    if isinstance(expected, dict):
        _require(isinstance(found, dict) and found.keys() == expected.keys(), where)
        for key in expected:
            require_same(found[key], expected[key], f"{where}.{key}")
    elif isinstance(expected, list):
        _require(isinstance(found, list) and len(found) == len(expected), where)
        for k, (a, b) in enumerate(zip(found, expected, strict=True)):
            require_same(a, b, f"{where}.{k}")
    elif isinstance(expected, torch.Tensor):
        _require(isinstance(found, torch.Tensor) and found.shape == expected.shape, where)
    else:
        numbers = isinstance(found, int | float) and isinstance(expected, int | float)
        _require(numbers or type(found) is type(expected), where)


def _require(fits: bool, where: str) -> None:
    if not fits:
        raise UserError(
            f"the state to go on from does not fit its own network: {where} has another shape or kind. It is damaged, "
            "or was changed by hand; go on from last-older.pt beside it, or start anew from its weights."
        )
