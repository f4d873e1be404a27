"""Going on with an interrupted run."""

from pathlib import Path
from typing import Any

from utils.checkpoint import latest_state, load_state
from utils.config import Command, Hyp
from utils.errors import UserError


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
