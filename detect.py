"""Detect on pictures, videos or a camera: python detect.py --weights best.pt --source folder. Read top to bottom."""

import utils.env  # noqa: F401, I001  (first: sets the environment that the libraries read on import)

import sys
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, create_model

from utils.config.help import option_lines
from utils.config.options import as_trained
from utils.config.habits import as_ours
from utils.config.schema import Hyp, check
from utils.config.words import parse_tokens, take_lists
from utils.errors import StoppedBySignal, UserError, answer_first, run_script

SHARED = (
    "imgsz", "device", "workers", "amp", "channels_last", "iou", "max_det", "agnostic_nms", "classes", "white_level",
)  # fmt: skip
DEMO = "neither --weights nor --source is given: the embedded demo, pictures of the kind its network was pretrained on"
Options = create_model(
    "Options",
    __config__=ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False),
    weights=(
        str | list[str] | None,
        Field(None, description="checkpoint or exported file; several: an ensemble"),
    ),
    fusion=(Literal["nms", "wbf"], Field("nms", description="of an ensemble: one suppression, or weighted box fusion")),
    tta=(bool, Field(False, description="look at every picture three times: as it is, smaller and flipped, smaller")),
    source=(
        str | list[str] | None,
        Field(
            None,
            description="picture, folder, 'glob', video, list.txt, dataset yaml, camera number, - (standard input)",
        ),
    ),
    split=(Literal["val", "test", "train"], Field("val", description="part of a dataset yaml: val | test | train")),
    conf=(
        Annotated[float, Field(ge=0, lt=1)] | Literal["auto"],
        Field(0.25, description="smallest score; auto: that of best F1 on val, a class each (best.pt)"),
    ),
    batch=(int, Field(8, ge=1, description="pictures per forward pass; a camera: 1 unless given")),
    multi_label=(bool, Field(False, description="a box may carry several classes")),
    nosave=(bool, Field(False, description="draw no pictures and no videos")),
    save_txt=(bool, Field(False, description="also write labels/*.txt: class x y w h score, in 0..1")),
    save_crop=(bool, Field(False, description="also write crops/CLASS/*.jpg: the part of the picture in each box")),
    line_width=(int | None, Field(None, ge=1, description="of drawn boxes, pixels; null: by the size of the picture")),
    hide_labels=(bool, Field(False, description="draw boxes without a name")),
    hide_conf=(bool, Field(False, description="draw names without a score")),
    project=(str, Field("runs/detect", description="folder of the runs")),
    name=(str, Field("exp", description="folder of this one inside `project`; numbered when taken")),
    exist_ok=(bool, Field(False, description="write into project/name although it exists")),
    download=(bool, Field(False, description="allow the network: official weights, a dataset's own address")),
    **{name: (Hyp.model_fields[name].annotation, Hyp.model_fields[name]) for name in SHARED},
)


def read_options(argv: list[str]) -> tuple[Any, list[str]]:
    """Options of a command line, and notes on old spellings; None: --help was asked for, and is printed."""
    if {"--help", "-h"} & set(argv):
        lines = ["usage: python detect.py --weights best.pt --source folder [--key value | key=value ...]", ""]
        print("\n".join(lines + option_lines(Options)))
        return None, []
    argv, habits = as_ours(argv, "detect.py")
    argv, lists = take_lists(argv, ("weights", "source"), Options.model_fields)
    given_options, notes = parse_tokens(argv, Options.model_fields)
    options, notes = check(given_options | lists, Options), habits + notes
    if options.weights is None and options.source is None:
        return check({"weights": "models/demo.pt", **options.model_dump(exclude_unset=True)}, Options), [*notes, DEMO]
    for key in ("weights", "source"):
        if getattr(options, key) is None:
            meaning = Options.model_fields[key].description
            raise UserError(
                f"--{key} is missing: {meaning}. Without both the embedded demo is run. All options: --help"
            )
    return options, notes


if __name__ == "__main__":
    answer_first(lambda: read_options(sys.argv[1:])[0] is None)  # before torch is loaded

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from data.frames.inputs import Inputs, find_inputs
from data.frames.stills import read_stills
from data.frames.video import open_video, read_video
from data.index.subset import class_id
from data.loading.device.transfer import locked_copy
from data.toy.demo import demo_pictures
from models.detector import check_imgsz, for_evaluation
from models.inference.combined.open import as_one, open_detectors
from models.inference.export.read import check_size
from utils.device.images import ToDevice, in_channels_last, memory_format
from utils.device.ranks import DTYPES, Ranks, open_device, pick_amp, pick_device, thread_count, worker_count
from utils.device.streams import sent_ahead
from utils.evaluation.evaluate import Settings
from utils.run.console import PictureBar, configure_console
from utils.run.detection.detect import Detect, detector
from utils.run.detection.names import Names
from utils.run.detection.thresholds import least_scores, read_thresholds
from utils.run.detection.write import Output
from utils.run.folder import make_run_folder

log = logging.getLogger(__name__)
SHOWN = 10  # files that are skipped and named one by one


def main(argv: list[str] | None = None) -> dict[str, int]:
    """From the command line to drawn pictures and predictions.json; counts of pictures and boxes come back."""
    argv = sys.argv[1:] if argv is None else [str(word) for word in argv]
    configure_console()
    options, notes = read_options(argv)
    if options is None:
        return {}
    ranks = Ranks(0, 1, pick_device(options.device))
    torch.set_num_threads(thread_count(ranks))
    models = open_detectors(options.weights, options.download)
    model = models[0]
    options, more = as_trained(options, model.args, ("imgsz", "white_level"))
    for note in notes + more:
        log.info(note)
    stride, classes = max(int(one.stride.max()) for one in models), list(model.names.values())
    check_imgsz(options.imgsz, stride)
    rect = all([check_size(one, options) for one in models])
    wanted = None if options.classes is None else [class_id(word, classes) for word in options.classes]
    least = least_scores(options.conf, classes, read_thresholds(model.thresholds), wanted)
    inputs = find_inputs(sources_of(options), options.split, options.download)
    say_skipped(inputs.skipped)
    require_opened(inputs)
    folder = make_run_folder(options.project, options.name, options.exist_ok)
    names = Names([*inputs.pictures, *inputs.videos, *filter(None, [inputs.camera])], inputs.image_ids)
    category_ids = inputs.category_ids or list(range(1, len(classes) + 1))

    threads = max(worker_count(options.workers, ranks), 1)
    bar, broken, counts = PictureBar("pictures"), [], {"pictures": 0, "boxes": 0, "broken": 0}
    began = time.perf_counter()
    try:
        with Output(folder, names, classes, options, threads, category_ids) as output:
            with detecting(models, least, ranks.device, options) as detect:
                for source, live in sources(inputs, stride, rect, threads, output, options, bar, broken):
                    run(sent(source, live, ranks.device, options), detect, output, bar, counts)
    except StoppedBySignal:
        log.info("stopped: what has been found until now is kept")
        raise
    finally:
        bar.close()
        counts["broken"] = len(broken)
        say_skipped(broken)
        close(counts, time.perf_counter() - began, folder)
    return counts


@contextmanager
def detecting(models: list[nn.Module], least: np.ndarray, device: torch.device, options: Any) -> Iterator[Detect]:
    """What finds the boxes of a batch, in pixels of the original pictures, best first; least (nc,) of least_scores."""
    dtype = DTYPES[pick_amp(options.amp, device)]
    settings = Settings.of(options.model_copy(update={"conf": float(least.min())}), dtype)
    model = as_one(models, options.weights, options.tta, options.fusion, settings)
    open_device(device)
    model.to(device, memory_format=memory_format(options.channels_last))
    with for_evaluation(model) as prepared:
        yield detector(prepared, device, settings, least)


def sources(
    inputs: Inputs,
    stride: int,
    rect: bool,
    threads: int,
    output: Output,
    options: Any,
    bar: PictureBar,
    broken: list[tuple[str, str]],
) -> Iterator[tuple[Iterator[dict[str, Any]], bool]]:
    """The batches of all pictures, then those of each video, and whether it is a camera: to be used before the next.

    `broken` takes up what cannot be decoded, and why.
    """
    sizes = {"imgsz": options.imgsz, "stride": stride, "batch": options.batch, "rect": rect}
    if inputs.pictures:
        bar.expect(len(inputs.pictures))
        hear = lambda path, why: broken.append((path, why))  # noqa: E731
        paths, shapes, whole = inputs.pictures, inputs.shapes, output.wants_pictures
        more = {"threads": threads, "whole": whole, "broken": hear, "white": options.white_level}
        yield read_stills(paths, shapes, **sizes, **more), False
    if inputs.camera and "batch" not in options.model_fields_set:
        sizes["batch"] = 1  # a camera's frames are wanted now
    for path in [*inputs.videos, *filter(None, [inputs.camera])]:
        try:
            video = open_video(path)
        except UserError as e:
            broken.append((path, str(e)))
            continue
        bar.expect(video.frames)
        output.begin_video(path, video.fps)
        yield read_video(video, **sizes), path == inputs.camera
        output.end_video()


def sent(
    batches: Iterator[dict[str, Any]], live: bool, device: torch.device, options: Any
) -> Iterator[tuple[dict[str, Any], Tensor]]:
    """Each batch with its pictures on the device; a GPU gets the next one meanwhile, but for a camera's (`live`)."""
    to_device = ToDevice(device, in_channels_last(options.channels_last), DTYPES[pick_amp(options.amp, device)])
    if live or device.type != "cuda":
        return ((batch, to_device(batch)) for batch in batches)
    return sent_ahead(batches, device, lambda batch: to_device({"img": locked_copy(batch["img"])}))


def run(
    batches: Iterator[tuple[dict[str, Any], Tensor]],
    detect: Detect,
    output: Output,
    bar: PictureBar,
    counts: dict[str, int],
) -> None:
    """Detect on batch after batch and hand on what was found; `counts` adds up."""
    for batch, images in batches:
        found = detect(batch, images)
        for i, frame in enumerate(batch["frames"]):
            output.add(frame, found[i])
            counts["boxes"] += len(found[i])
        counts["pictures"] += len(batch["frames"])
        bar.add(len(batch["frames"]))


def sources_of(options: Any) -> list[str]:
    """What is to be looked at, as a list; for the demo some pictures are drawn."""
    if options.source is None:
        return [demo_pictures()]
    return [options.source] if isinstance(options.source, str) else options.source


def require_opened(inputs: Inputs) -> None:
    """UserError, before anything is written, where a camera or an only video cannot be opened."""
    if inputs.camera or (len(inputs.videos) == 1 and not inputs.pictures):
        open_video(inputs.camera or inputs.videos[0]).capture.release()


def say_skipped(skipped: list[tuple[str, str]]) -> None:
    """Name files that are not used, the first ones."""
    for path, why in skipped[:SHOWN]:
        log.info(f"skipped: {path}: {why}")
    if len(skipped) > SHOWN:
        log.info(f"skipped: {len(skipped) - SHOWN} more files")


def close(counts: dict[str, int], seconds: float, folder: Any) -> None:
    """What was found, how fast, and where it lies."""
    rate = counts["pictures"] / max(seconds, 1e-9)
    files = ", ".join(sorted(p.name for p in folder.iterdir())[:5])
    more = f" and {n - 5} more" if (n := len(list(folder.iterdir()))) > 5 else ""
    log.info(f"{counts['pictures']} pictures, {counts['boxes']} boxes, {rate:.1f} pictures/s with reading and writing")
    log.info(f"written to {folder}: {files}{more}")


if __name__ == "__main__":
    sys.exit(run_script(main))
