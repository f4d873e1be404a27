"""The table of all keys of a run; the only place where a default is written."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from utils.config.kinds import DECAYS, WARMUPS
from utils.config.recipes import RECIPES
from utils.config.values import Classes, Fold, SaveEvery


class Keys(BaseModel):
    """The keys of a run, of which `Hyp` makes one that can be made."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    # run
    weights: str | None = Field(None, description="checkpoint (.pt), or a model .yaml for random initialisation")
    data: str | None = Field(None, description="dataset yaml")
    epochs: int = Field(100, ge=1, description="passes over the training pictures")
    batch: int = Field(16, description="pictures per forward pass over all ranks; -1: the largest that fits (CUDA)")
    imgsz: int = Field(640, ge=32, description="side of the square training picture, pixels")
    device: str = Field("auto", description="auto | cpu | cuda | 0 (number of a GPU)")
    workers: int | None = Field(
        None,
        ge=0,
        description="data worker processes per rank, at most one a core; null: one fewer; 0: in the process itself",
    )
    seed: int = Field(0, ge=0, lt=2**32, description="fixes head initialisation, order and augmentation")
    deterministic: bool = Field(False, description="the same bits for the same seed on a GPU too, where torch can")
    freeze: int | str | list[int | str] | None = Field(
        None, description="leading layers (a number), or parts: backbone, model.3"
    )
    amp: Literal["auto", "fp16", "bf16", "off"] = Field("auto", description="autocast; auto: fp16 on CUDA, off on CPU")
    sync_bn: bool = Field(False, description="BatchNorm over the pictures of all ranks (GPUs only)")
    graph: bool = Field(
        False,
        description="the network's forward and backward as CUDA graphs, on one GPU; not where sizes vary",
    )
    channels_last: Literal["auto", "on", "off"] = Field(
        "auto", description="memory layout of pictures and weights; auto: on, but not on Windows"
    )
    cache: Literal["off", "disk", "ram"] = Field(
        "off", description="keep decoded pictures in a memory-mapped file | memory"
    )
    white_level: float | None = Field(
        None, gt=0, description="value that is white in pictures of more than 8 bits; null: the least that holds them"
    )
    cache_gb: float | None = Field(
        None, gt=0, description="largest size of all kept decoded pictures, GB; null: nine tenths of what is free"
    )
    loader: Literal["ring", "torch"] = Field(
        "ring", description="batches through shared buffers allocated once | torch's DataLoader: the same bits"
    )
    fraction: float = Field(1.0, gt=0, le=1, description="part of the training pictures that is used")
    fold: Fold = Field(
        None, description="k/K, as 2/6: train and val are pooled and dealt into K folds, and fold k is val"
    )
    fold_seed: int = Field(0, ge=0, lt=2**32, description="how folds are dealt; no other seed changes that")
    val_also: str | None = Field(
        None, description="a second dataset yaml that every evaluation scores too, by class name: also/mAP50-95"
    )
    classes: Classes = Field(None, description="only these classes, by name; null: all")
    patience: int = Field(100, ge=0, description="epochs without a better score before the run stops; 0: never")
    patience_from: int = Field(
        0, ge=0, description="first epochs, which neither count for patience nor can be the best"
    )
    best_metric: Literal["mAP50-95", "mAP50", "mAP75", "precision", "recall", "F1", "val_loss"] = Field(
        "mAP50-95",
        description="score by which best.pt and patience judge; F1: of precision and recall; val_loss: the smallest",
    )
    val_every: int = Field(1, ge=1, description="epochs between evaluations; the last epoch is always evaluated")
    keep_best: int = Field(
        1,
        ge=1,
        description="also keep weights/best-epochN.pt of the k best epochs, and score their ensemble; 1: none",
    )
    snapshots: bool = Field(
        False, description="of cosine_restarts: keep the end of each cycle, and score the ensemble of all"
    )
    save_period: int = Field(0, ge=0, description="also keep weights/epochN.pt every N epochs; 0: never")
    save_every: SaveEvery = Field(
        10.0, description="minutes between two states inside an epoch, or 'N batches'; 0: at its end only"
    )
    time: float | None = Field(None, gt=0, description="stop after the epoch that passes this many hours")
    noval: bool = Field(False, description="evaluate only at the end")
    noplots: bool = Field(False, description="write no pictures")
    strict: bool = Field(False, description="a bad label row or picture is an error, not a message")
    single_cls: bool = Field(False, description="treat every class as one")
    project: str = Field("runs/train", description="folder of the runs")
    name: str = Field("exp", description="folder of this run inside `project`; numbered when taken")

    # schedule
    recipe: Literal[tuple(RECIPES)] = Field(
        "preheat", description="timing rules; all but preheat repeat their originals, quirks included"
    )
    optimizer: Literal["sgd", "adam", "adamw", "musgd", "auto"] = Field(
        "sgd", description="sgd is Nesterov's; auto: as ultralytics chooses, only under its recipe; else never changed"
    )
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
    warmup: Literal[tuple(WARMUPS)] = Field(
        "linear", description="shape of the warm-up; constant: held at warmup_start, then a jump"
    )
    warmup_epochs: float = Field(3.0, ge=0, description="length; fractions allowed; 0 = off")
    warmup_iters: int | None = Field(None, ge=0, description="length in batches, in place of warmup_epochs")
    warmup_epochs_backbone: float | None = Field(None, ge=0, description="lr of this part only; null: warmup_epochs")
    warmup_epochs_head: float | None = Field(None, ge=0, description="lr of this part only; null: warmup_epochs")
    warmup_max: float = Field(0.3, ge=0, le=1, description="the warm-up is never longer than this part of the run")
    warmup_start: float = Field(0.0, ge=0, le=1, description="learning rate at ni = 0, as a factor of lr0")
    warmup_bias_lr: float | None = Field(0.1, ge=0, le=10, description="of the biases at ni = 0; null: like the others")
    warmup_momentum: float | None = Field(0.8, ge=0, lt=1, description="at ni = 0; null: no ramp; moves beta1 of Adam")
    warmup_clock: Literal["batch", "epoch"] = Field(
        "batch", description="the warm-up moves every batch | every epoch: a staircase, as Keras-style callbacks have"
    )
    warmup_accumulate: Literal["ramp", "none", "one"] = Field(
        "ramp", description="batches per step in the warm-up: 1 to nominal, always nominal, or 1"
    )
    decay: Literal[tuple(DECAYS)] = Field(
        "cosine", description="from lr0 to lr0 * lrf; one_cycle is YOLOv5's half cosine, one_cycle_torch rises first"
    )
    decay_from: Literal["run", "warmup"] = Field(
        "run", description="clock of the decay starts with run | after warm-up"
    )
    clock: Literal["batch", "epoch"] = Field("batch", description="the decay moves every batch | every epoch")
    min_lr: float | None = Field(
        None, ge=0, le=10, description="in place of lr0 * lrf; step, plateau, inverse_sqrt and power never go below it"
    )
    milestones: list[float] = Field([0.3, 0.6, 0.9], description="of step: below 1, parts of the run; else epochs")
    gamma: float = Field(0.1, gt=0, lt=1, description="factor of each reduction, of step and plateau")
    power: float = Field(1.0, gt=0, description="of polynomial: (1 - t) ** power; of power: lr <- lr ** power")
    T_0: int = Field(10, ge=1, description="of cosine_restarts: epochs of the first cycle")
    T_mult: int = Field(1, ge=1, description="of cosine_restarts: each cycle is this many times the one before")
    pct_start: float = Field(0.3, gt=0, lt=1, description="of one_cycle_torch: part of the run in which lr rises")
    div_factor: float = Field(25.0, ge=1, description="of one_cycle_torch: starts at lr0 / div_factor")
    final_div_factor: float = Field(1e4, ge=1, description="of one_cycle_torch: ends at its start / final_div_factor")
    base_momentum: float = Field(0.85, ge=0, lt=1, description="of one_cycle_torch: where lr is highest")
    max_momentum: float = Field(0.95, ge=0, lt=1, description="of one_cycle_torch: at both ends")
    plateau_metric: Literal["val/mAP50-95", "val/mAP50", "val/mAP75", "val/precision", "val/recall"] = Field(
        "val/mAP50-95", description="of plateau: higher is better"
    )
    plateau_patience: int = Field(10, ge=0, description="of plateau: epochs without a better one that are tolerated")
    plateau_cooldown: int = Field(0, ge=0, description="of plateau: epochs after a reduction that do not count")
    wsd_decay: float = Field(0.2, gt=0, le=1, description="of wsd: last part of the run, falling linearly")
    lr_backbone: float = Field(1.0, gt=0, le=100, description="factor of every lr of the carried-over layers")
    lr_head: float = Field(1.0, gt=0, le=100, description="factor of every lr of the head")
    scale_lr: Literal["none", "sqrt", "linear"] = Field(
        "none", description="lr by pictures per step / nbs; Adam-type only, for sgd's summed loss already does it"
    )

    # loss
    box: float = Field(7.5, ge=0, description="gain of the box loss")
    cls: float = Field(0.5, ge=0, description="gain of the class loss")
    dfl: float = Field(1.5, ge=0, description="gain of the distribution focal loss")
    gains: Literal["anchor-free", "anchor-based"] = Field(
        "anchor-free", description="the networks that box and cls are meant for; YOLOv5's (box 0.05) are anchor-based"
    )
    obj: float = Field(1.0, ge=0, description="gain of the objectness loss; this key and the next: anchor-based only")
    anchor_t: float = Field(
        4.0, gt=1, description="largest factor between the sides of a box and of an anchor that is to find it"
    )
    iou_t: float = Field(0.2, ge=0, lt=1, description="the same as an IoU, of a network of Darknet's")
    fl_gamma: float = Field(0.0, ge=0, description="gamma of the focal loss; 0: none")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="part of the class targets that is spread evenly")
    autoanchor: bool = Field(
        False, description="replace the anchors where others fit the training boxes better; else their fit is only said"
    )
    cls_pw: float = Field(
        0.0, ge=0, le=1, description="class weights in the class loss: inverse frequency to this power; 0: none"
    )
    head: Literal["keep", "rebuild"] = Field("keep", description="class branch when the classes differ")

    # pictures
    mosaic: float = Field(1.0, ge=0, le=1, description="probability of four pictures in one")
    close_mosaic: int = Field(10, ge=0, description="last epochs without mosaic and mixup")
    mixup: float = Field(0.0, ge=0, le=1, description="probability of a blend with a second sample")
    balance: float = Field(
        0.0, ge=0, le=1, description="0: every picture once an epoch; 1: drawn so that rare classes are as frequent"
    )
    hsv_mode: Literal["exact", "matrix"] = Field(
        "exact", description="through the HSV space | one 3x3 colour matrix: faster, and another augmentation"
    )
    hsv_on: Literal["host", "device"] = Field(
        "host", description="colours are changed by the data workers | on the GPU, a batch at once: equal to one level"
    )
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
