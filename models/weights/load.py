"""A checkpoint file -> architecture, class names and fp32 tensors."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.weights.darknet import read_darknet
from models.weights.unpickle import THRESHOLDS, Shell, read_checkpoint
from models.weights.variant import ACTIVATIONS, SETTINGS, Settings, fitted_yaml
from utils.errors import UserError

TASKS = {  # class of a pickled model, or name of a head in a yaml -> the task it stands for
    "DetectionModel": "detect",
    "Model": "detect",  # of the YOLOv5 and YOLOv3 repositories
    "YOLOv10DetectionModel": "detect",
    "Detect": "detect",
    "v10Detect": "detect",
    "SegmentationModel": "segment (-seg)",
    "Segment": "segment (-seg)",
    "Segment26": "segment (-seg)",
    "PoseModel": "pose (-pose)",
    "Pose": "pose (-pose)",
    "Pose26": "pose (-pose)",
    "OBBModel": "oriented boxes (-obb)",
    "OBB": "oriented boxes (-obb)",
    "OBB26": "oriented boxes (-obb)",
    "ClassificationModel": "classify (-cls)",
    "Classify": "classify (-cls)",
    "SemanticSegmentationModel": "semantic segmentation (-sem)",
    "SemanticSegment": "semantic segmentation (-sem)",
    "DepthModel": "depth (-depth)",
    "Depth": "depth (-depth)",
    "WorldModel": "open vocabulary (YOLO-World)",
    "WorldDetect": "open vocabulary (YOLO-World)",
    "YOLOEModel": "open vocabulary (YOLOE)",
    "YOLOEDetect": "open vocabulary (YOLOE)",
    "YOLOESegModel": "open vocabulary segmentation (YOLOE -seg)",
    "YOLOESegment": "open vocabulary segmentation (YOLOE -seg)",
    "YOLOESegment26": "open vocabulary segmentation (YOLOE -seg)",
    "RTDETRDetectionModel": "RT-DETR (a transformer)",
    "RTDETRDecoder": "RT-DETR (a transformer)",
}
OF_YOLOV5 = ("imgsz", "data", "single_cls")  # of the options that its checkpoints keep, those that mean the same here
MALFORMED = (AttributeError, KeyError, TypeError, ValueError, RecursionError)


@dataclass(frozen=True)
class Source:
    """What is kept of a checkpoint; `state` holds fp32 tensors by the names of DetectionModel.state_dict()."""

    yaml: dict[str, Any]  # of the variant that the tensors show
    names: list[str]
    state: dict[str, Tensor]
    path: Path
    recorded: Settings = field(default_factory=dict)  # what the pickled modules say of themselves
    args: dict[str, Any] = field(default_factory=dict)  # what the run behind it was told, plain values only
    thresholds: Any = None  # scores of best F1 on val, as train.py's closing evaluation wrote them


def load_weights(path: str | Path) -> Source:
    """Read a detection checkpoint and run nothing in it.

    It is ultralytics', one of the YOLOv5 and YOLOv3 repositories, our own last.pt (its average), a plain dictionary of
    `state_dict`, `yaml` and `names`, or Darknet's .weights.
    """
    path = Path(path)
    if path.is_dir():
        raise UserError(f"weights {path} is a folder. Name the .pt file inside it.")
    if not path.is_file():
        raise UserError(f"weights {path} do not exist. Correct the path.")
    if path.suffix.lower() == ".weights":
        found = read_darknet(path)
        return Source(found.yaml, found.names, found.state, path, args=found.args)
    checkpoint = read_checkpoint(path)
    try:
        return _source_of(checkpoint, path)
    except MALFORMED as error:
        raise UserError(f"{path} is no intact checkpoint ({error!r}). Copy or download it again.") from error


def refuse_other_task(name: str, where: str | Path) -> None:
    """UserError naming the task, for the class of a model or the name of a head that is not a trainable detector's."""
    task = TASKS.get(name)
    if task is None:
        raise UserError(f"{where}: '{name}' is not a detector that can be trained here. Use detection weights.")
    if task != "detect":
        raise UserError(f"{where} is for another task: {task}. Only detection weights can be trained here.")


def _source_of(checkpoint: dict[str, Any], path: Path) -> Source:
    """Pick architecture, names and tensors: the average where there is one."""
    if str(checkpoint.get("format", "")).startswith("preheat"):
        state, told = checkpoint["ema"]["model"], _plain(checkpoint.get("hyp"))
        return _source(checkpoint.get("yaml"), checkpoint.get("names"), state, path, args=told)
    if isinstance(state := checkpoint.get("state_dict"), dict):
        told = _plain(checkpoint.get("train_args"))
        source = _source(checkpoint.get("yaml"), checkpoint.get("names"), state, path, args=told)
        return replace(source, thresholds=checkpoint.get(THRESHOLDS))
    model = checkpoint.get("ema") or checkpoint.get("model")
    if not isinstance(model, Shell):
        raise UserError(f"{path} holds no model of ultralytics' kind. Use the .pt that a trainer saved.")
    refuse_other_task(type(model).__name__, path)
    args = _plain(getattr(model, "args", None)) | _plain(checkpoint.get("train_args"))
    args |= {key: value for key, value in _plain(checkpoint.get("opt")).items() if key in OF_YOLOV5}
    yaml, names = getattr(model, "yaml", None), getattr(model, "names", None)
    source = _source(yaml, names, _state_of(model), path, _recorded_in(model), args)
    return replace(source, thresholds=checkpoint.get(THRESHOLDS))


def _plain(values: Any) -> dict[str, Any]:
    """The plain values of a mapping, or of the attributes of a pickled namespace."""
    values = vars(values) if isinstance(values, Shell) else values
    values = values if isinstance(values, dict) else {}
    return {str(key): value for key, value in values.items() if isinstance(value, bool | int | float | str | list)}


def _source(
    yaml: Any,
    names: Any,
    state: dict[str, Tensor],
    path: Path,
    recorded: Settings | None = None,
    args: dict[str, Any] | None = None,
) -> Source:
    """Check that the three belong to a detection model; names as a list in class order."""
    if not isinstance(yaml, dict):
        raise UserError(f"{path} holds no model yaml, so its network cannot be rebuilt. Use a file of a newer trainer.")
    names = [names[i] for i in sorted(names)] if isinstance(names, dict) else list(names or [])
    if not names:
        names = [str(i) for i in range(yaml.get("nc", 80))]
    state = {name: t.float() if t.is_floating_point() else t for name, t in state.items()}
    state = {name: t for name, t in state.items() if not name.endswith(".anchor_grid")}  # YOLOv5 v5's copy of anchors
    return Source(fitted_yaml(yaml, state), [str(name) for name in names], state, path, recorded or {}, args or {})


def _state_of(module: Shell, prefix: str = "") -> dict[str, Tensor]:
    """The state_dict that the module behind a shell would give."""
    transient = getattr(module, "_non_persistent_buffers_set", set())
    own = {**getattr(module, "_parameters", {}), **getattr(module, "_buffers", {})}
    state = {prefix + k: t.detach() for k, t in own.items() if isinstance(t, torch.Tensor) and k not in transient}
    for name, child in getattr(module, "_modules", {}).items():
        if isinstance(child, Shell):
            state |= _state_of(child, f"{prefix}{name}.")
    return state


def _recorded_in(module: Shell, prefix: str = "") -> Settings:
    """Settings of every module behind a shell that no tensor shows, by the module's path."""
    own = {key: value for key in SETTINGS if isinstance(value := vars(module).get(key), bool | int | float | str)}
    if type(module).__name__ in ACTIVATIONS:
        own["class"] = type(module).__name__
    found = {prefix.rstrip("."): own} if own else {}
    for name, child in getattr(module, "_modules", {}).items():
        if isinstance(child, Shell):
            found |= _recorded_in(child, f"{prefix}{name}.")
    return found
