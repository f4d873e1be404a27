"""A model yaml as YOLOv5 and YOLOv3 write it -> rows that ultralytics' parser reads as they meant them; the anchors."""

from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from utils.errors import UserError

LAYERS = {  # those that were compared with the original, block for block
    *("Conv", "Focus", "C3", "Bottleneck", "SPP", "SPPF", "Concat"),
    *("nn.Upsample", "nn.MaxPool2d", "nn.ZeroPad2d", "nn.ReplicationPad2d"),
}
PIXELS_APART = 2  # numbers of an anchor: width and height


@dataclass(frozen=True)
class Layout:
    """What a yaml says: everything below the head as ultralytics' parser reads it, and the head."""

    body: dict[str, Any]
    sources: list[int]  # the layers that the head looks at, one a level
    anchors: Tensor  # (levels, anchors, 2) width and height, pixels
    decode: str  # how boxes come from numbers: see models/anchor/head.py


def layout_of(yaml: dict[str, Any], where: str) -> Layout:
    """The layout of an anchor-based yaml; UserError naming a layer or a list that cannot be built."""
    body = deepcopy(yaml)
    head = body["head"].pop()
    sources, name = head[0] if isinstance(head[0], list) else [head[0]], head[2]
    if name != "Detect":
        raise UserError(f"{where}: its head is '{name}'; of the anchor-based ones only Detect is built. Correct it.")
    if yaml.get("ch", 3) != 3:
        raise UserError(f"{where} expects {yaml['ch']} image channels; only 3 (RGB) are supported. Use other weights.")
    for row in [*body["backbone"], *body["head"]]:
        if row[2] not in LAYERS:
            raise UserError(
                f"{where}: the layer '{row[2]}' of an anchor-based network is none of those that are built here "
                f"({', '.join(sorted(LAYERS))}). Use another layout."
            )
        if row[2] == "Bottleneck":  # 1x1, then 3x3; ultralytics' own has two of 3x3
            row[3] = [row[3][0], *(row[3][1:] or [True]), 1, [1, 3]]
    decode = body.pop("decode", "yolov5")
    return Layout(body, sources, anchors_of(yaml["anchors"], len(sources), where), decode)


def anchors_of(listed: Any, levels: int, where: str) -> Tensor:
    """Anchors (levels, anchors, 2) in pixels, of a list for each level as the yaml has them: w, h, w, h, ..."""
    try:
        anchors = torch.tensor(listed, dtype=torch.float32).view(levels, -1, PIXELS_APART)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(
            f"{where}: 'anchors' must hold {levels} lists of widths and heights in pixels, one for each level of the "
            f"head, as [10,13, 16,30, 33,23]. Correct it, or take the anchors of yolov5n.yaml."
        ) from error
    if not bool((anchors > 0).all()):
        raise UserError(f"{where}: every anchor needs a width and a height above 0. Correct 'anchors'.")
    return anchors


def listed_anchors(anchors: Tensor) -> list[list[float]]:
    """Anchors (levels, anchors, 2) in pixels as a yaml lists them."""
    return [[round(v, 3) for v in level.flatten().tolist()] for level in anchors]
