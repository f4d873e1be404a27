"""Darknet's .weights and .cfg: what our network makes of them is what Darknet's layers compute, number by number."""

import struct
from pathlib import Path

import pytest
import torch
import yaml

import val
from models.detector import build_detector, load_for_eval
from models.weights.darknet import files_of
from models.weights.find import read_model_yaml
from tests.helpers.runs import replaced, run_train
from tests.helpers.zoo import refusal
from tests.models.anchor.darknet import cfg, interpret, write_weights
from utils.errors import UserError

SMALL = {"narrow": 4, "blocks": (1, 1, 1, 2, 1)}
KINDS = ("yolov3-spp", "yolov3", "yolov3-tiny")


def small(kind: str, folder: Path, **options) -> tuple[str, Path]:
    """A narrow network: its cfg, and the file of its weights beside it."""
    text = cfg(kind, **SMALL, **options)
    (folder / f"{kind}.cfg").write_text(text)
    return text, write_weights(folder / f"{kind}.weights", text)


def assert_computes(path: Path, wanted: list[torch.Tensor], x: torch.Tensor) -> None:
    """The file's network puts out `wanted`: the inputs of Darknet's [yolo], the coarsest first."""
    with torch.no_grad():
        _, levels = load_for_eval(str(path)).double()(x.double())
    for level, theirs in zip(reversed(levels), wanted, strict=True):
        b, anchors, h, w, numbers = level.shape
        ours = level.permute(0, 1, 4, 2, 3).reshape(b, anchors * numbers, h, w)
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_network_computes_what_darknet_does(tmp_path, kind):
    text, path = small(kind, tmp_path)
    x = torch.rand(2, 3, 96, 64, generator=torch.Generator().manual_seed(0))
    assert_computes(path, interpret(text, path, x), x)


def test_boxes_are_darknets(tmp_path):
    """x = (s(tx) + cell) stride, w = e^tw anchor, score = s(objectness) s(class), of its last level."""
    text, path = small("yolov3-spp", tmp_path)
    x = torch.rand(1, 3, 64, 64)
    raw = interpret(text, path, x)[-1][0].view(3, 7, 8, 8)
    a, i, j = 1, 5, 2
    tx, ty, tw, th, obj, *classes = raw[a, :, i, j]
    found = load_for_eval(str(path))(x)[0][0, :, a * 64 + i * 8 + j]
    wanted = [(tx.sigmoid() + j) * 8, (ty.sigmoid() + i) * 8, tw.exp() * 16, th.exp() * 30]
    wanted = torch.stack([*wanted, *(obj.sigmoid() * c.sigmoid() for c in classes)])
    torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_without_a_cfg_the_size_tells_the_layout(tmp_path, caplog):
    """Our own yaml, whose SPP joins its inputs in the other order, computes the same; in full width."""
    caplog.set_level("INFO")
    x = torch.rand(1, 3, 64, 64)
    text = cfg("yolov3-spp", nc=3)
    path = write_weights(tmp_path / "mine.weights", text)
    assert_computes(path, interpret(text, path, x), x)
    assert "yolov3-spp with 3 classes" in caplog.text
    assert read_model_yaml(Path("yolov3-spp.yaml"))["backbone"] == load_for_eval(str(path)).yaml["backbone"]


def test_older_header_counts_pictures_in_four_bytes(tmp_path):
    text, path = small("yolov3-tiny", tmp_path)
    x = torch.rand(1, 3, 64, 64)
    write_weights(path, text, seen_of="<i")
    assert_computes(path, interpret(text, path, x, header=16), x)


def test_names_size_and_cfg_are_found_beside_the_file(tmp_path):
    _, path = small("yolov3-tiny", tmp_path, net="width=160\nheight=160")
    (tmp_path / "yolov3-tiny.names").write_text("key\nmug\n")
    trained = path.rename(tmp_path / "yolov3-tiny_final.weights")
    model = load_for_eval(str(trained))
    assert model.names == {0: "key", 1: "mug"} and model.args["imgsz"] == 160
    (tmp_path / "yolov3-tiny.names").write_text("key\n")
    with pytest.raises(UserError, match="1 names, and .* has 2 classes"):
        load_for_eval(str(trained))


def test_a_comparison_marks_every_file_that_is_read(tmp_path):
    _, path = small("yolov3-tiny", tmp_path)
    names = tmp_path / "yolov3-tiny.names"
    names.write_text("key\nmug\n")
    assert files_of(path) == [path, tmp_path / "yolov3-tiny.cfg", names]
    assert files_of(tmp_path / "yolov3-tiny.pt") == [tmp_path / "yolov3-tiny.pt"]


def test_eighty_classes_are_those_of_coco(tmp_path):
    _, path = small("yolov3-tiny", tmp_path, nc=80)
    names = load_for_eval(str(path)).names
    assert (len(names), names[0], names[79]) == (80, "person", "toothbrush")


def test_rows_carry_over_by_name(tmp_path):
    _, path = small("yolov3-spp", tmp_path)
    (tmp_path / "yolov3-spp.names").write_text("key\nmug\n")
    source = load_for_eval(str(path)).model[-1].m[0]
    model, transfer = build_detector(str(path), ["leaf", "mug", "bolt"])
    rows = model.model[-1].m[0].weight.view(3, 8, -1)
    assert transfer.carried_names == ["mug"] and transfer.fresh == ["leaf", "bolt"]
    assert torch.equal(rows[:, 6], source.weight.view(3, 7, -1)[:, 6])
    assert torch.equal(rows[:, :5], source.weight.view(3, 7, -1)[:, :5])


@pytest.mark.slow
def test_trains_evaluates_and_detects(toy, toy_args, tmp_path):
    import detect

    _, path = small("yolov3-tiny", tmp_path, nc=4)
    (tmp_path / "yolov3-tiny.names").write_text("mug\nkey\nleaf\nbolt\n")
    words = replaced(replaced(toy_args, "--weights", path), "--epochs", 1)
    best = run_train(*words, project=tmp_path, name="run") / "weights/best.pt"
    assert load_for_eval(str(best)).yaml["decode"] == "darknet"
    for weights in (path, best):
        found = val.main(["--weights", str(weights), "--data", str(toy), "--imgsz", "64", "--noplots",
                          "--project", str(tmp_path / "val")])  # fmt: skip
        assert 0 <= found["val/mAP50-95"] <= 1
    pictures = str(toy.parent / "images/val")
    counts = detect.main(["--weights", str(path), "--source", pictures, "--conf", "0.01", "--project", str(tmp_path)])
    assert counts["pictures"] == 8 and counts["boxes"] > 0


def test_damaged_and_foreign_files_are_refused(tmp_path):
    _, path = small("yolov3-spp", tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 8 * 4])
    assert "truncated" in refusal(path) and str(tmp_path / "yolov3-spp.cfg") in refusal(path)
    path.write_bytes(content + bytes(400))
    assert "larger network" in refusal(path)
    path.write_bytes(content[:11])
    assert "truncated" in refusal(path)
    path.write_bytes(content[:4000] + struct.pack("<f", float("nan")) + content[4004:])
    assert "NaN" in refusal(path)
    path.write_bytes(b"PK" + content[2:])
    assert "version" in refusal(path)
    path.write_bytes(content)
    (tmp_path / "yolov3-spp.cfg").rename(tmp_path / "elsewhere.cfg")
    assert "no .cfg beside it" in refusal(path)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("activation=leaky", "activation=maxout", "activation maxout"),
        ("[upsample]", "[reorg]", "[reorg]"),
        ("from = -3", "from = -2", "does not add a block"),
        ("layers = -1,-3,-5,-6", "layers = -1,-99", "layer"),
        ("classes = 2", "classes = 3", "filters has to stand before it"),
        ("filters=8\n", "filters=nine\n", "not a whole number"),
        ("filters=8\n", "filters=9\n", "multiple of 8"),
        ("size=3\n", "size=3\ngroups=2\n", "groups=2"),
        ("mask = 6,7,8", "mask = 6,7", "filters has to stand before it"),
        ("anchors = 10,", "anchors = ten,", "no list of numbers"),
        ("[net]", "[netting]", "no Darknet cfg"),
        ("width=96", "broad", "neither [layer] nor key=value"),
        ("channels=3", "channels=1", "channels"),
    ],
)
def test_a_cfg_that_cannot_be_built_is_refused_by_its_line(tmp_path, old, new, said):
    text, path = small("yolov3-spp", tmp_path)
    assert old in text
    (tmp_path / "yolov3-spp.cfg").write_text(text.replace(old, new, 1))
    message = refusal(path)
    assert said in message and "yolov3-spp.cfg" in message and "\n" not in message


def test_best_pt_of_it_needs_no_cfg(tmp_path):
    """What was read is written whole: yaml, activations, eps."""
    from models.weights.save import save_weights

    _, path = small("yolov3-tiny", tmp_path)
    model, x = load_for_eval(str(path)), torch.rand(1, 3, 64, 64)
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(tensor.half())  # as the file keeps them
    save_weights(tmp_path / "best.pt", model, model.names, {"imgsz": 64}, 1, {})
    assert torch.equal(load_for_eval(str(tmp_path / "best.pt"))(x)[0], model(x)[0])
    assert yaml.safe_dump(model.yaml), "plain values only"
