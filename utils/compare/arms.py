"""The arms of a comparison: from the command line to resolved runs, and what differs between them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from utils.compare.statistics.paired import FEWEST
from utils.config.options import NO_DATA, resolve
from utils.config.schema import Command, Hyp, check
from utils.config.words import is_option, parse_tokens
from utils.errors import UserError

METRICS = (
    *("val/mAP50-95", "val/mAP50", "val/mAP75", "val/precision", "val/recall", "val/AR100"),
    *("also/mAP50-95", "also/mAP50"),  # of the set that --val-also names
)
OWN = ("device", "workers", "project", "name")  # of where a run takes place: no part of what an arm is
SINGLE = ("resume", "extend", "stop_after", "exist_ok")  # options of a single run, which a comparison refuses
DEMO = {"hyp": "demo", "epochs": 4}
EXAMPLE = "--arm warm finetune warmup_epochs=1 --arm cold finetune"


class Compare(BaseModel):
    """What a comparison is told beside its arms; frozen."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    seeds: int = Field(8, description="runs of each arm; seed k gives all arms the same head, order and augmentation")
    max_seeds: int | None = Field(
        None, ge=2, description="seeds of the last look, declared before the first one; default: --seeds, a single look"
    )
    metric: Literal[METRICS] = Field(
        METRICS[0], description="what decides, of the EMA weights after the last epoch; declared before the first look"
    )
    margin: float = Field(1.0, gt=0, le=100, description="differences below this do not matter, in points of 100")
    jobs: int | None = Field(None, ge=1, description="runs at once; default: one per device, two on a CPU")
    devices: str | None = Field(None, description="devices that runs are spread over: 0,1,2 | cpu")
    engine: Literal["local", "ray"] = Field("local", description="what starts the runs: this machine | a Ray cluster")
    address: str | None = Field(None, description="of a Ray cluster (--engine ray); default: one on this machine")
    run_gpus: float = Field(1.0, gt=0, le=64, description="GPUs of a run on a Ray cluster; 0.5: two share one")
    threads: int | None = Field(None, ge=1, description="CPU threads of each run; default: cores // jobs")
    sweep: str | None = Field(None, description="key=value,value,...: all arms at each value of one key")
    within: float = Field(1.0, gt=0, le=100, description="sweep: a value is usable within so many points of the best")
    folds: int | None = Field(None, ge=2, le=100, description="train + val in K folds; a pair is a fold, not a seed")
    repeats: int = Field(1, ge=1, le=100, description="of --folds, each with folds drawn anew")
    pool: Literal["mean"] = Field("mean", description="what decides over several data sets: the random-effects mean")
    aa: bool = Field(False, description="allow arms that are alike: what comes out is noise, or nothing at all")
    project: str = Field("runs/compare", description="folder of the comparisons")
    name: str = Field("exp", description="folder of this one inside `project`; numbered when another one is there")


@dataclass(frozen=True)
class Arm:
    """One setting under comparison."""

    name: str
    words: tuple[str, ...]  # as given
    hyp: Hyp  # resolved; its seed is added to that of each pair

    @property
    def scored(self) -> list[str]:
        """The data sets that a run reads: its own, and the one that is scored beside it."""
        return [str(self.hyp.data), *([str(self.hyp.val_also)] if self.hyp.val_also else [])]

    def settings(self) -> dict[str, Any]:
        """All that a run of this arm is told, but where it takes place."""
        return {key: value for key, value in self.hyp.model_dump().items() if key not in OWN}


@dataclass(frozen=True)
class Words:
    """What a command line or a declaration says, before the arms are resolved."""

    options: Compare
    shared: dict[str, Any]  # settings of all arms, by key
    groups: list[tuple[str, list[str]]]  # name and own words of each arm
    warmup: bool  # whether the arms are those of --warmup
    notes: list[str]
    given_options: set[str]  # names of the options of the comparison that were given


def read_command(argv: list[str]) -> tuple[Compare, Command, list[Arm], list[str], set[str]]:
    """Command line -> options of the comparison and of every run, arms (the first is the reference), notes, and which
    options of the comparison were given. Raises UserError."""
    words = read_words(argv)
    command, arms, notes = resolve_arms(words)
    return words.options, command, arms, list(dict.fromkeys(words.notes + notes)), words.given_options


def read_words(argv: list[str], names_data: bool = False) -> Words:
    """Command line -> what it says; the demo where it names nothing to train, unless `names_data`: others do it."""
    groups, rest, warmup = split_arms(argv)
    if groups and warmup:
        raise UserError("--warmup stands for two arms of its own: give it or --arm, not both.")
    known = {**Hyp.model_fields, **Command.model_fields, **Compare.model_fields}
    given, notes = parse_tokens(rest, known)
    given |= in_full(given)
    own = check({k: v for k, v in given.items() if k in Compare.model_fields}, Compare)
    shared = {"noplots": True} | {k: v for k, v in given.items() if k not in Compare.model_fields}
    if not groups:
        notes += [] if warmup else ["no --arm is given: warm-up on and off (--warmup)"]
        warmup = True
        groups = [("warm", []), ("cold", ["warmup=none", "warmup_epochs=0"])]
    if not names_data and not _names_a_run(shared, groups):
        shared = DEMO | shared
        own = own if "seeds" in given else own.model_copy(update={"seeds": FEWEST})
        notes.append(f"{NO_DATA}, {DEMO['epochs']} epochs")
    return Words(own, shared, groups, warmup, notes, given.keys() & Compare.model_fields.keys())


def in_full(given: Mapping[str, Any]) -> dict[str, Any]:
    """A metric without its val/, and devices that YAML has read as numbers, as options have them."""
    found, metric, devices = {}, given.get("metric"), given.get("devices")
    if isinstance(metric, str) and f"val/{metric}" in METRICS:
        found["metric"] = f"val/{metric}"
    if isinstance(devices, int | list):
        found["devices"] = ",".join(map(str, [devices] if isinstance(devices, int) else devices))
    return found


def resolve_arms(words: Words, of_cell: Mapping[str, Any] | None = None) -> tuple[Command, list[Arm], list[str]]:
    """What all runs are told, the arms, and notes; `of_cell`: settings that hold for all arms of one cell."""
    arms, commands, notes = [], [], []
    shared = {**words.shared, **(of_cell or {})}
    for name, own in words.groups:
        command, arm, more = _resolve_arm(name, own, shared)
        if words.warmup and not own and not arm.hyp.warmup_epochs and "warmup_epochs" not in shared:
            command, arm, more = _resolve_arm(name, own, {**shared, "warmup_epochs": 1.0})  # the hyp file has none
            more = [*more, "these settings have no warm-up, so it is given one of an epoch"]
        arms.append(arm)
        commands.append(command)
        notes += [f"{name}: {note}" for note in more]
    _refuse_settings(words.options, arms, commands, words.warmup)
    return commands[0], arms, notes


def _names_a_run(shared: Mapping[str, Any], groups: list[tuple[str, list[str]]]) -> bool:
    """Whether anything on the command line says what to train."""
    words = [word for _, words in groups for word in words]
    return bool({"hyp", "weights", "data"} & shared.keys()) or any(
        not is_option(word) or word.startswith(("weights=", "data=")) for word in words
    )


def split_arms(argv: list[str]) -> tuple[list[tuple[str, list[str]]], list[str], bool]:
    """Name and words of each `--arm`, all other words, and whether a bare `--warmup` was among them."""
    groups: list[tuple[str, list[str]]] = []
    rest, words, warmup = [], list(argv), False
    while words:
        word = words.pop(0)
        name = word.removeprefix("--arm=") if word.startswith("--arm=") else None
        following = bool(words) and not words[0].startswith("--")
        if word == "--arm" and following and "=" not in words[0]:
            name = words.pop(0)
        elif word == "--arm" or name == "":
            raise UserError(f"--arm needs a name, then a hyp file and key=value words: {EXAMPLE}")
        if name:
            own = []
            while words and not words[0].startswith("--"):
                own.append(words.pop(0))
            groups.append((name, own))
        elif word == "--warmup" and not (following and "=" not in words[0]):
            warmup = True
        else:
            rest.append(word)
    return groups, rest, warmup


def _resolve_arm(name: str, words: list[str], shared: Mapping[str, Any]) -> tuple[Command, Arm, list[str]]:
    """An arm from what all arms share and its own words, which come later and so count."""
    if not name.replace("-", "").replace("_", "").replace(".", "").isalnum() or name.startswith("."):
        raise UserError(f"arm '{name}': a name is made of letters, digits, '-', '_' and '.': it names a folder.")
    files = [word for word in words if not is_option(word)]
    if len(files) > 1:
        raise UserError(f"arm '{name}': one hyp file, then key=value words; '{files[1]}' is neither.")
    own, notes = parse_tokens([w for w in words if is_option(w)], {**Hyp.model_fields, **Command.model_fields})
    misplaced = sorted(own.keys() & {*OWN, "download", "trust_index", "plan"})
    if misplaced:
        raise UserError(f"arm '{name}': {misplaced[0]} says where a run takes place: give it once, for all arms.")
    if files:
        own["hyp"] = files[0]
    try:
        command, hyp, more = resolve({**shared, **own})
    except UserError as e:
        raise UserError(f"arm '{name}': {e}") from e
    return command, Arm(name, tuple(words), hyp), notes + more


def _refuse_settings(own: Compare, arms: list[Arm], commands: list[Command], warmup: bool) -> None:
    """What cannot be compared, or would say nothing."""
    if len(arms) < 2:
        raise UserError(
            f"a comparison needs two arms, and has {len(arms)}: {EXAMPLE}. Short for warm-up on and off: --warmup"
        )
    names = [arm.name.casefold() for arm in arms]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise UserError(f"two arms are named '{twice}'. Give each its own name: it names a folder.")
    if own.seeds < 2:
        raise UserError(
            f"--seeds {own.seeds}: one pair has no spread, so it says nothing about noise. Give at least {FEWEST}: "
            "with fewer no difference can be significant."
        )
    if own.max_seeds is not None and own.max_seeds < own.seeds:
        raise UserError(
            f"--max-seeds {own.max_seeds} is below --seeds {own.seeds}: it is the last look, not an earlier."
        )
    for command in commands:
        once = [k for k in SINGLE if getattr(command, k)]
        if once:
            raise UserError(
                f"--{once[0].replace('_', '-')} belongs to a single run: a comparison goes on by itself when repeated."
            )
    for arm in arms:
        for key in ("weights", "data"):
            if getattr(arm.hyp, key) is None:
                raise UserError(f"--{key} is missing: {Hyp.model_fields[key].description}. To try it out: --hyp demo")
        if arm.hyp.batch == -1:
            raise UserError("--batch -1 may find another size for each run: name the batch that all runs share.")
    if warmup and arms[0].hyp.warmup == "none":
        raise UserError(
            "--warmup compares with and without, but these settings have no warm-up (warmup: none). Name a hyp "
            "file that has one."
        )
    alike = next(((a, b) for i, a in enumerate(arms) for b in arms[i + 1 :] if a.settings() == b.settings()), None)
    if alike and not own.aa:
        raise UserError(
            f"arms '{alike[0].name}' and '{alike[1].name}' are identical: nothing can come of it. An arm's own "
            "words stand behind its name as key=value. To make sure that nothing comes of it, as an A/A test: --aa"
        )


def split_settings(arms: list[Arm]) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """Keys in which arms differ, {key: {arm: value}}, and the values of all others."""
    settings = {arm.name: arm.settings() for arm in arms}
    first = settings[arms[0].name]
    differs = {
        key: {name: values[key] for name, values in settings.items()}
        for key in first
        if any(values[key] != first[key] for values in settings.values())
    }
    return differs, {key: value for key, value in first.items() if key not in differs}


def cautions(differs: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What a reader of the comparison must know about its arms."""
    remarks = {
        "data": "the arms differ in data: a difference may be that of the pictures, and each is scored on its own val",
        "weights": "the arms differ in weights: a difference may be that of the start",
        "seed": "the arms differ in seed: the runs of a pair share neither head nor order nor augmentation",
        "epochs": "the arms differ in epochs: they are not given the same time",
        "batch": "the arms differ in batch",
        "fold": "the arms differ in fold: each is trained and scored on other pictures",
        "fold_seed": "the arms differ in fold_seed: each is trained and scored on other pictures",
        "imgsz": "the arms differ in imgsz: training costs and the evaluation differ, too",
    }
    split = {"classes", "single_cls", "conf", "iou", "max_det", "multi_label", "agnostic_nms"}
    notes = [remarks[key] for key in remarks if key in differs]
    scored = sorted(split & differs.keys())
    return notes + ([f"the arms are scored differently ({', '.join(scored)})"] if scored else [])
