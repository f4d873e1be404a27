"""What tune.py is told beside a run: a schema for each of its commands, and the command lines of runs."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from utils.compare.cells.declare import as_word
from utils.config.options import or_demo, resolve
from utils.config.schema import Command, Hyp, check
from utils.config.words import parse_tokens

ONCE = (  # of a single run of train.py
    *("resume", "resume_anyway", "extend", "stop_after", "plan", "profile", "wandb", "exist_ok"),
)


class Lr(BaseModel):
    """Of the range test."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    seeds: int = Field(3, ge=1, le=100, description="ramps, each from fresh weights with a seed of its own")
    steps: int = Field(
        100, ge=20, le=10000, description="optimizer steps of a ramp, each of as many batches as a run's"
    )
    lr_from: float = Field(1e-6, gt=0, le=10, description="learning rate of the first step")
    lr_to: float = Field(1.0, gt=0, le=100, description="learning rate of the last step, unless the loss diverges")
    group: Literal["all", "bias", "norm", "weight"] = Field(
        "all", description="what the ramp moves; the other groups stay at lr0"
    )
    project: str = Field("runs/tune", description="folder of the results")
    name: str = Field("lr", description="folder of this one inside `project`; numbered when taken")

    @model_validator(mode="after")
    def _rises(self) -> "Lr":
        if self.lr_to < 10 * self.lr_from:
            raise ValueError(f"lr_to {self.lr_to:g} has to be at least ten times lr_from {self.lr_from:g}")
        return self


class Check(BaseModel):
    """Of the seven steps before a long run."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    minutes: float | None = Field(
        None, gt=0, description="all steps together, on this machine; default: 30, of the embedded demo 4"
    )
    pictures: int = Field(8, ge=1, le=64, description="pictures that are learnt by heart, drawn from train")
    jobs: int | None = Field(None, ge=1, description="runs at once; default: one per device, two on a CPU")
    project: str = Field("runs/tune", description="folder of the results")
    name: str = Field("check", description="folder of this one inside `project`; numbered when another one is there")


def read_run(argv: Sequence[str], model: type[BaseModel]) -> tuple[Any, Command, Hyp, list[str], list[str]]:
    """Command line -> options of a command of tune.py, the run that they are about, notes, and the words of that run.

    Raises UserError. The demo where nothing names what to train.
    """
    own_keys = model.model_fields
    known = {k: v for k, v in {**Hyp.model_fields, **Command.model_fields, **own_keys}.items() if k not in ONCE}
    given, notes = parse_tokens(list(argv), known)
    own = check({k: v for k, v in given.items() if k in own_keys}, model)
    given, demo = or_demo({k: v for k, v in given.items() if k not in own_keys})
    command, hyp, more = resolve(given)
    return own, command, hyp, notes + demo + more, run_words(given)


def run_words(given: Mapping[str, Any]) -> list[str]:
    """Settings as words of train.py: the hyp file first, then --key value."""
    order = sorted(given, key=lambda key: key != "hyp")
    return [word for key in order for word in (f"--{key.replace('_', '-')}", as_word(given[key]))]


def train_line(words: Sequence[str], **changed: float | str) -> str:
    """The command that trains with some settings changed; those take the place of what was given."""
    pairs = dict(zip(words[::2], words[1::2], strict=True))
    pairs |= {f"--{key.replace('_', '-')}": f"{v:g}" if isinstance(v, float) else str(v) for key, v in changed.items()}
    return "python train.py " + shlex.join(word for pair in pairs.items() for word in pair)
