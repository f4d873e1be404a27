"""val.py from the command line to its files, and what it says to bad input."""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import val
from models.detector import build_detector
from models.weights.save import save_weights
from tests.helpers.runs import replaced
from utils.env import REPO
from utils.errors import UserError, run_script
from utils.evaluation.output import numbered
from utils.run.state.seed import set_seed

NO_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with best.pt (random weights, two classes) and data.yaml (six pictures)."""
    root = tmp_path_factory.mktemp("world")
    rng = np.random.default_rng(0)
    for kind in ("images", "labels"):
        (root / kind).mkdir()
    for i in range(6):
        Image.fromarray(rng.integers(0, 255, (60 + 10 * i, 90, 3), dtype=np.uint8)).save(root / f"images/{i}.png")
        (root / f"labels/{i}.txt").write_text(f"{i % 2} 0.5 0.5 0.4 0.4\n")
    (root / "data.yaml").write_text("train: images\nval: images\nnames: [cat, dog]\n")
    set_seed(0)
    model, _ = build_detector(str(REPO / "models/demo.yaml"), ["cat", "dog"])
    save_weights(root / "best.pt", model, ["cat", "dog"], {}, 1, {})
    return root


def arguments(world: Path, *more: str) -> list[str]:
    common = ["--weights", world / "best.pt", "--data", world / "data.yaml", "--imgsz", "64", "--workers", "0"]
    return [str(word) for word in [*common, "--project", world / "runs", *more]]


def exit_code(argv: list[str]) -> int:
    return run_script(lambda: val.main(argv))


def test_an_evaluation_writes_what_it_promises(world, capsys):
    metrics = val.main(arguments(world, "--name", "full", "--save-txt", "--conf", "0.0001", "--batch", "4"))
    folder = world / "runs/full"
    for name in ("PR_curve.png", "F1_curve.png", "confusion.png", "pictures.jpg"):
        assert min(Image.open(folder / name).size) > 100
    written = json.loads((folder / "metrics.json").read_text())
    assert written["metrics"]["val/mAP50-95"] == metrics["val/mAP50-95"]
    assert written["metrics"]["val/mAP_large"] is None  # no box of that size: nan, which JSON does not know
    assert [row["name"] for row in written["per_class"]] == ["cat", "dog"]
    predictions = json.loads((folder / "predictions.json").read_text())
    assert predictions and set(predictions[0]) == {"image_id", "file_name", "category_id", "bbox", "score"}
    assert {row["image_id"]: row["file_name"] for row in predictions} == {i: f"{i}.png" for i in range(6)}
    rows = [line.split() for p in sorted((folder / "labels").iterdir()) for line in p.read_text().splitlines()]
    assert len(list((folder / "labels").iterdir())) == 6 and len(rows) == len(predictions)
    assert all(len(row) == 6 and all(0 <= float(v) <= 1 for v in row[1:]) for row in rows)
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("all", "cat", "dog", "mAP50-95", "inference", str(folder)))


def detector_of_side(path: Path, strides: float) -> None:
    """Weights that see squares everywhere, `strides` strides of their level from the middle to a side."""
    set_seed(0)
    model, _ = build_detector(str(REPO / "models/demo.yaml"), ["cat", "dog"])
    for box in model.model[-1].cv2:
        bins = box[-1].bias.data.view(4, -1).fill_(-20)  # (4, 16) of the distances 0 to 15
        bins[:, int(strides)], bins[:, math.ceil(strides)] = 20, 20
        box[-1].weight.data.zero_()
    path.parent.mkdir(parents=True)
    save_weights(path, model, ["cat", "dog"], {}, 1, {})


@pytest.mark.slow
def test_a_label_that_no_seed_finds(world, tmp_path, capsys):
    """The labels that none of three detectors finds are those that each of them, alone, does not find."""
    for side in (4, 8, 16, 64):
        for kind in ("images", "labels"):
            (tmp_path / kind).mkdir(exist_ok=True)
        Image.new("RGB", (64, 64)).save(tmp_path / f"images/{side}.png")
        centre = 0.5 if side == 64 else 28 / 64  # of a cell of the finest level
        (tmp_path / f"labels/{side}.txt").write_text(f"0 {centre} {centre} {side / 64} {side / 64}\n")
    (tmp_path / "data.yaml").write_text("train: images\nval: images\nnames: [cat, dog]\n")
    files = [tmp_path / f"cmp/seed{k}/weights/best.pt" for k in range(3)]
    for path, strides in zip(files, (0.5, 1, 2), strict=True):
        detector_of_side(path, strides)

    def never_found(name: str, *words: object) -> set[str]:
        few = ("--errors", "--worst", "1", "--conf", "0", "--iou", "0.99", "--noplots", "--name", name)
        val.main(arguments(tmp_path, *few, *words)[2:])
        rows = [row.split(",") for row in (tmp_path / f"runs/{name}/labels-to-check.csv").read_text().splitlines()]
        return {Path(row[0]).stem for row in rows if row[1] == "never found"}

    alone = [never_found(f"{k}", "--weights", path) for k, path in enumerate(files)]
    assert alone == [{"4", "16", "64"}, {"4", "8"}, {"4", "8", "16"}]
    together = never_found("together", "--weights", files[1], "--other-seeds", tmp_path / "cmp")
    assert together == {"4"}
    assert "never finds: 2; that none of all 3 finds: 1" in capsys.readouterr().out
    assert "of any of 3 detectors" in (tmp_path / "runs/together/errors.html").read_text()
    assert never_found("listed", "--weights", files[1], "--other-seeds", files[2], files[1].parents[1]) == {"4", "8"}
    assert exit_code(arguments(world, "--other-seeds", tmp_path / "cmp")) == 2
    assert "add --errors" in capsys.readouterr().err


def test_errors_writes_a_page_a_table_of_pictures_and_one_of_labels(world, capsys):
    val.main(arguments(world, "--name", "errors", "--errors", "--worst", "2", "--conf", "0.0001", "--noplots"))
    folder = world / "runs/errors"
    rows = (folder / "errors.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows[1:]] == [str(world / f"images/{i}.png") for i in range(6)]
    page = (folder / "errors.html").read_text(encoding="utf-8")
    assert page.count("truth on the left") == 2
    labels = (folder / "labels-to-check.csv").read_text().splitlines()
    assert labels[0].startswith("picture,what,score") and page.count("<h3>") == len(
        {r.split(",")[1] for r in labels[1:]}
    )
    assert "missed" in capsys.readouterr().out


def test_size_and_thresholds_are_those_of_the_training_unless_given(world, tmp_path, capsys):
    model, _ = build_detector(str(REPO / "models/demo.yaml"), ["cat", "dog"])
    told = {"imgsz": 96, "max_det": 7, "conf": 0.0002, "iou": "no number"}
    save_weights(tmp_path / "w.pt", model, ["cat", "dog"], told, 1, {})
    words = ["--weights", tmp_path / "w.pt", "--data", world / "data.yaml", "--workers", "0", "--noplots"]
    words += ["--project", tmp_path, "--name"]
    used = {}
    for name, more in {"trained": [], "given": ["--imgsz", "64", "--max-det", "9"]}.items():
        val.main([*words, name, *more])
        used[name] = json.loads((tmp_path / name / "metrics.json").read_text())["options"]
        used[name]["said"] = capsys.readouterr().out
    keys = ("imgsz", "max_det", "conf", "iou")
    assert [used["trained"][key] for key in keys] == [96, 7, 0.0002, val.Options().iou]
    assert [used["given"][key] for key in keys] == [64, 9, 0.0002, val.Options().iou]
    assert "imgsz 96" in used["trained"]["said"] and "trained at 96" in used["given"]["said"]


def test_folders_are_numbered_and_noplots_draws_nothing(world):
    for _ in range(2):
        val.main(arguments(world, "--name", "again", "--noplots"))
    val.main(arguments(world, "--name", "again", "--noplots", "--exist-ok"))
    assert sorted(p.name for p in (world / "runs").glob("again*")) == ["again", "again2"]
    assert not list((world / "runs").glob("again*/*.png"))


def test_classes_in_another_order_are_the_same_detections(world):
    (world / "swapped").mkdir()
    for i in range(6):
        (world / f"swapped/{i}.png").write_bytes((world / f"images/{i}.png").read_bytes())
        (world / f"swapped/{i}.txt").write_text(f"{1 - i % 2} 0.5 0.5 0.4 0.4\n")
    (world / "swapped.yaml").write_text("val: swapped\ntrain: swapped\nnames: [Dog, cat]\n")
    found = {}
    for name, data in (("plain", "data.yaml"), ("swapped", "swapped.yaml")):
        val.main(arguments(world, "--noplots", "--name", name, "--conf", "0.0001", "--data", world / data))
        rows = json.loads((world / f"runs/{name}/predictions.json").read_text())
        found[name] = sorted((r["image_id"], r["bbox"], r["score"], r["category_id"]) for r in rows)
    assert found["plain"]
    assert found["swapped"] == sorted((i, box, score, 3 - category) for i, box, score, category in found["plain"])


def test_old_spellings_work_and_name_the_new_ones(world, capsys):
    old = ["--img-size", "64", "--batch-size", "2", "--conf-thres", "0.01", "--iou-thres", "0.6", "--task", "val"]
    val.main(arguments(world, "--noplots", "--name", "old", "--single-cls", "--no-multi-label", *old))
    printed = capsys.readouterr().out
    assert all(f"today {name}" in printed for name in ("imgsz", "batch", "conf", "iou", "split"))
    options = json.loads((world / "runs/old/metrics.json").read_text())["options"]
    assert (options["batch"], options["conf"], options["iou"], options["multi_label"]) == (2, 0.01, 0.6, False)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--imgs", "64"], ["imgs", "imgsz"]),
        (["--imgsz", "100"], ["100", "stride", "96 or 128"]),
        (["--imgsz", "some"], ["imgsz", "some"]),
        (["--batch", "0"], ["batch", "0"]),
        (["--conf", "2"], ["conf", "2"]),
        (["--split", "test"], ["test"]),
        (["--split", "trial"], ["split", "trial"]),
        (["--weights", "absent.pt"], ["absent.pt"]),
        (["--data", "absent.yaml"], ["absent.yaml"]),
        (["--data", "toy-target"], ["best.pt", "--single-cls"]),
        pytest.param(["--device", "0"], ["GPU", "--device cpu"], marks=NO_GPU),
    ],
)  # fmt: skip
def test_bad_input_gives_one_message_and_exit_code_2(world, capsys, more, words):
    assert exit_code(arguments(world, "--name", "bad", *more)) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1 and all(word in message for word in words), message
    assert not (world / "runs/bad").exists()


@pytest.mark.parametrize("missing", ["--weights", "--data"])
def test_weights_and_data_are_asked_for(world, capsys, missing):
    argv = arguments(world)
    place = argv.index(missing)
    assert exit_code(argv[:place] + argv[place + 2 :]) == 2
    assert missing in capsys.readouterr().err


def test_a_project_that_cannot_be_written_is_named(world, capsys):
    (world / "file").write_text("in the way")
    assert exit_code(arguments(world, "--project", world / "file")) == 2
    assert "file" in capsys.readouterr().err


def test_names_are_matched_by_name_where_the_data_allows_it():
    options = val.Options(weights="w.pt", data="d.yaml")
    assert val.match_names(["a", "b"], ["a", "b"], options) is None
    assert val.match_names(["a", "b", "c"], ["C ", "a"], options) == [1, -1, 0]
    with pytest.raises(UserError, match="'x'.*w.pt"):
        val.match_names(["a", "b"], ["a", "x"], options)


def test_help_names_every_option(capsys):
    assert val.main(["--help"]) == {}
    printed = capsys.readouterr().out
    assert all(f"--{name.replace('_', '-')}" in printed for name in val.Options.model_fields)


def test_ids_of_pictures_with_other_names_stay_when_pictures_come():
    """For every spelling but numbers an id is a function of the path below the common folder alone."""

    def ids(*paths: str) -> dict[str, int]:
        index = SimpleNamespace(paths=list(paths), image_ids=range(1, len(paths) + 1))
        rows, note = numbered([{"image_id": i} for i in index.image_ids], index)
        assert note.startswith("image ids")
        return {row["file_name"]: row["image_id"] for row in rows}

    before = ids("/d/a/x.jpg", "/d/b/x.jpg", "/d/b/7.jpg")
    after = ids("/d/a/w.jpg", "/d/a/x.jpg", "/d/b/7.jpg", "/d/b/x.jpg")
    assert len(set(before.values())) == 3 and before.items() <= after.items()
    assert all(0 <= i < 2**53 for i in after.values())
    assert ids("/c/000139.jpg", "/c/000285.jpg") == {"000139.jpg": 139, "000285.jpg": 285}
    assert set(ids("/c/a/1.jpg", "/c/b/01.jpg").values()) != {1}, "one number for two pictures is no number"


def test_a_json_keeps_its_own_ids(world):
    images = [{"id": 10 * i, "file_name": f"{i}.png", "width": 90, "height": 60 + 10 * i} for i in range(6)]
    boxes = [{"id": i, "image_id": 10 * i, "category_id": 4, "bbox": [20, 20, 30, 30], "area": 900} for i in range(6)]
    kinds = [{"id": 4, "name": "cat"}, {"id": 9, "name": "dog"}]
    (world / "truth.json").write_text(json.dumps({"images": images, "annotations": boxes, "categories": kinds}))
    (world / "json.yaml").write_text("val: truth.json\nnames: [cat, dog]\n")
    words = replaced(arguments(world, "--name", "json", "--conf", "0.0001", "--noplots"), "--data", world / "json.yaml")
    val.main(words)
    predictions = json.loads((world / "runs/json/predictions.json").read_text())
    assert {row["image_id"] for row in predictions} <= {10 * i for i in range(6)} and "file_name" not in predictions[0]
