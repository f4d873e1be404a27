"""Report on a dataset: python -m data.index DATA.yaml. Nothing is written to the dataset."""

import utils.env  # noqa: F401, I001  (first: sets the environment that the libraries read on import)

import logging
import sys
from functools import reduce
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field, create_model

from data.definition.config import DatasetConfig
from data.definition.dataset_yaml import load_dataset_yaml
from data.definition.listed import left_out_classes
from data.index.copies import Copies, find_copies
from data.sources.depth import Depth, white_lines
from data.index.index import Index, build_index
from data.report.counts import Counts, count
from data.report.files import CLASSES, SHOWN, write_report
from data.report.text import leaks
from utils.config.help import option_lines
from utils.config.options import or_demo
from utils.config.schema import Hyp, check
from utils.config.words import is_option, parse_tokens
from utils.errors import UserError
from utils.run.console import configure_console
from utils.run.folder import make_run_folder

log = logging.getLogger(__name__)
USAGE = "usage: python -m data.index DATA.yaml [--key value | key=value ...]"
SPLITS = ("train", "val", "test")
Options = create_model(
    "Options",
    __config__=ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False),
    data=(str | None, Field(None, description="dataset yaml; may stand without --data")),
    split=(Literal["all", "train", "val", "test"], Field("all", description="part: all | train | val | test")),
    imgsz=(int, Field(640, ge=32, description="size that boxes are judged at: side of the training picture, pixels")),
    strict=(bool, Field(False, description="problems and leaks end with exit code 2; labels are read again")),
    all=(bool, Field(False, description=f"print every problem and class, not the first {SHOWN} and {CLASSES}")),
    single_cls=(bool, Hyp.model_fields["single_cls"]),
    noplots=(bool, Hyp.model_fields["noplots"]),
    project=(str, Field("runs/data", description="folder of the reports")),
    name=(
        str | None,
        Field(None, description="folder of this one inside `project`; none: as the yaml; numbered"),
    ),
    exist_ok=(bool, Field(False, description="write into project/name although it exists")),
    download=(bool, Field(False, description="allow the network: the dataset's own address")),
)


def main(argv: list[str] | None = None) -> dict[str, Counts]:
    """One report, from the command line to its files; the numbers of each split."""
    argv = sys.argv[1:] if argv is None else [str(word) for word in argv]
    configure_console()
    if {"--help", "-h"} & set(argv):
        print(help_text())
        return {}
    given_options, notes = parse_tokens(name_dataset(argv), Options.model_fields)
    given_options, demo = or_demo(given_options, ("data",))
    for note in notes + demo:
        log.info(note)
    options = check(given_options, Options)

    config = load_dataset_yaml(options.data, options.download)
    indexes, refused = read_splits(config, options)
    if not indexes:
        raise UserError(" ".join(refused) or f"no split of {config.path} can be used.")
    folder = make_run_folder(options.project, options.name or config.path.stem, options.exist_ok)
    counts = {
        split: count(index, txt=all(place.suffix.lower() != ".json" for place in config.places(split)))
        for split, index in indexes.items()
    }
    copies = find_copies({split: index.paths for split, index in indexes.items()})
    problems = list(dict.fromkeys(str(p) for index in indexes.values() for p in index.problems))
    title = f"dataset  {config.path}"
    depths = [index.depth for index in indexes.values()]
    depth = reduce(Depth.joined, [indexes[split].depth for split in ("train", "val") if split in indexes] or depths)
    for line in left_out_classes(config) + white_lines(depths):
        log.info(line)
    for line in write_report(folder, title, indexes, counts, copies, problems, options.imgsz, options.all):
        log.info(line)
    if not options.noplots:
        from data.report.plots import plot_boxes, write_sheet

        plot_boxes(counts, next(iter(indexes.values())).names, options.imgsz, folder / "label_plots.png")
        write_sheet(indexes, folder / "pictures.png", depth.white)
    log.info(f"written to {folder}: {', '.join(sorted(p.name for p in folder.iterdir()))}")
    end_as_asked(problems, copies, refused, options.strict)
    return counts


def name_dataset(argv: list[str]) -> list[str]:
    """The words with --data before a dataset that stands alone, anywhere: DATA.yaml --strict, --strict DATA.yaml."""
    words: list[str] = []
    for i, word in enumerate(argv):
        before = argv[i - 1] if i else ""
        key = before.removeprefix("--").removeprefix("no-").replace("-", "_")
        switch = key in Options.model_fields and Options.model_fields[key].annotation is bool
        is_value = before.startswith("--") and "=" not in before and (not switch or word.lower() in {"true", "false"})
        if word.startswith("--") or is_value or (is_option(word) and not Path(word).exists()):
            words.append(word)
        elif "--data" in words or "--data" in argv[i:]:
            raise UserError(f"'{word}': one dataset at a time. {USAGE}")
        else:
            words += ["--data", word]
    return words


def read_splits(config: DatasetConfig, options: Any) -> tuple[dict[str, Index], list[str]]:
    """Indexes of the splits that are asked for, and why others cannot be used."""
    splits = SPLITS if options.split == "all" else (options.split,)
    if options.split == "all":
        there = [split for split in SPLITS if getattr(config, split) is not None]
        if not there:
            raise UserError(f"{config.path} has no 'train', 'val' or 'test'. Add 'train: <folder of pictures>'.")
        splits = [split for split in SPLITS if split in there or split != "test"]  # train.py needs the first two
    indexes, refused = {}, []
    for split in splits:
        try:
            indexes[split] = read_split(config, split, options)
        except UserError as e:
            if split == "test" and options.split == "all" and not options.strict:  # Roboflow's yamls name one anyway
                log.info(f"test is left out, and no training needs it: {e}")
            else:
                refused.append(str(e))
    return indexes, refused


def read_split(config: DatasetConfig, split: str, options: Any) -> Index:
    """The index of a split; a strict reading that fails is repeated: its problems are reported, not only counted."""
    if options.strict:
        try:
            return build_index(config, split, strict=True, single_cls=options.single_cls)
        except UserError:
            pass
    return build_index(config, split, single_cls=options.single_cls)


def end_as_asked(problems: list[str], copies: Copies, refused: list[str], strict: bool) -> None:
    """UserError when a split cannot be used, or when --strict does not bear what was found."""
    reasons = list(refused)
    if strict and problems:
        reasons.append(f"{len(problems):,} problems, and --strict is set.")
    if strict:
        for a, b, groups in leaks(copies):
            shared = f"{copies.splits[a]} and {copies.splits[b]} share {len(groups):,} pictures"
            reasons.append(f"{shared}, and --strict is set.")
    if reasons:
        raise UserError(" ".join(reasons))


def help_text() -> str:
    """Every option with its default and meaning, made from the schema."""
    lines = [USAGE, ""]
    return "\n".join(lines + option_lines(Options))
