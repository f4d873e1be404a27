"""Checkpoints of other versions than today's: the tensors and recorded attributes of a file say what network it is."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import nn
from ultralytics.nn.modules import Conv, Detect
from ultralytics.nn.tasks import DetectionModel

from models.detector import build_detector, load_for_eval, model_from_yaml
from models.weights.find import read_model_yaml
from models.weights.save import save_weights
from tests.helpers.folders import lasting_folder
from tests.helpers.loops import shown
from tests.helpers.zoo import NEW, assert_same_tensors, refusal

NAMES = ("kite", "cell", "cup", "dog")
PLAIN, DEPTHWISE = True, False  # Detect.legacy


def small(name: str, names: Sequence[str] = NAMES) -> DetectionModel:
    """A network of the zoo at a fraction of its width, no block twice in a row, with noise in every tensor."""
    torch.manual_seed(3)
    yaml = read_model_yaml(Path(name))
    if "scale" in yaml:
        yaml["scales"] = {yaml["scale"]: [0.01, 0.25 if "yolo12" in name else 0.125, 1024]}  # its heads want 32
    for layer in yaml["backbone"] + yaml["head"]:
        if layer[2] == "RepNCSPELAN4":  # yolov9t: names its repetitions outright
            layer[3][-1] = 1
    model = DetectionModel(yaml, nc=len(names), verbose=False)
    model.names = dict(enumerate(names))
    return noisy(model)


def noisy(model: DetectionModel) -> DetectionModel:
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and ".dfl." not in name:
            tensor.mul_(1 + 0.1 * torch.rand_like(tensor)).add_(0.01 * torch.rand_like(tensor))
    return model


def with_head(model: DetectionModel, legacy: bool, reg_max: int = 16, one_to_one: bool = False) -> DetectionModel:
    """The network with the head that another version would have built; its yaml still says what it said."""
    old, before = model.model[-1], Detect.legacy
    Detect.legacy = legacy
    try:
        head = Detect(old.nc, reg_max, one_to_one, [box[0].conv.in_channels for box in old.cv2])
    finally:
        Detect.legacy = before
    head.i, head.f, head.type, head.stride = old.i, old.f, old.type, old.stride
    model.model[-1] = head
    head.bias_init()
    for module in head.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps, module.momentum = 1e-3, 0.03
    return noisy(model)


def with_norms(model: DetectionModel, eps: float, momentum: float) -> DetectionModel:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps, module.momentum = eps, momentum
    return model


def with_activation(model: DetectionModel, activation: nn.Module) -> DetectionModel:
    for module in model.modules():
        if isinstance(module, Conv) and isinstance(module.act, nn.SiLU):
            module.act = activation
    return model


VARIANTS = {
    "yolov9t, depthwise": lambda: with_head(small("yolov9t.yaml"), DEPTHWISE),
    "yolov8n, depthwise, 8 bins": lambda: with_head(small("yolov8n.yaml"), DEPTHWISE, 8),
    "yolo11n, plain": lambda: with_head(small("yolo11n.yaml"), PLAIN),
    "yolo11n, one-to-one": lambda: with_head(small("yolo11n.yaml"), DEPTHWISE, 16, True),
    "yolo26n, 16 bins, no one-to-one": lambda: with_head(small("yolo26n.yaml"), DEPTHWISE, 16, False),
    "yolov10n, no one-to-one": lambda: with_head(small("yolov10n.yaml"), DEPTHWISE),
    "yolov8n, torch's norms": lambda: with_norms(small("yolov8n.yaml"), 1e-5, 0.1),
    "yolov8n, LeakyReLU": lambda: with_activation(small("yolov8n.yaml"), nn.LeakyReLU(0.2)),
    "yolo26n, ReLU, other norms": lambda: with_activation(with_norms(small("yolo26n.yaml"), 1e-2, 0.2), nn.ReLU()),
}
FAMILIES = ["yolov5nu", "yolov8n", "yolov9t", "yolov10n", "yolo11n", "yolo12n", "yolo26n"]
COMMON = ("yolov8n", "yolo11n, one-to-one", "yolo26n, ReLU, other norms")


def outputs(model: DetectionModel) -> list[torch.Tensor]:
    """What the network, put into fp32 and eval mode, sees in two fixed pictures, both branches where it has two."""
    pictures = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        found, raw = model.float().eval()(pictures)
    branches = [raw["one2many"], raw["one2one"]] if "one2one" in raw else [raw]
    return [found, *(branch[key] for branch in branches for key in ("boxes", "scores"))]


def assert_sees(model: DetectionModel, expected: list[torch.Tensor]) -> None:
    for left, right in zip(outputs(model), expected, strict=True):
        assert torch.equal(left, right)


def saved(model: DetectionModel, path: Path) -> str:
    torch.save({"model": model}, path)
    return str(path)


@cache
def source(name: str, names: tuple[str, ...] = NAMES) -> str:
    """A file of the variant, or of the family as it is."""
    model = VARIANTS[name]() if name in VARIANTS else small(f"{name}.yaml", names)
    return saved(model, lasting_folder("weights") / "w.pt")


@pytest.mark.parametrize("name", shown(COMMON, list(VARIANTS)))
def test_a_file_is_the_network_that_was_saved(name):
    """A new head for as few classes is the same, too: its branches are as wide as the features."""
    model = VARIANTS[name]()
    loaded = load_for_eval(source(name))
    assert_same_tensors(model, loaded)
    assert_sees(loaded, outputs(model))
    momenta = [[m.momentum for m in x.modules() if isinstance(m, nn.BatchNorm2d)] for x in (model, loaded)]
    assert momenta[0] == momenta[1]
    rebuilt, _ = build_detector(source(name), NAMES, "rebuild")
    assert rebuilt.yaml == build_detector(source(name), NAMES)[0].yaml and repr(rebuilt) == repr(model.train())


def assert_comes_back(model: DetectionModel, folder: Path) -> None:
    """best.pt by way of its pickled modules, last.pt by way of the yaml alone."""
    model.half()  # what fp16 can say, so that nothing is rounded on the way
    save_weights(folder / "best.pt", model, NEW, {}, 1, {})
    expected = outputs(model)
    assert_sees(load_for_eval(str(folder / "best.pt")), expected)
    resumed = model_from_yaml(model.yaml, NEW)
    resumed.load_state_dict(model.state_dict())
    assert_sees(resumed, expected)
    last = {"format": "preheat-1", "yaml": model.yaml, "names": NEW, "ema": {"model": resumed.state_dict()}}
    torch.save(last, folder / "last.pt")
    assert_sees(load_for_eval(str(folder / "last.pt")), expected)


@pytest.mark.parametrize("name", shown(COMMON, (*VARIANTS, *FAMILIES)))
def test_saving_and_reloading_changes_no_output(name, tmp_path):
    assert_comes_back(build_detector(source(name), NEW)[0], tmp_path)


WIDE = [("yolov8n", "keep"), ("yolo11n", "keep"), ("yolo26n", "keep"), ("yolo26n", "rebuild")]


@pytest.mark.parametrize(("name", "head"), shown([("yolo26n", "keep")], WIDE))
def test_a_head_as_wide_as_that_of_forty_classes_comes_back(name, head, tmp_path):
    """rebuild: as wide as the installed ultralytics makes it."""
    model, _ = build_detector(source(name, tuple(f"thing {i}" for i in range(40))), NEW, head)
    assert model.yaml.get("head_nc") == 40 or head == "rebuild"
    assert_comes_back(model, tmp_path)


def test_a_refused_file_says_what_was_tried(tmp_path):
    model = with_head(small("yolov9t.yaml"), DEPTHWISE, 8)
    model.model[0].conv = nn.Conv2d(3, 5, 3, 2, 1, bias=False)
    message = refusal(saved(model, tmp_path / "w.pt"))
    assert all(part in message for part in ("depthwise", "8 DFL bins", "without one-to-one", "model.0.conv"))


def test_the_networks_of_today_keep_their_yaml(tmp_path):
    for family in ("yolov8n", "yolov10n", "yolo26n"):
        model = small(f"{family}.yaml")
        loaded = load_for_eval(saved(model, tmp_path / "w.pt"))
        assert {"class_branch", "recorded"}.isdisjoint(loaded.yaml), family
