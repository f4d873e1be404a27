"""Anchor-based networks: files of YOLOv5 and YOLOv3 are read, decoded as they meant it, and take other classes."""

import math
import sys
import types
from pathlib import Path

import pytest
import torch
from torch import nn

from models.anchor.network import AnchorModel
from models.detector import build_detector, load_for_eval
from models.fold import fold
from models.weights.find import read_model_yaml
from models.weights.save import add_thresholds, save_weights
from tests.helpers.zoo import assert_same_tensors, refusal
from utils.errors import UserError

TINY = {
    "anchors": [[10, 13, 16, 30], [40, 30, 60, 90]],
    "backbone": [[-1, 1, "Conv", [8, 3, 2]], [-1, 1, "Conv", [8, 3, 2]], [-1, 1, "C3", [16]]],
    "head": [[-1, 1, "Conv", [16, 3, 2]], [-1, 1, "SPPF", [16, 5]], [[2, 4], 1, "Detect", ["nc", "anchors"]]],
}
OLD = {  # the layers of release v5: Focus, SPP
    "anchors": [[10, 13, 16, 30], [40, 30, 60, 90]],
    "backbone": [[-1, 1, "Focus", [8, 3]], [-1, 1, "Conv", [8, 3, 2]], [-1, 2, "C3", [16]]],
    "head": [[-1, 1, "Conv", [16, 3, 2]], [-1, 1, "SPP", [16, [5, 9]]], [[2, 4], 1, "Detect", ["nc", "anchors"]]],
}
NAMES = ["cat", "dog", "cow"]


def tiny(names: list[str] = NAMES, yaml: dict = TINY) -> AnchorModel:
    """A small anchor-based network whose every tensor is random."""
    torch.manual_seed(0)
    model = AnchorModel(yaml, len(names), "test")
    model.names = dict(enumerate(names))
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not name.endswith("anchors"):
            tensor.add_(0.2 * torch.rand_like(tensor))
    return model.eval()


def saved(path: Path, model: AnchorModel) -> str:
    save_weights(path, model, model.names, {"imgsz": 64}, 1, {})
    return str(path)


def test_boxes_are_those_of_the_formula():
    """xywh = ((2 s(x) - 0.5 + cell) stride, (2 s(w))^2 anchor), score = s(objectness) s(class); number by number."""
    model = tiny()
    decoded, levels = model(torch.rand(1, 3, 64, 64))
    s = lambda v: 1 / (1 + math.exp(-v))  # noqa: E731
    wanted = []
    for stride, anchors, level in zip((4, 8), TINY["anchors"], levels, strict=True):
        pairs = list(zip(anchors[::2], anchors[1::2], strict=True))
        for a, (w, h) in enumerate(pairs):
            for i in range(level.shape[2]):
                for j in range(level.shape[3]):
                    x, y, rw, rh, obj, *classes = level[0, a, i, j].double().tolist()
                    box = [(2 * s(x) - 0.5 + j) * stride, (2 * s(y) - 0.5 + i) * stride]
                    box += [(2 * s(rw)) ** 2 * w, (2 * s(rh)) ** 2 * h]
                    wanted.append(box + [s(obj) * s(c) for c in classes])
    torch.testing.assert_close(decoded[0].T.double(), torch.tensor(wanted, dtype=torch.float64), rtol=1e-5, atol=1e-5)


def test_decoding_is_in_full_under_autocast():
    model = tiny()
    with torch.autocast("cpu", torch.bfloat16):
        decoded, levels = model(torch.rand(1, 3, 64, 64))
    assert levels[0].dtype == torch.bfloat16 and decoded.dtype == torch.float32
    torch.testing.assert_close(decoded, model.model[-1].boxes_and_scores([level.float() for level in levels]))


def test_best_pt_is_plain_and_gives_the_same_answers(tmp_path):
    model = tiny().half().float()
    path = saved(tmp_path / "best.pt", model)
    content = torch.load(path, weights_only=True)  # no class of anybody in it
    assert content["names"] == NAMES and content["train_args"]["imgsz"] == 64
    loaded, x = load_for_eval(path), torch.rand(2, 3, 64, 64)
    assert loaded.args["imgsz"] == 64 and list(loaded.names.values()) == NAMES
    assert torch.equal(loaded(x)[0], model(x)[0])


def test_best_pt_carries_the_thresholds_of_best_f1(tmp_path):
    """As one of ultralytics' kind does: detect.py --conf auto takes them from either."""
    path, chosen = saved(tmp_path / "best.pt", tiny()), {"global": 0.2, "classes": {"cat": 0.3}}
    add_thresholds(Path(path), load_for_eval(path), chosen)
    assert load_for_eval(path).thresholds == chosen


def test_folded_network_answers_the_same():
    model, x = tiny(), torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(fold(model)(x)[0], model(x)[0], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("yaml", [TINY, OLD], ids=["v6", "v5"])
def test_pickled_model_of_yolov5_is_read_and_never_imported(tmp_path, monkeypatch, yaml):
    """A file as YOLOv5 pickles it: its own classes, half precision, in v5 a second copy of the anchors."""
    model, path = tiny(yaml=yaml).half().float(), tmp_path / "yolov5.pt"
    x = torch.rand(1, 3, 64, 64)
    wanted = model(x)[0]
    model.yaml = {**yaml, "nc": 3, "ch": 3}
    head = model.model[-1]
    head.register_buffer("anchor_grid", head.pixels[:, None, :, None, None])
    with monkeypatch.context() as patch:
        as_pickled_by_yolov5(model.half(), patch)
        torch.save({"model": model, "ema": None, "epoch": -1, "opt": {"imgsz": 96, "conf": 0.9}}, path)
    assert not any(name.startswith(("models.yolo", "models.common")) for name in sys.modules)
    loaded = load_for_eval(str(path))
    assert not any(name.startswith(("models.yolo", "models.common")) for name in sys.modules)
    assert torch.equal(loaded(x)[0], wanted)
    assert loaded.args == {"imgsz": 96} and list(loaded.names.values()) == NAMES


def as_pickled_by_yolov5(model: nn.Module, patch: pytest.MonkeyPatch) -> None:
    """Give every module a class of the name that it has in YOLOv5."""
    for module in list(model.modules()):
        own = type(module).__module__
        if own.startswith("torch."):
            continue
        place, name = "models.common", type(module).__name__
        if own.startswith("models."):
            place, name = "models.yolo", {"AnchorModel": "Model", "AnchorDetect": "Detect"}[name]
        if place not in sys.modules:
            patch.setitem(sys.modules, place, types.ModuleType(place))
        there = sys.modules[place]
        if not hasattr(there, name):
            setattr(there, name, type(name, (nn.Module,), {"__module__": place}))
        module.__class__ = getattr(there, name)


def test_classes_keep_their_rows_by_name(tmp_path):
    """Boxes, objectness and the rows of known classes answer as before; the fresh class is a prior."""
    model = tiny().half().float()
    new, transfer = build_detector(saved(tmp_path / "best.pt", model), ["owl", "Dog", "cat "])
    assert (transfer.class_rows, transfer.fresh) == (["Dog", "cat "], ["owl"])
    x = torch.rand(1, 3, 64, 64)
    before, after = model(x)[1], new.eval()(x)[1]
    for old, now in zip(before, after, strict=True):
        torch.testing.assert_close(now[..., [0, 1, 2, 3, 4, 6, 7]], old[..., [0, 1, 2, 3, 4, 6, 5]])
        assert now.shape[-1] == 8 and bool(now.isfinite().all())


def test_single_class_scores_by_its_objectness(tmp_path):
    """YOLOv5's loss never trains the row of a single class."""
    model, transfer = build_detector(saved(tmp_path / "best.pt", tiny()), ["dog"])
    decoded, levels = model.eval()(torch.rand(1, 3, 64, 64))
    objectness = torch.cat([level[..., 4].sigmoid().flatten(1) for level in levels], 1)
    torch.testing.assert_close(decoded[:, 4], objectness, rtol=1e-4, atol=0)
    assert transfer.fresh == ["dog"]


def test_rebuild_takes_what_has_the_same_shape(tmp_path):
    path = saved(tmp_path / "best.pt", tiny().half().float())
    assert_same_tensors(build_detector(path, ["a", "b", "c"], head="rebuild")[0], load_for_eval(path))
    _, transfer = build_detector(path, ["a", "b"], head="rebuild")
    assert transfer.tensors_total - transfer.tensors_carried == 4  # weight and bias of two levels


def test_names_with_u_are_ultralytics_and_without_are_anchor_based():
    """yolov5n.yaml is to yolov5n.pt what yolov5nu.yaml is to yolov5nu.pt."""
    for name in ("yolov5n.yaml", "yolov5s6.yaml", "yolov3.yaml", "yolov3-spp.yaml"):
        assert "anchors" in read_model_yaml(Path(name))
    for name in ("yolov5nu.yaml", "yolov3u.yaml", "yolov3-sppu.yaml", "yolov5n-p6.yaml"):
        assert "anchors" not in read_model_yaml(Path(name))
    model, _ = build_detector("yolov5n.yaml", NAMES, imgsz=64)
    other, _ = build_detector("yolov5nu.yaml", NAMES, imgsz=64)
    assert isinstance(model, AnchorModel) and not isinstance(other, AnchorModel)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"anchors": [[10, 13]]}, ("anchors", "2 lists")),
        ({"anchors": [[10, -13], [5, 5]]}, ("above 0",)),
        ({"ch": 1}, ("1 image channels",)),
        ({"backbone": [[-1, 1, "C2f", [8]], *TINY["backbone"][1:]]}, ("'C2f'", "none of those")),
        ({"head": [*TINY["head"][:-1], [[2, 4], 1, "v10Detect", ["nc"]]]}, ("v10Detect",)),
    ],
)
def test_yaml_that_is_not_theirs_is_refused(change, words):
    with pytest.raises(UserError) as refused:
        AnchorModel({**TINY, **change}, 3, "mine.yaml")
    assert all(word in str(refused.value) for word in ("mine.yaml", *words))


def test_official_file_and_its_plain_copy_answer_alike(testdata):
    pickled, plain = (load_for_eval(str(testdata / "weights" / name)) for name in ("yolov5n.pt", "yolov5n.state.pt"))
    assert_same_tensors(pickled, plain)
    x = torch.rand(1, 3, 64, 64)
    assert torch.equal(pickled(x)[0], plain(x)[0])
    assert load_for_eval(str(testdata / "weights/yolov8n-int8restored.state.pt")).names[0] == "person"


def test_task_of_another_head_is_named(tmp_path, monkeypatch):
    model = tiny()
    model.yaml = {**TINY, "nc": 3, "head": [*TINY["head"][:-1], [[2, 4], 1, "Segment", ["nc", "anchors", 32, 256]]]}
    with monkeypatch.context() as patch:
        as_pickled_by_yolov5(model, patch)
        torch.save({"model": model}, tmp_path / "seg.pt")
    assert "segment" in refusal(tmp_path / "seg.pt")
