"""A Darknet .weights file -> model yaml, class names and tensors, with the .cfg beside it or YOLOv3's own layout."""

import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import ultralytics
import yaml
from torch import Tensor

from models.weights.cfg import Network, read_cfg
from models.weights.find import read_model_yaml
from utils.errors import UserError

STANDARD = ("yolov3-spp", "yolov3")  # layouts that the size of a file tells
EPS = 1e-5  # of BatchNorm, as Darknet has it on a GPU
LEAK = 0.1  # slope of its leaky ReLU
BOX = 5  # numbers of an anchor before the classes
OF_A_RUN = re.compile(r"_(final|best|last|\d+)$")  # what Darknet appends to the name of the cfg
COCO = Path(ultralytics.__file__).parent / "cfg/datasets/coco.yaml"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Part:
    """One convolution: its module, its shape, and whether BatchNorm follows it."""

    module: str
    out: int
    channels: int
    size: int
    norm: bool = True
    pooled: int = 1  # blocks of channels of its input that Darknet joins in reverse order: SPP

    @property
    def numbers(self) -> int:
        """How many it has in a file."""
        return self.out * (4 if self.norm else 1) + self.out * self.channels * self.size**2


@dataclass(frozen=True)
class Darknet:
    """What is read of a file; `state` holds fp32 tensors by the names of an AnchorModel's state_dict()."""

    yaml: dict[str, Any]
    names: list[str]
    state: dict[str, Tensor]
    args: dict[str, Any]


def read_darknet(path: Path) -> Darknet:
    """Read a .weights file; UserError where it is damaged or does not belong to its cfg."""
    numbers = _numbers_in(path)
    cfg = _beside(path, ".cfg")
    network = read_cfg(cfg) if cfg else _standard(path, len(numbers))
    parts, strides = convolutions(network.yaml)
    wanted = sum(part.numbers for part in parts)
    if wanted != len(numbers):
        less = "truncated, weights of the first layers only" if len(numbers) < wanted else "of a larger network"
        raise UserError(
            f"{path} holds {len(numbers):,} numbers, and {cfg} describes a network of {wanted:,}: it is {less}, or not "
            f"of this cfg. Put the cfg that it was trained with beside it, as {path.stem}.cfg."
        )
    names = _names(path, network.yaml["nc"])
    told = {"imgsz": network.imgsz} if network.imgsz else {}
    built = network.yaml | {"recorded": _recorded(parts, network.activations)}
    return Darknet(built, names, tensors_of(built, parts, strides, numbers), told)


def files_of(path: Path) -> list[Path]:
    """Every file that weights are read from: a .weights has its cfg and its names beside it, others stand alone."""
    beside = (_beside(path, ".cfg"), _beside(path, ".names")) if path.suffix.lower() == ".weights" else ()
    return [path, *(file for file in beside if file)]


def convolutions(model_yaml: dict[str, Any]) -> tuple[list[Part], list[int]]:
    """The convolutions of an anchor-based yaml in the order of a file, and the stride of each level of its head.

    That is the order of its rows, but for the head's: each follows the row that it looks at.
    """
    *rows, (sources, _, _, _) = [*model_yaml["backbone"], *model_yaml["head"]]
    outputs: list[tuple[int, int]] = []  # channels and stride of each row
    parts: list[Part] = []
    anchors = len(model_yaml["anchors"][0]) // 2
    for i, (source, n, layer, args) in enumerate(rows):
        inputs = [outputs[j + i if j < 0 else j] if i + j >= 0 else (3, 1) for j in np.atleast_1d(source).tolist()]
        (c, stride), name = inputs[0], f"model.{i}"
        if layer == "Conv":
            parts.append(Part(name, args[0], c, args[1]))
            c, stride = args[0], stride * args[2]
        elif layer == "Bottleneck":
            for block in [f"{name}.{k}" for k in range(n)] if n > 1 else [name]:
                parts += [Part(f"{block}.cv1", args[0] // 2, c, 1), Part(f"{block}.cv2", args[0], args[0] // 2, 3)]
                c = args[0]
        elif layer == "SPP":
            blocks = 1 + len(args[1])
            parts += [Part(f"{name}.cv1", c // 2, c, 1), Part(f"{name}.cv2", args[0], c // 2 * blocks, 1, True, blocks)]
            c = args[0]
        elif layer == "Concat":
            c = sum(channels for channels, _ in inputs)
        elif layer == "nn.Upsample":
            stride //= args[1]
        elif layer == "nn.MaxPool2d":
            stride *= args[1]
        outputs.append((c, stride))
        if i in sources:
            head = f"model.{len(rows)}.m.{sources.index(i)}"
            parts.append(Part(head, anchors * (BOX + model_yaml["nc"]), c, 1, norm=False))
    return parts, [outputs[source][1] for source in sources]


def tensors_of(
    model_yaml: dict[str, Any], parts: list[Part], strides: list[int], numbers: np.ndarray
) -> dict[str, Tensor]:
    """The state of the network: of each convolution biases, BatchNorm's scales, means and variances, then weights."""
    last = len(model_yaml["backbone"]) + len(model_yaml["head"]) - 1
    anchors = torch.tensor(model_yaml["anchors"], dtype=torch.float32).view(len(strides), -1, 2)
    state = {f"model.{last}.anchors": anchors / torch.tensor(strides).view(-1, 1, 1)}
    at = 0

    def take(*shape: int) -> Tensor:
        nonlocal at
        at += (n := int(np.prod(shape)))
        return torch.from_numpy(numbers[at - n : at].reshape(shape).copy())

    for part in parts:
        if part.norm:
            for key in ("bias", "weight", "running_mean", "running_var"):
                state[f"{part.module}.bn.{key}"] = take(part.out)
            state[f"{part.module}.bn.num_batches_tracked"] = torch.tensor(0)
        else:
            state[f"{part.module}.bias"] = take(part.out)
        weight = take(part.out, part.pooled, part.channels // part.pooled, part.size, part.size).flip(1).flatten(1, 2)
        state[f"{part.module}.{'conv.' if part.norm else ''}weight"] = weight
    return state


def _numbers_in(path: Path) -> np.ndarray:
    """The numbers behind the header, float32; the header is three versions and the pictures seen, as int64 from 0.2."""
    content = path.read_bytes()
    if len(content) < 20 or len(content) % 4:
        raise UserError(f"{path} is truncated or no Darknet weights ({len(content)} bytes). Copy or download it again.")
    major, minor = np.frombuffer(content, "<i4", 2).tolist()
    if not (0 <= major < 1000 and 0 <= minor < 1000):
        raise UserError(f"{path} does not begin as Darknet weights do, with a version. Name another file.")
    numbers = np.frombuffer(content, "<f4", offset=20 if major * 10 + minor >= 2 else 16)
    if not np.isfinite(numbers).all():
        raise UserError(f"{path} holds numbers that are NaN or infinite: it is damaged. Copy or download it again.")
    return numbers


def _standard(path: Path, count: int) -> Network:
    """YOLOv3-SPP or YOLOv3 with as many classes as the numbers of the file are for."""
    for name in STANDARD:
        model_yaml = read_model_yaml(Path(f"{name}.yaml")) | {"decode": "darknet"}
        one, two = (sum(p.numbers for p in convolutions(model_yaml | {"nc": nc})[0]) for nc in (1, 2))
        nc, rest = divmod(count - one, two - one)
        if not rest and nc >= 0:
            log.info(f"{path.name} has no .cfg beside it; by its size it is {name} with {nc + 1} classes")
            parts, _ = convolutions(model_yaml := model_yaml | {"nc": nc + 1})
            return Network(model_yaml, ["LeakyReLU"] * sum(part.norm for part in parts), None)
    raise UserError(
        f"{path} has no .cfg beside it, and its {count:,} numbers are those of neither {' nor '.join(STANDARD)}: put "
        f"the cfg that it was trained with there, as {path.stem}.cfg, or copy the file again."
    )


def _beside(path: Path, suffix: str) -> Path | None:
    """The file of the same name, with or without what Darknet appends to it (yolov3_final.weights: yolov3.cfg)."""
    for stem in (path.stem, OF_A_RUN.sub("", path.stem)):
        if (file := path.with_name(stem + suffix)).is_file():
            return file
    return None


def _names(path: Path, nc: int) -> list[str]:
    """The classes: a name a line of the .names beside it, else COCO's where there are 80, else their numbers."""
    file = _beside(path, ".names")
    if file is None and nc == 80:
        return list(yaml.safe_load(COCO.read_text(encoding="utf-8"))["names"].values())
    if file is None:
        log.info(
            f"the {nc} classes of {path.name} have no names: put them, one a line, into {path.stem}.names beside it"
        )
        return [str(i) for i in range(nc)]
    try:
        names = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} is not readable as text ({error}). Write it again.") from error
    if len(names) != nc:
        raise UserError(f"{file} has {len(names)} names, and {path.name} has {nc} classes. Correct it.")
    return names


def _recorded(parts: list[Part], activations: list[str]) -> dict[str, dict[str, Any]]:
    """What Darknet's layers have and ultralytics' have otherwise, by the path of the module."""
    found: dict[str, dict[str, Any]] = {}
    for part, activation in zip((part for part in parts if part.norm), activations, strict=True):
        found[f"{part.module}.bn"] = {"eps": EPS}
        slope = {"negative_slope": LEAK} if activation == "LeakyReLU" else {}
        found[f"{part.module}.act"] = {"class": activation} | slope
    return found
