"""Evaluate a detector: python val.py --weights best.pt --data data.yaml. Read top to bottom."""

import utils.env  # noqa: F401, I001  (first: sets the environment that the libraries read on import)

import sys
from typing import Any, Literal

from pydantic import ConfigDict, Field, create_model

from utils.config.help import option_lines
from utils.config.options import as_trained
from utils.config.habits import as_ours
from utils.config.schema import Command, Hyp, check
from utils.config.words import parse_tokens, take_lists
from utils.errors import UserError, answer_first, run_script

SHARED = (
    "imgsz", "device", "workers", "amp", "channels_last", "strict", "single_cls", "noplots", "conf", "iou", "max_det",
    "multi_label", "agnostic_nms", "classes", "fold", "fold_seed", "white_level",
)  # fmt: skip
TRAINED = (
    "imgsz",
    "conf",
    "iou",
    "max_det",
    "multi_label",
    "agnostic_nms",
    "single_cls",
    "white_level",
)  # of the weights unless given
DEMO = {"weights": "models/demo.pt", "data": "toy-source"}
DEMO_NOTE = "neither --weights nor --data is given: the embedded demo, on the drawn world that it was pretrained on"
Options = create_model(
    "Options",
    __config__=ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False),
    weights=(
        str | list[str] | None,
        Field(None, description="checkpoint or exported file; several: an ensemble"),
    ),
    average=(list[str] | None, Field(None, min_length=2, description="in place of weights: the mean of checkpoints")),
    fusion=(Literal["nms", "wbf"], Field("nms", description="of an ensemble: one suppression, or weighted box fusion")),
    tta=(bool, Field(False, description="look at every picture three times: as it is, smaller and flipped, smaller")),
    data=(str | None, Field(None, description="dataset yaml")),
    split=(Literal["val", "test", "train"], Field("val", description="part of the dataset: val | test | train")),
    batch=(int, Field(16, ge=1, description="pictures per forward pass")),
    save_txt=(bool, Field(False, description="also write labels/*.txt: class x y w h score, in 0..1")),
    errors=(bool, Field(False, description="also errors.html: what is wrong, the worst pictures, labels to look at")),
    worst=(int, Field(50, ge=0, description="pictures that errors.html shows")),
    other_seeds=(
        str | list[str] | None,
        Field(
            None,
            description="weights or a folder of runs: errors.html says which labels none of them finds",
        ),
    ),
    project=(str, Field("runs/val", description="folder of the evaluations")),
    name=(str, Field("exp", description="folder of this one inside `project`; numbered when taken")),
    exist_ok=(bool, Field(False, description="write into project/name although it exists")),
    download=(bool, Field(False, description="allow the network: official weights, a dataset's own address")),
    trust_index=(bool, Command.model_fields["trust_index"]),
    **{name: (Hyp.model_fields[name].annotation, Hyp.model_fields[name]) for name in SHARED},
)


def read_options(argv: list[str]) -> tuple[Any, list[str]]:
    """Options of a command line, and notes on old spellings; None: --help was asked for, and is printed."""
    if {"--help", "-h"} & set(argv):
        print(help_text())
        return None, []
    argv, habits = as_ours(argv, "val.py")
    argv, lists = take_lists(argv, ("weights", "average", "other_seeds"), Options.model_fields)
    given_options, notes = parse_tokens(argv, Options.model_fields)
    given_options |= lists
    demo = [] if {"weights", "data", "average"} & given_options.keys() else [DEMO_NOTE]
    options = check((DEMO if demo else {}) | given_options, Options)
    if options.average and options.weights:
        raise UserError("--average and --weights are both given: name all checkpoints of the mean behind --average.")
    if options.other_seeds and not options.errors:
        raise UserError(
            "--other-seeds says what none of several detectors finds, which errors.html shows: add --errors."
        )
    for key in ("weights", "data"):
        if getattr(options, key) is None and not (key == "weights" and options.average):
            meaning = Options.model_fields[key].description
            raise UserError(
                f"--{key} is missing: {meaning}. Without both the embedded demo is evaluated. All options: --help"
            )
    return options, habits + notes + demo


def help_text() -> str:
    """Every option with its default and meaning, made from the schema."""
    lines = ["usage: python val.py --weights best.pt --data data.yaml [--key value | key=value ...]", ""]
    return "\n".join(lines + option_lines(Options))


if __name__ == "__main__":
    answer_first(lambda: read_options(sys.argv[1:])[0] is None)  # before torch is loaded

import logging
from pathlib import Path

import numpy as np
import torch
from torch import nn

from data.definition.dataset_yaml import DatasetConfig, find_yaml, load_dataset_yaml
from data.index.folds import open_part
from data.index.index import Index
from data.loading.loader import build_eval_loader
from data.pictures.decode import load_picture
from data.scored import depths_of, with_white
from models.detector import check_imgsz, for_evaluation, load_for_eval
from models.inference.classes import match_names, weights_of
from models.inference.combined.average import average, estimate_statistics
from models.inference.combined.open import as_one, each_run, open_detectors
from models.inference.export.read import check_size, open_weights
from models.weights.save import save_weights
from models.weights.variant import is_anchor_based
from utils.device.images import memory_format, preprocess
from utils.device.ranks import DTYPES, Ranks, open_device, pick_amp, pick_device, thread_count, worker_count
from utils.evaluation.bootstrap import Resamples, bootstrap, interval_lines
from utils.evaluation.diagnosis.page import write_errors
from utils.evaluation.evaluate import Evaluation, Settings, evaluate, forward
from utils.evaluation.metrics import yolov5_ap
from utils.evaluation.output import Samples, numbered, speed_line, table_lines, write_json, write_labels, write_pictures
from utils.evaluation.plots import plot_evaluation
from utils.evaluation.truth import LIMIT
from utils.run.console import configure_console, progress_bar
from utils.run.folder import make_run_folder

log = logging.getLogger(__name__)
FOR_STATISTICS = 512  # training pictures that BatchNorm statistics of a mean are estimated on, at most
SHOWN = 1280  # pixels of the long side of a picture in errors.html


def main(argv: list[str] | None = None) -> dict[str, float]:
    """One evaluation, from the command line to its metrics, also printed and written to a folder."""
    argv = sys.argv[1:] if argv is None else [str(word) for word in argv]
    configure_console()
    options, notes = read_options(argv)
    if options is None:
        return {}
    for note in notes:
        log.info(note)

    ranks = Ranks(0, 1, pick_device(options.device))
    torch.set_num_threads(thread_count(ranks))
    if options.average:
        models = [average(options.average, options.download)]
    else:
        models = open_detectors(options.weights, options.download)
    model = models[0]
    same_data = trained_on(options.data, model.args)
    keys = (*TRAINED, "fold", "fold_seed", "batch") if same_data and options.split != "test" else TRAINED
    options, notes = as_trained(options, model.args, keys)
    for note in notes + [line for one in models for line in seen_before(options, one.args, same_data)]:
        log.info(note)
    stride = max(int(one.stride.max()) for one in models)
    check_imgsz(options.imgsz, stride)
    rect = all([check_size(one, options) for one in models])
    config = load_dataset_yaml(options.data, options.download)
    index, names = open_part(config, options.split, options, options.trust_index), list(model.names.values())
    options = with_white(options, *depths_of(config, index, options))
    class_map = [0] * len(names) if options.single_cls else match_names(names, index.names, options)
    settings = Settings.of(options, None)
    model = as_one(models, options.weights, options.tta, options.fusion, settings)
    others = open_others(options, index.names, stride)
    folder = make_run_folder(options.project, options.name, options.exist_ok)
    if options.average:
        model = write_average(model, config, options, stride, folder)

    loader = build_eval_loader(
        index, imgsz=options.imgsz, stride=stride, batch=options.batch, rect=rect,
        workers=worker_count(options.workers, ranks), pin=ranks.device.type == "cuda", white=options.white_level,
    )  # fmt: skip
    if loader.pin:  # the workers are forked before the GPU is opened
        loader.start()
    samples = Samples()
    result = run(model, loader, index, class_map, samples, ranks.device, options)
    others = {
        name: run(one, loader, index, by_name, Samples(), ranks.device, options)
        for name, (one, by_name) in others.items()
    }
    draws = bootstrap(index, result)
    for line in table_lines(result, index.n) + interval_lines(draws):
        log.info(line)
    if is_anchor_based(getattr(model, "yaml", {})):  # an exported network has none
        log.info("as YOLOv5 measures it: mAP50 {:.4f}  mAP50-95 {:.4f}".format(*yolov5_ap(index, result.detections)))
    log.info(f"{speed_line(result)} ({ranks.device}, batch {options.batch}, imgsz {options.imgsz})")
    by_json, of_others = numbered_by_json(config, options.split, index), [one.detections for one in others.values()]
    write_files(folder, result, draws, index, samples, options, by_json, of_others)
    return result.metrics


def run(
    model: nn.Module,
    loader: Any,
    index: Index,
    class_map: list[int] | None,
    samples: Samples,
    device: torch.device,
    options: Any,
) -> Evaluation:
    """Evaluate on the device; `samples` keeps some of the pictures."""
    dtype = DTYPES[pick_amp(options.amp, device)]
    open_device(device)
    model.to(device, memory_format=memory_format(options.channels_last))
    bar = samples.watch(progress_bar(loader, len(loader), options.split, True), len(loader))
    with for_evaluation(model) as model:
        if device.type == "cuda":  # the first pass loads kernels: not a cost of the first picture
            forward(model, torch.zeros(1, 3, options.imgsz, options.imgsz, device=device), dtype)
        return evaluate(model, bar, index, device, Settings.of(options, dtype, class_map))


def open_others(options: Any, names: list[str], stride: int) -> dict[str, tuple[nn.Module, list[int] | None]]:
    """The detectors of --other-seeds by their file, each with its classes as those of the data."""
    opened = {}
    for path in each_run(options.other_seeds, of=options.weights):
        model, told = open_weights(str(path)), options.model_copy(update={"weights": str(path), "average": None})
        if int(model.stride.max()) > stride or not check_size(model, told):
            raise UserError(f"{path} takes other pictures than {weights_of(options)}. Leave it out.")
        own = list(model.names.values())
        opened[str(path)] = model, [0] * len(own) if options.single_cls else match_names(own, names, told)
    if opened:
        log.info(f"labels that none finds: {len(opened)} more detectors look at all pictures: {', '.join(opened)}")
    return opened


def write_average(model: nn.Module, config: DatasetConfig, options: Any, stride: int, folder: Path) -> nn.Module:
    """The mean of checkpoints with BatchNorm statistics of training pictures, as average.pt, and as read from there."""
    index = open_part(config, "train", options, options.trust_index)
    index = index.take(np.unique(np.linspace(0, index.n - 1, min(index.n, FOR_STATISTICS)).astype(int)))
    loader = build_eval_loader(
        index, imgsz=options.imgsz, stride=stride, batch=options.batch, workers=0, white=options.white_level
    )
    n = estimate_statistics(model, (preprocess(batch["img"], torch.device("cpu")) for batch in loader))
    path = folder / "average.pt"
    save_weights(path, model, list(model.names.values()), model.args, 0, {})
    log.info(f"average of {len(options.average)} checkpoints, BatchNorm statistics of {n} training pictures: {path}")
    return load_for_eval(str(path))


def trained_on(data: str, trained_with: dict[str, Any]) -> bool:
    """Whether the run behind the weights was given this dataset yaml."""
    try:
        return find_yaml(data).samefile(find_yaml(trained_with["data"]))
    except (KeyError, TypeError, OSError, UserError):
        return False


def seen_before(options: Any, trained_with: dict[str, Any], same_data: bool) -> list[str]:
    """What must be known where the weights were trained on another fold than the one that is scored, or on none."""
    theirs = trained_with.get("fold"), trained_with.get("fold_seed", 0)
    ours = options.fold, options.fold_seed
    had = f"fold {theirs[0]}, fold_seed {theirs[1]}" if theirs[0] else "no fold"
    if options.split != "val" or theirs == ours or theirs[0] is ours[0] is None:
        return []
    if same_data:
        return [f"warning: the weights were trained with {had}: they may have learned from pictures that are scored"]
    if ours[0] is None:
        return [
            f"note: the weights were trained with {had} of {trained_with.get('data')} and know most of its pictures"
        ]
    return []


def numbered_by_json(config: DatasetConfig, split: str, index: Index) -> bool:
    """Whether the ids of the pictures are those of a COCO json, or of two that a fold is drawn from."""
    splits = ("train", "val") if index.pool else (split,)
    places = [[place.suffix.lower() for place in config.own(name)] for name in splits]
    listed = any(config.listed(name) for name in splits)  # these are numbered anew
    if listed or not all(suffixes == [".json"] for suffixes in places):
        return False
    return index.pool is None or index.pool.own_ids


def write_files(
    folder: Path,
    result: Evaluation,
    draws: Resamples,
    index: Index,
    samples: Samples,
    options: Any,
    by_json: bool,
    others: list[dict[int, np.ndarray]],
) -> None:
    """Everything that outlives the console, and a line that says where it is.

    by_json: a json numbers the pictures. others: what the detectors of other seeds found.
    """
    predictions = result.predictions
    if not by_json:
        predictions, note = numbered(predictions, index)
        log.info(note)
    write_json(folder / "predictions.json", predictions)
    scores = {"metrics": result.metrics, "per_class": result.per_class, "speed_ms": result.speed}
    scores["more_than_100_of_a_class"] = result.counted > LIMIT  # then more detections count than COCO's 100
    scores["interval_95"] = {f"val/{name}": list(draws.interval(name)) for name in draws.value}  # over pictures
    scores["confidence_at_best_f1"] = float(result.f1.confidence[result.f1.best])
    write_json(folder / "metrics.json", scores | {"options": options.model_dump()})
    if options.save_txt:
        write_labels(folder / "labels", index, result.detections)
    if options.errors:
        title = f"{weights_of(options)} on {options.data}, {options.split}"
        read = lambda row: picture_of(index, row, options.white_level)  # noqa: E731
        for line in write_errors(folder, index, result, read, options.worst, title, others):
            log.info(line)
    if not options.noplots:
        plot_evaluation(folder, result, index.names)
        write_pictures(folder / "pictures.jpg", samples, index, result.detections)
    log.info(f"written to {folder}: {', '.join(sorted(p.name for p in folder.iterdir()))}")


def picture_of(index: Index, row: int, white: float | None) -> np.ndarray:
    """A picture (h, w, 3), uint8 RGB, its long side at most SHOWN pixels."""
    h, w = index.shapes[row].tolist()
    return load_picture(index.paths[row], (h, w), min(max(h, w), SHOWN), True, white)[..., ::-1]


if __name__ == "__main__":
    sys.exit(run_script(main))
