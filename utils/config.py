"""Everything a run is told: one schema, the only place where a default is written."""

import difflib
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from utils.errors import UserError


class Hyp(BaseModel):
    """One run, resolved; frozen. `Hyp()` is hyps/default.yaml."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    # run
    weights: str | None = Field(None, description="checkpoint (.pt), or a model .yaml for random initialisation")
    data: str | None = Field(None, description="dataset yaml")
    epochs: int = Field(100, ge=1, description="passes over the training pictures")
    batch: int = Field(16, description="pictures per forward pass over all ranks; -1: the largest that fits (CUDA)")
    imgsz: int = Field(640, ge=32, description="side of the square training picture, pixels")
    device: str = Field("auto", description="auto | cpu | cuda | 0 (number of a GPU)")
    workers: int = Field(
        8, ge=0, description="data worker processes per rank, at most one a core; 0: in the process itself"
    )
    seed: int = Field(0, ge=0, description="fixes head initialisation, order and augmentation")
    freeze: int | str | list[str] | None = Field(
        None, description="leading layers (a number), or parts: backbone, model.3"
    )
    amp: Literal["auto", "fp16", "bf16", "off"] = Field("auto", description="autocast; auto: fp16 on CUDA, off on CPU")
    cache: Literal["off", "disk", "ram"] = Field(
        "off", description="keep decoded pictures in a memory-mapped file | memory"
    )
    patience: int = Field(100, ge=0, description="epochs without a better mAP50-95 before the run stops; 0: never")
    val_every: int = Field(1, ge=1, description="epochs between evaluations; the last epoch is always evaluated")
    save_period: int = Field(0, ge=0, description="also keep weights/epochN.pt every N epochs; 0: never")
    time: float | None = Field(None, gt=0, description="stop after the epoch that passes this many hours")
    noval: bool = Field(False, description="evaluate only at the end")
    noplots: bool = Field(False, description="write no pictures")
    strict: bool = Field(False, description="a bad label row or picture is an error, not a message")
    single_cls: bool = Field(False, description="treat every class as one")
    project: str = Field("runs/train", description="folder of the runs")
    name: str = Field("exp", description="folder of this run inside `project`; numbered when taken")

    # schedule
    recipe: Literal["preheat"] = Field("preheat", description="timing rules")
    optimizer: Literal["sgd", "adam", "adamw"] = Field("sgd", description="sgd is Nesterov's; never changed")
    lr0: float = Field(0.01, gt=0, le=10, description="peak learning rate of the weights")
    lrf: float = Field(0.01, ge=0, le=1, description="final learning rate = lr0 * lrf")
    momentum: float = Field(0.937, ge=0, lt=1, description="of SGD; beta1 of Adam")
    weight_decay: float = Field(0.0005, ge=0, le=1, description="of the group `weight`, at nbs pictures per step")
    nbs: int = Field(64, ge=1, description="nominal batch size: batches are accumulated up to it")
    clip_norm: float | None = Field(10.0, gt=0, description="largest gradient norm of a step; null: no clipping")
    ema_decay: float = Field(0.9999, ge=0, lt=1, description="of the average of weights that is evaluated and kept")
    ema_tau: float | Literal["auto"] = Field(
        2000.0, description="steps over which ema_decay ramps up; auto: from the plan"
    )
    warmup: Literal["none", "linear"] = Field("linear", description="shape of the warm-up")
    warmup_epochs: float = Field(3.0, ge=0, description="length; fractions allowed; 0 = off")
    warmup_max: float = Field(0.3, ge=0, le=1, description="the warm-up is never longer than this part of the run")
    warmup_start: float = Field(0.0, ge=0, le=1, description="learning rate at ni = 0, as a factor of lr0")
    warmup_bias_lr: float | None = Field(0.1, ge=0, le=10, description="of the biases at ni = 0; null: like the others")
    warmup_momentum: float | None = Field(0.8, ge=0, lt=1, description="at ni = 0; null: no ramp; moves beta1 of Adam")
    decay: Literal["constant", "linear", "cosine", "one_cycle"] = Field("cosine", description="from lr0 to lr0 * lrf")

    # loss
    box: float = Field(7.5, ge=0, description="gain of the box loss")
    cls: float = Field(0.5, ge=0, description="gain of the class loss")
    dfl: float = Field(1.5, ge=0, description="gain of the distribution focal loss")
    head: Literal["keep", "rebuild"] = Field("keep", description="class branch when the classes differ")

    # pictures
    mosaic: float = Field(1.0, ge=0, le=1, description="probability of four pictures in one")
    close_mosaic: int = Field(10, ge=0, description="last epochs without mosaic and mixup")
    mixup: float = Field(0.0, ge=0, le=1, description="probability of a blend with a second sample")
    hsv_h: float = Field(0.015, ge=0, le=1, description="largest change of hue, fraction")
    hsv_s: float = Field(0.7, ge=0, le=1, description="largest change of saturation, fraction")
    hsv_v: float = Field(0.4, ge=0, le=1, description="largest change of value, fraction")
    degrees: float = Field(0.0, ge=0, le=180, description="largest rotation, degrees")
    translate: float = Field(0.1, ge=0, le=1, description="largest shift, fraction of imgsz")
    scale: float = Field(0.5, ge=0, lt=1, description="largest change of size: factor 1 - scale to 1 + scale")
    shear: float = Field(0.0, ge=0, le=89, description="largest shear, degrees")
    perspective: float = Field(0.0, ge=0, le=0.001, description="largest perspective")
    flipud: float = Field(0.0, ge=0, le=1, description="probability of an upside-down flip")
    fliplr: float = Field(0.5, ge=0, le=1, description="probability of a left-right flip")
    multi_scale: float = Field(0.0, ge=0, le=0.9, description="batch size in pixels varies by this fraction of imgsz")
    albumentations: list[dict[str, Any]] | None = Field(
        None, description="pixel transforms: [{name: Blur, p: 0.1}, ...]"
    )

    # evaluation
    conf: float = Field(0.001, ge=0, lt=1, description="smallest score that counts")
    iou: float = Field(0.7, gt=0, le=1, description="NMS threshold")
    max_det: int = Field(300, ge=1, description="detections per picture at most")
    multi_label: bool = Field(True, description="a box may carry several classes")
    agnostic_nms: bool = Field(False, description="NMS across classes")

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

    @model_validator(mode="before")
    @classmethod
    def _no_warmup_kind(cls, values: Any) -> Any:
        """`warmup: none` and `warmup_epochs: 0` are one thing: both are stored as both."""
        if isinstance(values, dict) and (
            values.get("warmup") == "none" or str(values.get("warmup_epochs")) in {"0", "0.0"}
        ):
            values = values | {"warmup": "none", "warmup_epochs": 0.0}
        return values


class Command(BaseModel):
    """What belongs to this start of the program and not to the run that it makes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    hyp: str | None = Field(None, description="hyp file; states what differs from hyps/default.yaml")
    resume: str | None = Field(None, description="last.pt of an interrupted run; goes on where it stopped")
    exist_ok: bool = Field(False, description="write into project/name although it exists")
    no_warmup: bool = Field(False, description="short for warmup=none warmup_epochs=0")
    stop_after: int | None = Field(None, ge=1, description="stop after this many epochs, as if interrupted")
    download: bool = Field(False, description="allow the network: official weights, a dataset's own download address")
    keep_gains: bool = Field(False, description="use the loss gains of a YOLOv5 hyp file on an anchor-free model")


def suggest(word: str, known: list[str]) -> str:
    """' Did you mean x?' or an empty string."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f" Did you mean '{close[0]}'?" if close else ""


def check(values: dict[str, Any], model: type[BaseModel] = Hyp) -> Any:
    """Values -> a frozen model; every wrong one is named with its range in one message (UserError)."""
    try:
        return model(**values)
    except ValidationError as e:
        raise UserError("; ".join(_explain(error, values, model) for error in e.errors())) from None


def _explain(error: dict[str, Any], values: dict[str, Any], model: type[BaseModel]) -> str:
    key = str(error["loc"][0]) if error["loc"] else "?"
    if error["type"] == "extra_forbidden":
        return f"unknown key '{key}'.{suggest(key, list(model.model_fields))}"
    field = model.model_fields.get(key)
    choices = [str(c) for c in get_args(field.annotation)] if field and error["type"] == "literal_error" else []
    hint = suggest(str(values.get(key)), choices) if choices else ""
    message = error["msg"].removeprefix("Value error, ").replace("Input should be", "it must be")
    return f"{key}: {values.get(key)!r} is not possible: {message} ({field.description if field else ''}).{hint}"


def save_hyp(path: Path, hyp: Hyp) -> None:
    """Write the resolved run; starting from this file repeats it."""
    path.write_text(yaml.safe_dump(hyp.model_dump(), sort_keys=False, allow_unicode=True), encoding="utf-8")
