"""What a run is told, checked: keys that each are possible and together are not are refused here."""

from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from utils.config.keys import Keys
from utils.config.recipes import RECIPES, apply_recipe
from utils.errors import UserError, suggest

ANCHOR_BASED = {"box": 0.05, "cls": 0.5}  # YOLOv5's gains
SUMS = ("sgd", "musgd")  # optimizers whose step grows with the gradient, hence with the batch


class Hyp(Keys):
    """One run, resolved; frozen. `Hyp()` is hyps/default.yaml."""

    @field_validator("batch")
    @classmethod
    def _batch(cls, value: int) -> int:
        if value == 0 or value < -1:
            raise ValueError("must be at least 1, or -1 for the largest that fits on a GPU")
        return value

    @field_validator("ema_tau")
    @classmethod
    def _tau(cls, value: float | str) -> float | str:
        if value != "auto" and value <= 0:
            raise ValueError("must be above 0, or auto")
        return value

    @field_validator("milestones")
    @classmethod
    def _milestones(cls, value: list[float]) -> list[float]:
        if any(m <= 0 for m in value) or sorted(set(value)) != value:
            raise ValueError("they must rise, and be above 0")
        return value

    @model_validator(mode="before")
    @classmethod
    def _apply_recipe(cls, values: Any) -> Any:
        """Keys in which the recipe or the kind of decay leaves no choice; all ways to switch warm-up off are one."""
        if not isinstance(values, dict):
            return values
        return apply_recipe((ANCHOR_BASED if values.get("gains") == "anchor-based" else {}) | values)

    @model_validator(mode="after")
    def _agree(self) -> "Hyp":
        """Keys that each are possible and together are not."""
        final = self.lr0 * self.lrf if self.min_lr is None else self.min_lr
        checks = [
            (
                self.warmup in {"constant", "exponential"} and self.warmup_start == 0,
                f"warmup_start: 0 with warmup: {self.warmup} trains nothing until the warm-up is over. Give a part of "
                "lr0, as 0.1",
            ),
            (
                self.optimizer == "auto" and not RECIPES[self.recipe].has_auto,
                "optimizer: auto is the rule of recipe: ultralytics, and no other has it. Name one: sgd, adam, adamw, "
                "musgd",
            ),
            (
                self.optimizer == "auto" and self.batch == -1,
                "optimizer: auto chooses by the number of batches, which batch: -1 leaves open. Name the batch",
            ),
            (
                self.scale_lr != "none" and self.optimizer in SUMS,
                "scale_lr is for adam and adamw: with sgd the loss is summed over the pictures of a step, so a larger "
                "batch already makes a larger step. Remove scale_lr",
            ),
            (
                self.snapshots and self.decay != "cosine_restarts",
                "snapshots: the end of each cycle is kept, and only decay: cosine_restarts has cycles. Set it, or "
                "leave snapshots out",
            ),
            (self.decay == "exponential" and final == 0, "decay: exponential never arrives at 0. Give lrf or min_lr"),
            (
                self.decay == "power" and (self.power <= 1 or self.lr0 >= 1),
                "decay: power falls only with a power above 1 and lr0 below 1: lr <- lr ** power. Give power: 1.0001",
            ),
            (self.min_lr is not None and self.min_lr > self.lr0, f"min_lr: {self.min_lr} is above lr0: {self.lr0}"),
            (
                self.decay == "one_cycle_torch" and self.base_momentum > self.max_momentum,
                f"base_momentum: {self.base_momentum} is above max_momentum: {self.max_momentum}",
            ),
            (
                self.warmup == "none" and (self.warmup_epochs_backbone or self.warmup_epochs_head),
                "warmup_epochs_backbone and warmup_epochs_head need a warm-up, and it is off (warmup: none, or a "
                "length of 0). Remove them, or set warmup",
            ),
        ]
        wrong = [message for holds, message in checks if holds]
        if wrong:
            raise ValueError("; ".join(wrong))
        return self


class Command(BaseModel):
    """What belongs to this start of the program and not to the run that it makes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    hyp: str | None = Field(None, description="hyp file; states what differs from hyps/default.yaml")
    resume: str | None = Field(None, description="last.pt of an interrupted run; goes on where it stopped")
    resume_anyway: bool = Field(False, description="resume although the data or the hyp differ from those of the start")
    extend: str | None = Field(
        None, description="folder of a run that a longer one, of --epochs, goes on from: decay wsd or constant"
    )
    exist_ok: bool = Field(False, description="write into project/name although it exists")
    no_warmup: bool = Field(False, description="short for warmup=none warmup_epochs=0")
    stop_after: int | None = Field(None, ge=1, description="stop after this many epochs, as if interrupted")
    download: bool = Field(False, description="allow the network: official weights, a dataset's own download address")
    trust_index: bool = Field(False, description="use the kept index without looking whether the dataset has changed")
    plan: bool = Field(
        False, description="only show what the run would do: a table and plan.png; several --hyp: overlaid"
    )
    profile: bool = Field(False, description="record the first 50 batches for TensorBoard, and say where the time goes")
    wandb: bool = Field(False, description="log to Weights & Biases, too (an extra: requirements-extra.txt)")
    keep_gains: bool = Field(False, description="use the loss gains of a YOLOv5 hyp file on an anchor-free model")


def check(values: dict[str, Any], model: type[BaseModel] = Hyp) -> Any:
    """Values -> a frozen model; every wrong one is named with its range in one message (UserError)."""
    try:
        return model(**values)
    except ValidationError as e:
        raise UserError("; ".join(_explain(error, values, model) for error in e.errors())) from None


def _explain(error: dict[str, Any], values: dict[str, Any], model: type[BaseModel]) -> str:
    if not error["loc"]:  # about several keys, which the message names
        return error["msg"].removeprefix("Value error, ") + "."
    key = str(error["loc"][0])
    if error["type"] == "extra_forbidden":
        return f"unknown key '{key}'.{suggest(key, list(model.model_fields))}"
    field = model.model_fields.get(key)
    choices = [str(c) for c in get_args(field.annotation)] if field and error["type"] == "literal_error" else []
    hint = suggest(str(values.get(key)), choices) if choices else ""
    message = error["msg"].removeprefix("Value error, ").replace("Input should be", "it must be")
    return f"{key}: {values.get(key)!r} is not possible: {message} ({field.description if field else ''}).{hint}"


def with_gains(hyp: Hyp, anchor_based: bool) -> Hyp:
    """`hyp` with the gains of the loss that its network has.

    UserError where `box` and `cls` are meant for the other kind: they differ by a factor of 150.
    """
    if anchor_based and hyp.gains != "anchor-based":
        given = {key: value for key in ANCHOR_BASED if (value := getattr(hyp, key)) != Hyp.model_fields[key].default}
        if given:
            raise UserError(
                f"{_listed(given)} of the loss is meant for an anchor-free network, and this one is anchor-based "
                f"(YOLOv5 has {_listed(ANCHOR_BASED)}). Remove it, or say what it is meant for: gains=anchor-based."
            )
        return hyp.model_copy(update={"gains": "anchor-based", **ANCHOR_BASED})
    if not anchor_based and hyp.gains == "anchor-based":
        raise UserError(
            f"the hyp file is one of YOLOv5: its {_listed({key: getattr(hyp, key) for key in ANCHOR_BASED})} belong to "
            "an anchor-based loss and would be wrong here (an anchor-free head wants box: 7.5, cls: 0.5, dfl: 1.5). "
            "Remove them, give others on the command line (box=7.5 cls=0.5), use anchor-based weights (yolov5n.pt), or "
            "insist: --keep-gains."
        )
    return hyp


def _listed(values: dict[str, Any]) -> str:
    """box: 0.05 and cls: 0.5"""
    return " and ".join(f"{key}: {value}" for key, value in values.items())


def save_hyp(path: Path, hyp: Hyp) -> None:
    """Write the resolved run; starting from this file repeats it."""
    path.write_text(yaml.safe_dump(hyp.model_dump(), sort_keys=False, allow_unicode=True), encoding="utf-8")
