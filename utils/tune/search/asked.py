"""What a search is told: its options, its space, and the settings of all runs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from utils.compare.arms import DEMO, METRICS, OWN, in_full
from utils.compare.statistics.paired import FEWEST
from utils.config.options import NO_DATA, resolve
from utils.config.schema import Command, Hyp, check
from utils.config.words import parse_tokens
from utils.errors import UserError
from utils.tune.options import ONCE
from utils.tune.search.space import Axis, grid_of, is_axis, join, parse_axis, read_space, usual_space


class Search(BaseModel):
    """Of the search."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    trials: int = Field(24, ge=2, le=100000, description="runs of the search, the settings as given being the first")
    sampler: Literal["tpe", "random", "grid"] = Field("tpe", description="how values are chosen")
    prune: Literal["median", "hyperband", "none"] = Field("median", description="end trials early by their mAP so far")
    space: str | None = Field(None, description="yaml of ranges, tune_results.csv or evolve.csv; words count more")
    storage: str | None = Field(
        None, description="database of the trials, any Optuna URL; default: a file in the folder"
    )
    metric: Literal[METRICS] = Field(METRICS[0], description="what is searched for, of the EMA after the last epoch")
    best: int = Field(1, ge=0, le=20, description="trials that are compared with the default on fresh seeds; 0: none")
    seeds: int | None = Field(
        None, ge=FEWEST, le=1000, description="fresh seeds of that comparison; default: the fewest that can claim"
    )
    margin: float = Field(1.0, gt=0, le=100, description="differences below this do not matter, in points of 100")
    out: str = Field(
        "hyps/tuned.yaml", description="hyp file of a winner that is certainly better; numbered when taken"
    )
    jobs: int | None = Field(None, ge=1, description="runs at once; default: one per device, two on a CPU")
    devices: str | None = Field(None, description="devices that runs are spread over: 0,1,2 | cpu")
    engine: Literal["local", "ray"] = Field("local", description="what starts the runs: this machine | a Ray cluster")
    address: str | None = Field(None, description="of a Ray cluster (--engine ray); default: one on this machine")
    run_gpus: float = Field(1.0, gt=0, le=64, description="GPUs of a run on a Ray cluster; 0.5: two share one")
    threads: int | None = Field(None, ge=1, description="CPU threads of each run; default: cores // jobs")
    project: str = Field("runs/tune", description="folder of the results")
    name: str = Field("search", description="folder of this one inside `project`; repeated, it goes on there")


class Asked(BaseModel):
    """What a command line asks for."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    options: Search
    axes: list[Axis]
    early: dict[str, Any]  # a point that is tried early; perhaps none
    given: dict[str, Any]  # settings of all runs
    command: Command
    hyp: Hyp
    notes: list[str]


def read_search(argv: Sequence[str]) -> Asked:
    """Command line -> what is asked for; raises UserError. The demo where nothing names what to train."""
    known = {k: v for k, v in {**Hyp.model_fields, **Command.model_fields}.items() if k not in ONCE}
    words = [word for word in argv if not is_axis(word)]
    given, notes = parse_tokens(words, known | Search.model_fields)
    own = {k: v for k, v in given.items() if k in Search.model_fields}
    options = check(own | in_full(own), Search)
    given = {"noplots": True} | {k: v for k, v in given.items() if k not in Search.model_fields}
    if not {"hyp", "weights", "data"} & given.keys():
        given = DEMO | given
        notes.append(f"{NO_DATA}, {given['epochs']} epochs")
    command, hyp, more = resolve(given)
    for key in ("weights", "data"):
        if getattr(hyp, key) is None:
            raise UserError(f"--{key} is missing: {Hyp.model_fields[key].description}. To try it out: --hyp demo")
    axes, early, file_notes = read_space(Path(options.space)) if options.space else ([], {}, [])
    axes = join([*axes, *(parse_axis(word) for word in argv if is_axis(word))])
    if not axes:
        axes = join(usual_space(hyp))
        file_notes.append(f"no space is given: {' '.join(f'{axis.key}={axis.word}' for axis in axes)}")
    refused = [axis.key for axis in axes if axis.key in (*OWN, "seed")]
    if refused:
        raise UserError(f"{refused[0]} is nothing to search over: it says where a run takes place, or is its luck.")
    if early.keys() != {axis.key for axis in axes} or not all(axis.holds(early[axis.key]) for axis in axes):
        early = {}
    if options.sampler == "grid":
        points = len(grid_of(axes))
        options = options.model_copy(update={"trials": points})
        file_notes.append(f"the grid has {points} points: so many trials are made")
    return Asked(
        options=options, axes=axes, early=early, given=given, command=command, hyp=hyp, notes=notes + more + file_notes
    )  # fmt: skip
