"""A run goes on by itself after torchrun has restarted its ranks (--max-restarts)."""

import json
import os
import socket
from pathlib import Path

from utils.config.schema import Command, Hyp

WHERE = ("device", "workers", "noplots")  # settings of a command line that a run which goes on may be given


def launch() -> str | None:
    """What all starts by one torchrun have in common: the id that it was given, or who it is; None without torchrun.

    Its own id is `none` for all unless --rdzv-id is given, as several machines need it.
    """
    given = os.environ.get("TORCHELASTIC_RUN_ID")
    return f"{socket.gethostname()}-{os.getppid()}" if given == "none" else given


def restarted(command: Command, hyp: Hyp) -> tuple[Command, Hyp]:
    """The command and settings that go on with the run of this torchrun, where it is not the first start.

    As they are at the first start, for a command that resumes already, and where the run has not saved a state.
    """
    if not int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)) or command.resume:
        return command, hyp
    for about in sorted(Path(hyp.project).glob("*/run.json"), key=lambda p: p.stat().st_mtime, reverse=True):
        if json.loads(about.read_text(encoding="utf-8")).get("launch") == launch():
            last = about.parent / "weights/last.pt"
            if not last.exists():
                break
            kept = {key: getattr(hyp, key) for key in hyp.model_fields_set.intersection(WHERE)}
            return command.model_copy(update={"resume": str(last), "hyp": None, "extend": None}), Hyp(**kept)
    return command, hyp
