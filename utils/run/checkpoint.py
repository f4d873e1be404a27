"""The state of a run on disk: a dictionary of tensors and plain values, written beside its target and moved over it."""

from pathlib import Path
from typing import Any

import torch

from utils.config.schema import Command, Hyp
from utils.errors import UserError
from utils.files import write_whole
from utils.run.seed import random_state, set_random_state

FORMAT = "preheat-1"


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write `state` so that `path` is at every instant the old file or the new one, never a part of it."""
    try:
        write_whole(path, lambda file: torch.save({"format": FORMAT, **state}, file))
    except OSError as e:
        raise UserError(f"cannot write {path}: {e.strerror}. Make room or choose another --project.") from e


def load_state(path: Path) -> dict[str, Any]:
    """Read what `save_state` wrote, on the CPU; nothing in the file can run. UserError when it is something else."""
    if not path.is_file():
        raise UserError(f"no checkpoint at {path}. --resume wants runs/train/<name>/weights/last.pt.")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as e:  # torch raises RuntimeError, EOFError, UnpicklingError, ... by the kind of damage
        raise UserError(
            f"{path} cannot be resumed: it is damaged, or no last.pt of Preheat (best.pt has no optimizer; use the "
            "last.pt beside it)."
        ) from e
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise UserError(f"{path} is no last.pt of Preheat; to fine-tune from it use --weights {path}.")
    return state


def latest_state(project: Path) -> Path:
    """The newest last.pt below `project`."""
    found = sorted(project.glob("*/weights/last.pt"), key=lambda p: p.stat().st_mtime)
    if not found:
        raise UserError(f"--resume: no run with weights/last.pt in {project}. Name the file: --resume path/to/last.pt")
    return found[-1]


def collect(parts: dict[str, Any], model: torch.nn.Module) -> dict[str, Any]:
    """State of every part by name, the gradients of an open accumulation window, and torch's random state."""
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    states = {name: part.state_dict() for name, part in parts.items()}
    return {**states, "gradients": gradients, "random": random_state(), "threads": torch.get_num_threads()}


def restore(state: dict[str, Any], parts: dict[str, Any], model: torch.nn.Module) -> None:
    """Put what `collect` gathered back into the parts."""
    for name, part in parts.items():
        part.load_state_dict(state[name])
    for name, p in model.named_parameters():
        if name in state["gradients"]:
            p.grad = state["gradients"][name].to(p.device).clone(memory_format=torch.preserve_format)
    set_random_state(state["random"])


def open_resume(command: Command, hyp: Hyp) -> tuple[dict[str, Any], Hyp, Path]:
    """State, settings and folder of the run to go on with; the command line says where it runs, not what."""
    path = latest_state(Path(hyp.project)) if command.resume == "latest" else Path(command.resume)
    path = path / "weights/last.pt" if path.is_dir() else path
    state = load_state(path)
    asked = {key: getattr(hyp, key) for key in hyp.model_fields_set - {"project"}}
    free = {"device", "workers", "noplots"}
    refused = {key for key, value in asked.items() if key not in free and value != state["hyp"][key]}
    if refused or command.hyp:
        raise UserError(
            f"--resume goes on with a run as it was started: {', '.join(sorted(refused)) or 'hyp'} cannot change. "
            f"For other settings start a new run from its weights: --weights {path}"
        )
    return state, Hyp(**(state["hyp"] | asked)), path.resolve().parent.parent


def resume_command(folder: Path) -> str:
    """What to type to go on with the run in `folder`."""
    return f"python train.py --resume {folder / 'weights/last.pt'}"
