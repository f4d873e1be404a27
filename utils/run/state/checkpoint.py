"""The state of a run on disk: a dictionary of tensors and plain values, written beside its target and moved over it."""

import json
import logging
import shlex
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.serialization import add_safe_globals, clear_safe_globals, get_safe_globals

from utils.config.schema import Command, Hyp, check, save_hyp
from utils.errors import UserError
from utils.files import save_whole
from utils.run.folder import LAST, OLDER, STABLE, cannot_write, is_closed, make_run_folder, require_free
from utils.run.state.progress import Progress
from utils.run.state.seed import random_state, set_random_state
from utils.run.state.settings import FIXED, FREE, change, given_settings, others
from utils.run.state.sound import require_archive, require_bounded, require_fit, require_state

FORMAT = "preheat-1"
log = logging.getLogger(__name__)


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write `state` so that `path` is at every instant the old file or the new one, never a part of it.

    What a last.pt held before stays beside it as last-older.pt.
    """
    older = path.with_name(OLDER) if path.name == LAST else None
    try:
        save_whole(path, {"format": FORMAT, **state}, older)
    except OSError as e:
        raise cannot_write(path, e) from e


def newest_state(path: Path) -> tuple[dict[str, Any], list[str]]:
    """The state in `path`; where that cannot be read, and it is a run's last.pt, the one before it, with a warning."""
    try:
        return load_state(path), []
    except UserError as e:
        older = path.with_name(OLDER)
        if path.name != LAST or not older.is_file():
            raise
        state = load_state(older)
        ni, epoch = state["progress"]["ni"], state["progress"]["epoch"]
        return state, [f"warning: {e} Going on from {older}, the state before it (batch {ni}, after epoch {epoch})."]


def load_state(path: Path) -> dict[str, Any]:
    """Read what `save_state` wrote, on the CPU; nothing in the file can run. UserError when it is something else."""
    if not path.is_file():
        raise UserError(f"no checkpoint at {path}. --resume wants runs/train/<name>/weights/last.pt.")
    try:
        if not zipfile.is_zipfile(path):
            raise ValueError("no archive of torch.save")
        require_archive(path)
        state = _read(path)
    except UserError:
        raise
    except Exception as e:  # torch raises RuntimeError, EOFError, UnpicklingError, ... by the kind of damage
        raise UserError(
            f"{path} cannot be resumed: it is damaged, or no last.pt of Preheat (best.pt has no optimizer; use the "
            "last.pt beside it)."
        ) from e
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise UserError(f"{path} is no last.pt of Preheat; to fine-tune from it use --weights {quoted(path)}.")
    require_bounded(state, path)
    require_state(state, path)
    return state


def _read(path: Path) -> Any:
    """What torch.save wrote; only tensors and plain values, whatever classes a library lets torch load."""
    allowed = get_safe_globals()
    clear_safe_globals()
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    finally:
        add_safe_globals(allowed)


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


def made_on(device: torch.device) -> dict[str, str]:
    """What the bits of a run depend on beside its settings: a resumed run says where it differs."""
    cpu = torch.backends.cpu.get_cpu_capability()
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU ({cpu})"
    ranks = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
    return {"device": where, "ranks": str(ranks), "torch": str(torch.__version__)}


def restore(state: dict[str, Any], parts: dict[str, Any], model: torch.nn.Module) -> None:
    """Put what `collect` gathered back into the parts; UserError where it does not fit."""
    require_fit(state, parts, model)
    for name, part in parts.items():
        part.load_state_dict(state[name])
    for name, p in model.named_parameters():
        if name in state["gradients"]:
            p.grad = state["gradients"][name].to(p.device).clone(memory_format=torch.preserve_format)
    set_random_state(state["random"])


@dataclass(frozen=True)
class Resumed:
    """An interrupted run, as read from its last.pt."""

    path: Path
    state: dict[str, Any]
    folder: Path | None  # None: the file lies in no run folder, and the run goes on in a new one
    changed: tuple[str, ...] = ()  # keys of the hyp that are others than at the start
    notes: tuple[str, ...] = ()  # for the user
    extends: Path | None = None  # folder of a run that a longer one, in a new folder, goes on from

    def finished(self) -> dict[str, float] | None:
        """The metrics of a run that has nothing left to do, which is said; None where it has."""
        if not (self.state["progress"]["finished"] and is_closed(self.folder)):
            return None
        name = self.folder or self.path
        log.info(f"{name} is a finished run. More epochs are a new run from its weights: --weights {self.path}")
        if self.folder and (self.folder / "weights" / STABLE).is_file():
            log.info(f"or the run that had been planned with more: --extend {quoted(self.folder)} --epochs N")
        return self.state["progress"]["metrics"]

    def fit(self, hyp: Hyp, nb: int, other_data: bool) -> None:
        """Bring the place in the epoch to `nb` batches an epoch."""
        progress, old = Progress(**self.state["progress"]), self.state["hyp"]["batch"]
        old_nb = self.state.get("nb") or (progress.ni // progress.epoch if progress.epoch else nb)
        if (old, old_nb) != (hyp.batch, nb):
            progress.rescale(nb, old_nb, hyp.batch / old, other_data)
            self.state["progress"] = asdict(progress)
        if other_data:
            self.state["meter"] = None

    def say_what_differs(self, hyp: Hyp, device: torch.device) -> None:
        """Say why the bits will not be those of the run that was never stopped; the device is open."""
        old, before = self.state["hyp"]["batch"], self.state.get("made_on", {})
        notes = [] if old == hyp.batch else [f"batch {hyp.batch}, {old} before"]
        notes += [
            f"{key} {now}, {before[key]} before" for key, now in made_on(device).items() if before.get(key, now) != now
        ]
        if notes:
            log.info(f"not the bits of the run that was never stopped: {'; '.join(notes)}")

    def place(self, nb: int) -> tuple[int, int]:
        """The epoch that is open, and its batch to go on with; nb: batches per epoch."""
        progress = Progress(**self.state["progress"])
        return progress.epoch, progress.ni - progress.epoch * nb


def open_resume(command: Command, hyp: Hyp) -> tuple[Resumed, Hyp]:
    """The run to go on with and its settings; the command line says where it runs and where its data lie, not what."""
    path = latest_state(Path(hyp.project)) if command.resume == "latest" else Path(command.resume)
    path = path / "weights/last.pt" if path.is_dir() else path
    folder = run_folder_of(path)
    if folder and not path.exists() and not path.with_name(OLDER).exists():
        raise UserError(
            f"there is no state in {path.parent}: the run was stopped before its first one. {start_again(folder)}"
        )
    state, notes = newest_state(path)
    if folder:
        require_free(folder)
    where = {"project"} if folder else {"project", "name"}
    given = given_settings(hyp, without=where)
    free = FREE | ({"val_also"} if state["hyp"].get("val_also") else set())
    differ = others(given, state["hyp"], free)
    if differ and not (command.resume_anyway and not FIXED & differ.keys()):
        refused = {key: differ[key] for key in sorted(differ) if key in FIXED or not command.resume_anyway}
        anyway = "" if FIXED & differ.keys() else " To go on all the same, which run.json records: --resume-anyway."
        raise UserError(
            f"--resume goes on with a run as it was started: {', '.join(refused)} cannot change "
            f"({change(refused, state['hyp'])}). "
            f"For other settings start a new run from its weights: --weights {quoted(path)}.{anyway}"
        )
    for key, value in differ.items():
        notes.append(f"warning: {key} is {value} from here on; the run was started with {state['hyp'].get(key)}")
    if folder is None:
        given |= {key: getattr(hyp, key) for key in where & hyp.model_fields_set}
    return Resumed(path, state, folder, tuple(sorted(differ)), tuple(notes)), check(state["hyp"] | given)


def start_again(folder: Path) -> str:
    """What to do about a run that was stopped before its first state; a longer one would find a past in its folder."""
    about = folder / "run.json"
    extends = json.loads(about.read_text(encoding="utf-8")).get("extends") if about.is_file() else None
    if extends:
        return f"Remove {folder}, and extend {extends} again."
    return f"Start it again: python train.py --hyp {quoted(folder / 'hyp.yaml')} --exist-ok"


def run_folder_of(path: Path) -> Path | None:
    """The folder of the run that a last.pt belongs to; None for a copy that lies elsewhere."""
    folder = path.resolve().parent.parent
    return folder if path.resolve().parent.name == "weights" and (folder / "hyp.yaml").is_file() else None


def check_data(resumed: Resumed, now: dict[str, Any], moved: bool, anyway: bool) -> list[str]:
    """How the data differ from those that a run was trained on; UserError unless `anyway`.

    now: what `data.index.identity.traits` says of them; moved: they are named by another path than at the start.
    """
    before = resumed.state.get("data")
    if before is None:  # written before runs knew their data: the classes at least
        before = {"names": resumed.state["names"]}
        differ = ["what the run was trained on is not recorded in its last.pt, so other data cannot be told"] * moved
    else:
        differ = []
        before = dict.fromkeys(now) | before
    for key, value in before.items():
        if value != now.get(key):
            differ.append(f"{key}: {_brief(value)} at the start, {_brief(now.get(key))} now")
    if len(before["names"]) != len(now["names"]):
        raise UserError(
            f"{resumed.path} was trained on other classes: {'; '.join(differ)}. A run cannot change its number of "
            f"classes. Start a new one from its weights: --weights {quoted(resumed.path)}"
        )
    if differ and not anyway:
        raise UserError(
            f"the data are not those that {resumed.path} was trained on: {'; '.join(differ)}. Put them back, name "
            "where they are now with --data, or go on all the same with --resume-anyway, which records it."
        )
    return differ


def quoted(path: Path) -> str:
    """A path as a shell wants it in the commands that are printed."""
    return shlex.quote(str(path))


def _brief(value: Any) -> str:
    """A trait of a dataset in a sentence; of a digest the beginning."""
    return ", ".join(value) if isinstance(value, list) else str(value)[:12]


def open_run_folder(hyp: Hyp, resumed: Resumed | None, exist_ok: bool) -> Path:
    """The folder that a run writes to, with weights/ in it: a new one, or that of the run which goes on."""
    folder = resumed.folder if resumed else None
    if folder is None:
        folder = make_run_folder(hyp.project, hyp.name, exist_ok)
        require_free(folder)
        save_hyp(folder / "hyp.yaml", hyp)
        if resumed and resumed.extends:
            log.info(f"{folder} goes on from {resumed.path}")
        elif resumed:
            log.info(f"{resumed.path} lies in no run folder, so the run goes on in a new one: {folder}")
    (folder / "weights").mkdir(exist_ok=True)
    for left in (folder / "weights").glob("*.tmp"):  # by a process that was killed while it wrote
        left.unlink(missing_ok=True)
    return folder


def resume_command(folder: Path) -> str:
    """What to type to go on with the run in `folder`."""
    return shlex.join(["python", "train.py", "--resume", str(folder / "weights" / LAST)])
