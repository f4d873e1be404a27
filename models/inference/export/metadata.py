"""What travels in an exported file beside the network, under the names that ultralytics gives it."""

import ast
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import ultralytics
from torch import nn

from models.weights.unpickle import THRESHOLDS
from utils.errors import UserError


@dataclass(frozen=True)
class Choices:
    """How a network is exported."""

    imgsz: int = 640
    batch: int = 1
    dynamic: bool = False  # pictures of any size and number
    nms: bool = False  # suppression inside, with the three values below
    conf: float = 0.25
    iou: float = 0.7
    max_det: int = 300
    opset: int = 17  # of ONNX


@dataclass(frozen=True)
class Metadata:
    """What a reader needs to know of an exported file."""

    names: list[str]
    stride: int
    imgsz: int
    fixed: tuple[int, int, int] | None  # pictures, height, width that it takes; None: any
    end2end: bool  # its output is (b, k, 6) xyxy, score, class
    nms: bool  # suppression is inside
    thresholds: Any = None  # scores of best F1, as best.pt has them
    args: dict[str, Any] = field(default_factory=dict)  # of the export

    @property
    def trained(self) -> dict[str, Any]:
        """What a reader takes over where nobody says otherwise: size, and the value that was white in deep pictures."""
        return {"imgsz": self.imgsz} | {key: self.args[key] for key in ("white_level",) if key in self.args}


def describe(model: nn.Module, choices: Choices, name: str) -> dict[str, Any]:
    """The entries of a file; `model` as load_for_eval gives it."""
    args = {key: getattr(choices, key) for key in ("batch", "dynamic", "nms")}
    args |= {key: getattr(choices, key) for key in ("conf", "iou", "max_det")} if choices.nms else {}
    args |= {"white_level": white} if (white := (getattr(model, "args", None) or {}).get("white_level")) else {}
    told = {
        "description": f"detector {name}, exported by Preheat",
        "author": "Preheat",
        "date": datetime.now().astimezone().isoformat(),
        "version": ultralytics.__version__,
        "license": "AGPL-3.0 License (https://ultralytics.com/license)",
        "docs": "https://docs.ultralytics.com",
        "stride": int(model.stride.max()),
        "task": "detect",
        "head": type(model.model[-1]).__name__,
        "batch": choices.batch,
        "imgsz": [choices.imgsz, choices.imgsz],
        "names": {int(k): str(v) for k, v in model.names.items()},
        "args": args,
        "channels": 3,
        "end2end": bool(getattr(model, "end2end", False)),
    }
    return told | ({THRESHOLDS: model.thresholds} if model.thresholds else {})


def understand(told: dict[str, Any], path: Any) -> Metadata:
    """The entries of a file, whose values may be text; UserError where those are missing that nobody can guess."""
    try:
        told = {key: _value(value) for key, value in told.items()}
        names, args, imgsz = told["names"], told.get("args") or {}, told["imgsz"]
        names = [str(names[k]) for k in sorted(names)] if isinstance(names, dict) else list(map(str, names))
        height, width = imgsz if isinstance(imgsz, list | tuple) else (imgsz, imgsz)
        nms, end2end = bool(args.get("nms", False)), bool(told.get("end2end", False))
        fixed = None if args.get("dynamic") else (int(told.get("batch", 1)), int(height), int(width))
        stride = int(told["stride"])
    except (KeyError, TypeError, ValueError, AttributeError) as e:
        raise UserError(
            f"{path} does not say what its classes, stride and size are ({e!r}), as files of export.py and of "
            "ultralytics do. Export it again."
        ) from None
    return Metadata(names, stride, int(max(height, width)), fixed, end2end or nms, nms, told.get(THRESHOLDS), args)


def _value(text: Any) -> Any:
    """A plain value written as text; a text that is none stays."""
    try:
        return ast.literal_eval(text) if isinstance(text, str) else text
    except (ValueError, SyntaxError):
        return text
