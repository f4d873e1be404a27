"""Export a detector and run what was written: python export.py --weights best.pt --format onnx. Read top to bottom."""

import utils.env  # noqa: F401, I001  (first: sets the environment that the libraries read on import)

import sys
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, create_model

from utils.config.help import option_lines
from utils.config.options import as_trained
from utils.config.habits import as_ours
from utils.config.schema import Hyp, check
from utils.config.words import parse_tokens, take_lists
from utils.errors import SomeFailed, UserError, answer_first, run_script

DEMO = "no weights given: the embedded demo, as TorchScript, which needs no further library"
Formats = Annotated[
    list[Literal["onnx", "torchscript", "openvino"]],
    BeforeValidator(lambda value: value.strip("[]").replace(",", " ").split() if isinstance(value, str) else value),
]
Options = create_model(
    "Options",
    __config__=ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False),
    weights=(str | None, Field(None, description="checkpoint (.pt)")),
    format=(Formats, Field(["onnx"], min_length=1, description="onnx, torchscript, openvino: one or several")),
    imgsz=(int, Hyp.model_fields["imgsz"]),
    batch=(int, Field(1, ge=1, description="pictures per forward pass")),
    dynamic=(bool, Field(False, description="pictures of any size and number, not of imgsz and batch alone")),
    nms=(bool, Field(False, description="suppression inside the file: it answers with boxes, max_det a picture")),
    conf=(float, Field(0.25, ge=0, lt=1, description="smallest score, inside the file (--nms) and in the comparison")),
    iou=(float, Hyp.model_fields["iou"]),
    max_det=(int, Field(300, ge=1, le=1000, description="detections per picture at most")),
    opset=(int, Field(17, ge=13, le=20, description="of ONNX")),
    source=(str | None, Field(None, description="pictures to compare on, as detect.py takes them; null: drawn ones")),
    split=(Literal["val", "test", "train"], Field("val", description="part of a dataset yaml: val | test | train")),
    pictures=(int, Field(32, ge=1, description="pictures to compare on at most")),
    tolerance_score=(float, Field(0.001, gt=0, description="largest difference of a score to PyTorch's")),
    tolerance_box=(float, Field(0.5, gt=0, description="largest difference of a coordinate, pixels of the picture")),
    project=(str, Field("runs/export", description="folder of the exports")),
    name=(str, Field("exp", description="folder of this one inside `project`; numbered when taken")),
    exist_ok=(bool, Field(False, description="write into project/name although it exists")),
    download=(bool, Field(False, description="allow the network: official weights, a dataset's own address")),
)


def read_options(argv: list[str]) -> tuple[Any, list[str]]:
    """Options of a command line, and notes on old spellings; None: --help was asked for, and is printed."""
    if {"--help", "-h"} & set(argv):
        lines = ["usage: python export.py --weights best.pt --format onnx [--key value | key=value ...]", ""]
        print("\n".join(lines + option_lines(Options)))
        return None, []
    argv, habits = as_ours(argv, "export.py")
    argv, lists = take_lists(argv, ("format", "weights"), Options.model_fields)
    given_options, notes = parse_tokens(argv, Options.model_fields)
    if "weights" in lists:
        raise UserError(f"--weights {' '.join(lists['weights'])}: one network is exported at a time. Name one file.")
    given_options, notes = given_options | lists, habits + notes
    if "weights" not in given_options:
        demo = {"weights": "models/demo.pt", "format": ["torchscript"]}
        return check(demo | given_options, Options), [*notes, DEMO]
    return check(given_options, Options), notes


if __name__ == "__main__":
    answer_first(lambda: read_options(sys.argv[1:])[0] is None)  # before torch is loaded

import logging
from pathlib import Path

import torch
from torch import nn

from data.frames.inputs import Inputs, find_inputs
from data.frames.stills import read_stills
from data.toy.demo import demo_pictures
from models.detector import check_imgsz, for_evaluation, load_for_eval
from models.inference.export.metadata import Choices
from models.inference.export.read import open_weights
from models.inference.export.write import export
from models.weights.find import find_weights
from utils.device.ranks import Ranks, thread_count
from utils.evaluation.evaluate import Settings
from utils.run.console import configure_console
from utils.run.detection.agreement import Agreement, agreement
from utils.run.detection.detect import detector
from utils.run.folder import make_run_folder

log = logging.getLogger(__name__)
ALONE = 0.005  # part of the boxes that only one of them may have: those whose overlap is that of --iou


def main(argv: list[str] | None = None) -> dict[str, Agreement]:
    """Write every format, run it and compare; SomeFailed past the tolerance. By path, how it agrees with PyTorch."""
    argv = sys.argv[1:] if argv is None else [str(word) for word in argv]
    configure_console()
    options, notes = read_options(argv)
    if options is None:
        return {}
    torch.set_num_threads(thread_count(Ranks(0, 1, torch.device("cpu"))))
    model = load_for_eval(options.weights, options.download)
    options, more = as_trained(options, model.args, ("imgsz",))
    for note in notes + more:
        log.info(note)
    check_imgsz(options.imgsz, int(model.stride.max()))
    inputs = find_inputs([options.source or demo_pictures()], options.split, options.download)
    if not inputs.pictures:
        raise UserError(f"--source {options.source} has no picture to compare on. Name pictures or a folder of them.")
    folder = make_run_folder(options.project, options.name, options.exist_ok)
    stem = find_weights(options.weights, options.download).stem
    choices = Choices(**{name: getattr(options, name) for name in Choices.__dataclass_fields__})
    found = {}
    for kind in options.format:
        path = export(model, kind, folder, stem, choices)
        log.info(f"{kind}: {path} ({size_of(path) / 1e6:.1f} MB)")
        found[str(path)] = compare(model, path, inputs, options)
    wrong = [path for path, one in found.items() if not agrees(one, options)]
    if wrong:
        raise SomeFailed(
            f"{', '.join(wrong)} {'differ' if len(wrong) > 1 else 'differs'} from PyTorch by more than the tolerance "
            f"(score {options.tolerance_score:g}, box {options.tolerance_box:g} pixels). Do not use it."
        )
    return found


def compare(model: nn.Module, path: Path, inputs: Inputs, options: Any) -> Agreement:
    """What PyTorch and the file find on the same pictures, prepared the same way."""
    exported, device = open_weights(str(path)), torch.device("cpu")
    settings = Settings(options.conf, options.iou, options.max_det, multi_label=False)
    n = options.pictures
    batches = read_stills(
        inputs.pictures[:n], inputs.shapes[:n], imgsz=options.imgsz, stride=int(model.stride.max()), threads=1,
        batch=max(options.batch, 2 if options.dynamic else 1), rect=exported.fixed is None, whole=False,
        white=(model.args or {}).get("white_level"),
        broken=lambda path, why: log.info(f"skipped: {path}: {why}"),
    )  # fmt: skip
    ours, theirs = {}, {}
    with for_evaluation(model) as prepared:
        torch_detects, file_detects = detector(prepared, device, settings), detector(exported, device, settings)
        for k, batch in enumerate(batches):
            for found, detect in ((ours, torch_detects), (theirs, file_detects)):
                found |= {(k, i): boxes for i, boxes in detect(batch).items()}
    result = agreement(ours, theirs)
    log.info(f"  on {len(ours)} pictures: {result.line('PyTorch', 'the file')}")
    if not result.first:
        raise UserError(
            f"PyTorch finds no box above {options.conf:g} on {len(ours)} pictures, so nothing was compared. Name "
            "pictures of the kind that was trained on (--source), or lower --conf."
        )
    return result


def agrees(one: Agreement, options: Any) -> bool:
    """Whether an export is within the tolerance; a box may fall to either side of a threshold, and few do."""
    few = one.first + one.second - 2 * one.matched <= ALONE * (one.first + one.second)
    alone = few or one.lonely <= options.conf + options.tolerance_score
    return alone and one.score <= options.tolerance_score and one.box <= options.tolerance_box


def size_of(path: Path) -> int:
    """Bytes of a file, or of those in a folder."""
    return sum(p.stat().st_size for p in path.iterdir()) if path.is_dir() else path.stat().st_size


if __name__ == "__main__":
    sys.exit(run_script(main))
