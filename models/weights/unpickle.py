"""Read a checkpoint file without running anything in it.

torch's `weights_only` unpickler reads the file, and every class that a checkpoint of ultralytics, or of the YOLOv5 and
YOLOv3 repositories (their `models.*`, which are never imported), may name stands for an inert shell that only holds
attributes. Whatever else a file names, or tries to call, is refused by name.
"""

import pickle
import pickletools
import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.serialization import add_safe_globals, clear_safe_globals, get_safe_globals, get_unsafe_globals_in_checkpoint

from utils.errors import UserError
from utils.run.state.sound import require_archive, require_bounded

INERT = re.compile(  # what checkpoints of ultralytics and of YOLOv5 name besides tensors and plain values
    r"torch\.nn\.modules\.\w+\.[A-Z]\w*"
    r"|ultralytics\.nn\.(tasks|text_model|distill_model|modules(\.\w+)?)\.([A-Z]\w*|v10Detect)"
    r"|ultralytics\.(yolo\.)?utils\.((loss|tal)\.\w+|IterableSimpleNamespace)"
    r"|models\.(yolo|common|experimental)\.[A-Z]\w*"
    r"|torchvision\.(transforms\.(transforms|functional)|ops\.\w+)\.[A-Z]\w*"
    r"|pathlib(\._local)?\.(Pure)?(Posix|Windows)Path"
    r"|numpy\.dtype|numpy\.dtypes\.\w+DType|numpy\.(_core|core)\.multiarray\.(scalar|_reconstruct)|numpy\.ndarray|_codecs\.encode"
)
LOOKED_AT = 2**24  # bytes of a file of another kind that are looked through for what it names
THRESHOLDS = "conf_thresholds"  # key of a checkpoint: scores of best F1 on val, as train.py chose them
DAMAGED = (RuntimeError, EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError, OSError)


class Shell:
    """Stands for an object of a checkpoint: keeps the attributes that were pickled, does nothing."""

    def __new__(cls, *args: Any, **kwargs: Any) -> "Shell":
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        for part in state if isinstance(state, tuple) else (state,):
            if isinstance(part, dict):
                self.__dict__.update(part)


class Getattr(Shell):
    """`getattr` in a checkpoint: official ones name a bound `forward` with it; anything else is refused."""

    def __init__(self, owner: Any = None, name: Any = None) -> None:
        is_shell = isinstance(owner, Shell) or (isinstance(owner, type) and issubclass(owner, Shell))
        if not (is_shell and name in ("forward", "forward_fuse", "BILINEAR", "BICUBIC")):
            raise pickle.UnpicklingError(f"builtins.getattr(..., {name!r})")


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The dictionary saved in `path` with shells for its objects; UserError naming the offender or the damage."""
    _check_archive(path)
    try:
        with _allowed([]):
            named = get_unsafe_globals_in_checkpoint(path)
    except pickle.UnpicklingError:  # written by another pickle protocol: list what it names, to say so
        _refuse_unknown(path, _globals_in(_pickle_of(path)))
        raise UserError(f"{path} is not a checkpoint that torch.save wrote with its defaults. Save it again.") from None
    except DAMAGED as error:
        raise _damaged(path, error) from error
    _refuse_unknown(path, named)
    try:
        with _allowed([(_shell(name), name) for name in named]):
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} was refused ({_reason(error)}); nothing in it ran. Get the weights elsewhere."
        ) from None
    except DAMAGED as error:
        raise _damaged(path, error) from error
    require_bounded(checkpoint, path)
    if not isinstance(checkpoint, dict):
        raise UserError(f"{path} holds a {type(checkpoint).__name__}, not a checkpoint. Use a .pt saved by a trainer.")
    return checkpoint


def _shell(name: str) -> type[Shell]:
    module, _, own = name.rpartition(".")
    return Getattr if name == "builtins.getattr" else type(own, (Shell,), {"__module__": module})


@contextmanager
def _allowed(entries: list[tuple[type, str]]) -> Iterator[None]:
    """torch's allow-list holds exactly `entries`: other libraries register real classes there for good."""
    registered = get_safe_globals()
    clear_safe_globals()
    add_safe_globals(entries)
    try:
        yield
    finally:
        clear_safe_globals()
        add_safe_globals(registered)


def _check_archive(path: Path) -> None:
    """Refuse, each with its own words, what is not a zip archive written by torch.save."""
    if path.stat().st_size == 0:
        raise UserError(f"{path} is empty (0 bytes). Copy or download it again.")
    with path.open("rb") as file:
        magic = file.read(4)
    if not magic.startswith(b"PK"):
        with path.open("rb") as file:
            _refuse_unknown(path, _globals_in(file.read(LOOKED_AT)))
        raise UserError(f"{path} is not a PyTorch checkpoint (a zip archive written by torch.save). Name a .pt file.")
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.namelist()
    except zipfile.BadZipFile as error:
        raise _damaged(path, error) from error
    if any(name.endswith("/constants.pkl") or "/code/" in name for name in members):
        raise UserError(f"{path} is a TorchScript export, which cannot be trained. Name the .pt it was exported from.")
    if not any(name.endswith("/data.pkl") for name in members):
        raise UserError(f"{path} is a zip archive but not one of torch.save. Name a .pt file.")
    require_archive(path)


def _refuse_unknown(path: Path, named: list[str]) -> None:
    """UserError when a file names something that no detection checkpoint of ultralytics needs."""
    unknown = sorted(name for name in named if not INERT.fullmatch(name) and name != "builtins.getattr")
    if unknown:
        raise UserError(
            f"{path} names {', '.join(unknown[:5])}, which no detection checkpoint needs: it was refused, and nothing "
            "in it ran. Get the weights from a source you trust."
        )


def _pickle_of(path: Path) -> bytes:
    """The pickle inside an archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.read(next(name for name in archive.namelist() if name.endswith("/data.pkl")))
    except (zipfile.BadZipFile, OSError, zlib.error) as error:
        raise _damaged(path, error) from error


def _globals_in(data: bytes) -> list[str]:
    """Names a pickle would import, read from its opcodes; [] for what is no pickle. Only to tell the user."""
    found: list[str] = []
    strings: list[str] = []
    try:
        for opcode, arg, _ in pickletools.genops(data):
            if opcode.name in ("GLOBAL", "INST"):
                found.append(str(arg).replace(" ", "."))
            elif opcode.name == "STACK_GLOBAL":
                found.append(".".join(strings[-2:]))
            elif isinstance(arg, str):
                strings.append(arg)
    except (ValueError, IndexError, KeyError, UnicodeDecodeError):
        pass  # not a pickle, or a broken one: what was seen until here still counts
    return [name.replace("__builtin__.", "builtins.") for name in found]


def _reason(error: pickle.UnpicklingError) -> str:
    """The one useful line of torch's long message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if "builtins." in line or "GLOBAL" in line or "Trying to" in line]
    return (telling or lines[-1:] or ["unknown content"])[0].rpartition("WeightsUnpickler error: ")[2]


def _damaged(path: Path, error: Exception) -> UserError:
    first_line = (str(error).splitlines() or [type(error).__name__])[0]
    return UserError(f"{path} is truncated or damaged ({first_line}). Copy or download it again.")
