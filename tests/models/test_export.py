"""export.py: every file finds what PyTorch finds, says what it is, and opens in ultralytics, val.py and detect.py."""

import json
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from ultralytics import YOLO

import detect
import export
import val
from data.frames.inputs import find_inputs
from data.frames.stills import read_stills
from models.detector import build_detector, for_evaluation, load_for_eval
from models.inference.export.metadata import Choices, describe, understand
from models.inference.export.plain import plain_network
from models.inference.export.read import open_weights
from models.inference.export.write import export as write
from models.weights.save import add_thresholds, save_weights
from tests.helpers.runs import TINY, TOY_NAMES, guesser
from tests.models.anchor.test_anchor import tiny
from utils.errors import UserError, run_script
from utils.evaluation.nms import end2end_detections, non_max_suppression
from utils.run.detection.agreement import agreement

EXTRA = [pytest.mark.extra]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights with thresholds, under a name with a space."""
    path = tmp_path_factory.mktemp("weights") / "mein Netz.pt"
    save_weights(path, decided(TOY_NAMES), TOY_NAMES, {}, 0, {})
    add_thresholds(path, load_for_eval(str(path)), {"global": 0.01, "classes": dict.fromkeys(TOY_NAMES, 0.01)})
    return path


def decided(names: list[str]) -> torch.nn.Module:
    """The tiny network with boxes of some strides, and scores of the whole range: no two are nearly the same."""
    torch.manual_seed(len(names))
    model, _ = build_detector(str(TINY), names)
    head = model.model[-1]
    with torch.no_grad():
        for box, cls in zip(head.cv2, head.cv3, strict=True):
            bins = box[-1].bias.view(4, -1)
            bins.fill_(-4.0)
            bins[:, 1] = 4.0
            cls[-1].weight.normal_(0, 2)
            cls[-1].bias.zero_()
    return model.eval()


def run(weights: Path, toy: Path, project: Path, *words: str) -> dict:
    argv = ["--weights", str(weights), "--source", str(toy), "--imgsz", "64", "--conf", "0.001"]
    return export.main([*argv, "--project", str(project), *words])


def exported(weights: Path, folder: Path, kind: str = "torchscript", **choices: object) -> Path:
    return write(load_for_eval(str(weights)), kind, folder, "net", Choices(imgsz=64, **choices))


@pytest.mark.parametrize("how", ["", "--dynamic --nms", "--batch 3 --nms"])
@pytest.mark.parametrize(
    "kind",
    [
        "torchscript",
        pytest.param("onnx", marks=EXTRA),
        pytest.param("openvino", marks=[*EXTRA, pytest.mark.slow]),
    ],
)
def test_a_file_finds_what_pytorch_finds(weights, toy, tmp_path, kind, how):
    if kind != "torchscript":
        pytest.importorskip("onnxruntime" if kind == "onnx" else kind)
    (path, found), *more = run(weights, toy, tmp_path, "--format", kind, *how.split()).items()
    assert not more and found.first == found.matched == found.second > 20
    assert found.box < 0.01 and found.score < 1e-4
    told = open_weights(path).told
    assert (told.names, told.stride, told.imgsz) == (TOY_NAMES, 32, 64)
    assert told.thresholds["classes"] == dict.fromkeys(TOY_NAMES, 0.01)
    assert (told.fixed is None) == ("--dynamic" in how) and told.nms == ("--nms" in how)


@pytest.fixture(scope="module")
def anchored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a network with anchors, with boxes everywhere and scores of a whole range."""
    path, model = tmp_path_factory.mktemp("anchored") / "v5.pt", tiny(TOY_NAMES)
    with torch.no_grad():
        for level in model.model[-1].m:
            level.weight.normal_(0, 0.05)
            level.bias.zero_()
    save_weights(path, model, model.names, {"imgsz": 64}, 1, {})
    return path


@pytest.mark.parametrize("kind", ["torchscript", pytest.param("onnx", marks=EXTRA)])
def test_a_network_with_anchors_is_a_file_of_any_size_too(anchored, toy, tmp_path, kind):
    if kind == "onnx":
        pytest.importorskip("onnxruntime")
    ((path, found),) = run(anchored, toy, tmp_path, "--format", kind, "--dynamic", "--conf", "0.3").items()
    assert found.first == found.matched == found.second > 20 and found.box < 0.01 and found.score < 1e-4
    assert open_weights(path).told.names == TOY_NAMES


@pytest.mark.parametrize("nc", [1, 4, 7])
def test_suppression_inside_is_that_of_val(nc):
    """On pictures of noise, several at once, boxes of all classes on top of each other."""
    model, images = decided([f"class {k}" for k in range(nc)]), torch.rand(3, 3, 96, 64)
    with torch.no_grad():
        inside = plain_network(model, Choices(imgsz=64, nms=True, conf=0.4, iou=0.5, max_det=20))(images)
        raw = plain_network(model, Choices(imgsz=64))(images)
    outside = non_max_suppression(raw, 0.4, 0.5, 20, multi_label=False, agnostic=False)
    assert inside.shape == (3, 20, 6) and min(map(len, outside)) > 5
    for ours, theirs in zip(end2end_detections(inside, 0.4, 20), outside, strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-3, rtol=0)


@pytest.mark.parametrize("kind", ["torchscript", pytest.param("onnx", marks=EXTRA)])
def test_ultralytics_opens_it_and_finds_the_same(weights, toy, tmp_path, kind):
    if kind == "onnx":
        pytest.importorskip("onnxruntime")
    path = exported(weights, tmp_path, kind)
    told = {"imgsz": 64, "conf": 0.01, "rect": False, "verbose": False, "device": "cpu"}
    picture = str(toy.parent / "images/val/0000.jpg")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs, of_pt = (YOLO(file, task="detect").predict(picture, **told)[0] for file in (path, weights))
    assert list(theirs.names.values()) == TOY_NAMES and len(of_pt.boxes) > 5
    np.testing.assert_allclose(theirs.boxes.data.numpy(), of_pt.boxes.data.numpy(), atol=0.01)


@pytest.mark.parametrize(
    "kind",
    [
        "torchscript",
        pytest.param("onnx", marks=EXTRA),
        pytest.param("openvino", marks=[*EXTRA, pytest.mark.slow]),
    ],
)
def test_val_and_detect_use_a_file_as_they_use_weights(weights, toy, tmp_path, kind):
    """With any size of pictures inside, scores and boxes are those of the checkpoint."""
    if kind != "torchscript":
        pytest.importorskip("onnxruntime" if kind == "onnx" else kind)
    path = exported(weights, tmp_path, kind, dynamic=True)
    words = ["--imgsz", "64", "--device", "cpu", "--project", str(tmp_path), "--name"]
    scores, found = {}, {}
    for name, file in (("pt", weights), ("file", path)):
        scores[name] = val.main([*words, f"val-{name}", "--weights", str(file), "--data", str(toy), "--noplots"])
        detect.main([*words, name, "--weights", str(file), "--source", str(toy), "--nosave", "--conf", "auto"])
        found[name] = json.loads((tmp_path / name / "predictions.json").read_text())
    for key, value in scores["pt"].items():
        assert scores["file"][key] == pytest.approx(value, abs=1e-4, nan_ok=True), key
    assert len(found["pt"]) == len(found["file"]) > 10
    assert min(row["score"] for row in found["file"]) > 0.01


def test_a_file_of_one_size_takes_no_other(weights, toy, tmp_path, capsys):
    path = exported(weights, tmp_path, nms=True)
    words = ["--weights", str(path), "--project", str(tmp_path), "--device", "cpu", "--source", str(toy)]
    assert detect.main([*words, "--nosave"])["pictures"] == 8
    assert "suppression is inside" in capsys.readouterr().out
    assert run_script(lambda: detect.main([*words, "--imgsz", "96"])) == 2
    assert "64 x 64 only" in capsys.readouterr().err


def test_another_network_is_not_within_the_tolerance(weights, toy, tmp_path):
    path = exported(weights, tmp_path)
    words = ["--weights", str(weights), "--imgsz", "64", "--conf", "0.001"]
    options, _ = export.read_options(words)
    inputs, model = find_inputs([str(toy)]), load_for_eval(str(weights))
    assert export.agrees(export.compare(model, path, inputs, options), options)
    with torch.no_grad():
        model.model[-1].cv3[0][-1].bias += 0.3
    assert not export.agrees(export.compare(model, path, inputs, options), options)


@pytest.mark.extra
def test_a_file_past_the_tolerance_ends_in_an_error(weights, toy, tmp_path, capsys):
    pytest.importorskip("onnxruntime")
    words = ("--format", "onnx", "--tolerance-score", "1e-12", "--tolerance-box", "1e-12")
    assert run_script(lambda: run(weights, toy, tmp_path, *words)) == 1
    assert "Do not use it" in capsys.readouterr().err


def test_agreement_counts_pairs_of_a_class():
    a = np.array([[0, 0, 10, 10, 0.9, 0], [20, 20, 30, 30, 0.8, 1], [50, 50, 60, 60, 0.3, 2]], float)
    b = a + [0.5, 0, 0, 0, -0.01, 0]
    b[2, 5] = 1  # another class
    one = agreement({0: a, 1: a[:0]}, {0: b, 1: a[:1]})
    assert (one.first, one.second, one.matched) == (3, 4, 2)
    assert (one.box, one.score, one.lonely) == pytest.approx((0.5, 0.01, 0.9))


def test_boxes_without_area_agree_with_themselves():
    """As a box beside the picture, cut to its border, has none."""
    a = np.array([[5, 0, 5, 9, 0.9, 0], [5, 0, 5, 9, 0.8, 1], [0, 0, 0, 0, 0.7, 0]], float)
    one = agreement({0: a}, {0: a[::-1]})
    assert (one.matched, one.box, one.score, one.lonely) == (3, 0, 0, 0)
    assert agreement({0: a}, {0: a + [3, 0, 3, 0, 0, 0]}).matched == 0


@pytest.mark.parametrize("module", ["onnx", "openvino"])
def test_a_missing_library_is_named_with_its_command(weights, toy, tmp_path, capsys, monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    assert run_script(lambda: run(weights, toy, tmp_path, "--format", module)) == 2
    message = capsys.readouterr().err
    assert f"pip install {module}" in message and message.count("\n") == 1


@pytest.mark.parametrize("name", ["no.torchscript", "no_openvino_model"])
def test_a_damaged_file_is_one_message(tmp_path, capsys, name):
    if name.endswith("model"):
        (tmp_path / name).mkdir()
    else:
        (tmp_path / name).write_bytes(b"no file of that kind")
    if name.endswith("model"):
        pytest.importorskip("openvino")
    assert run_script(lambda: detect.main(["--weights", str(tmp_path / name), "--source", "x.jpg"])) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_metadata_survive_as_text(weights):
    model = load_for_eval(str(weights))
    told = describe(model, Choices(imgsz=64, nms=True, conf=0.1), "net")
    as_text = {key: str(value) for key, value in told.items()}
    assert understand(as_text, "x") == understand(told, "x") == understand(json.loads(json.dumps(told)), "x")
    with pytest.raises(UserError, match="x does not say"):
        understand({}, "x")


def test_the_demo_needs_no_file(tmp_path, capsys):
    (path,) = export.main(["--project", str(tmp_path), "--pictures", "2"])
    assert Path(path).name == "demo.torchscript" and "the same" in capsys.readouterr().out


def test_reading_ahead_gives_the_batches_that_are_compared(toy):
    """No picture is lost: the comparison is on as many as are asked for."""
    inputs = find_inputs([str(toy)])
    sizes = {"imgsz": 64, "stride": 32, "batch": 3, "threads": 2, "broken": lambda *_: None}
    batches = list(read_stills(inputs.pictures, inputs.shapes, rect=False, whole=False, **sizes))
    assert [len(batch["img"]) for batch in batches] == [3, 3, 2]
    assert all(frame.picture is None for batch in batches for frame in batch["frames"])
    with for_evaluation(open_weights(str(guesser()))) as model:
        assert model(batches[0]["img"].float() / 255)[0].shape[0] == 3
