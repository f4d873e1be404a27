"""The state that a run goes on from: that of an interrupted one, or the stable part of one that is to be longer."""

import json
from pathlib import Path
from typing import Any

from utils.config.schema import Command, Hyp
from utils.config.values import read_yaml
from utils.errors import UserError
from utils.run.folder import LAST, OLDER, STABLE
from utils.run.state.checkpoint import Resumed, load_state, newest_state, open_resume, resume_command
from utils.schedule.extend import Extension, extension, extension_of_yaml, find_run


def open_earlier(command: Command, hyp: Hyp) -> tuple[Resumed | None, Hyp]:
    """The run to go on with, None for a new one, and the settings of the run that starts now."""
    if command.extend:
        return open_extension(command, hyp)
    return open_resume(command, hyp) if command.resume else (None, hyp)


def open_extension(command: Command, hyp: Hyp) -> tuple[Resumed, Hyp]:
    """The stable part of a run and the settings of the longer one; UserError where the two have a different past."""
    folder = find_run(command)
    stable = folder / "weights" / STABLE
    if not stable.is_file():
        raise _no_stable_part(command, hyp, folder)
    try:
        state = load_state(stable)
    except UserError as e:
        raise UserError(f"{stable} cannot be read: it is damaged, so {folder} cannot be extended.") from e
    longer = extension(folder, state["hyp"], hyp)
    longer.begins_at(state["nb"], bool(state["loss"]), state["progress"]["ni"])
    return Resumed(stable, state, None, notes=tuple(_warnings(longer)), extends=folder), longer.hyp


def _no_stable_part(command: Command, hyp: Hyp, folder: Path) -> UserError:
    """Why a run has kept no state to be extended from."""
    last = folder / "weights" / LAST
    if not last.exists() and not last.with_name(OLDER).exists():
        extension_of_yaml(command, hyp)
        return UserError(f"{folder} holds no state at all: it was stopped before its first one, or last.pt is removed.")
    state, _ = newest_state(last)
    longer, progress = extension(folder, state["hyp"], hyp), state["progress"]
    nb = state.get("nb") or max(progress["ni"] // max(progress["epoch"], 1), 1)  # an older one does not say
    at = longer.begins_at(nb, bool(state["loss"]))
    if not progress["finished"] and progress["ni"] <= at:
        return UserError(
            f"{folder} has come to batch {progress['ni']}, and can be extended from batch {at} on. Go on with it "
            f"first: {resume_command(folder)}"
        )
    if progress["ni"] >= at:
        why = f"weights/{STABLE} is missing: it was removed, or an earlier version of Preheat made the run"
    else:
        by = f"patience {longer.before.patience}" if _by_patience(longer, progress) else f"time {longer.before.time}"
        why = f"it ended after epoch {progress['epoch']} ({by}), before batch {at}, and so would the longer one"
    return longer.refused(why, nb)


def _by_patience(longer: Extension, progress: dict[str, Any]) -> bool:
    """Whether a run that ended before its last epoch did so for want of a better score."""
    return longer.before.time is None or progress["hours"] < longer.before.time


def _warnings(longer: Extension) -> list[str]:
    """What happened to a run on its way that no plan knows of."""
    file, began = longer.folder / "run.json", read_yaml(longer.folder / "hyp.yaml")
    starts = json.loads(file.read_text(encoding="utf-8")).get("resumes", []) if file.is_file() else []
    changed = {what for start in starts for key in ("hyp_changed", "data_changed") for what in start.get(key, ())}
    changed |= {"batch"} if began.get("batch") != longer.before.batch else set()
    if not changed:
        return []
    what = f"{longer.folder} was resumed with other settings or data ({'; '.join(sorted(changed))})"
    return [f"warning: {what}, so what comes is no run that had been planned with {longer.hyp.epochs} epochs"]
