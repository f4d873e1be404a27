"""detect.py from the command line to its files: every kind of source, what is skipped, and val.py's own detections."""

import io
import json
import logging
import os
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import detect
import val
from data.frames.batch import Frame
from data.frames.inputs import find_inputs
from data.frames.video import open_video, read_video
from data.toy.demo import PICTURES
from models.weights.load import load_weights
from tests.helpers.runs import TOY_NAMES, guesser, run_train
from utils.env import REPO
from utils.errors import UserError, run_script
from utils.evaluation.metrics import f1_curves
from utils.run.detection.draw import drawn
from utils.run.detection.names import Names
from utils.run.detection.thresholds import best_thresholds, least_scores, read_thresholds
from utils.run.detection.write import Output

SIZE = ("--imgsz", "64", "--conf", "0.001", "--device", "cpu")


def run(project: Path, name: str, *words: object) -> tuple[dict[str, int], list[dict]]:
    """Counts and predictions.json of a run with the guesser's weights."""
    argv = ["--weights", guesser(), *SIZE, "--project", project, "--name", name, *words]
    counts = detect.main([str(word) for word in argv])
    return counts, json.loads((project / name / "predictions.json").read_text())


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven frames of 64 x 96, each of another grey."""
    path = tmp_path_factory.mktemp("videos") / "ein Würfel.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 12, (96, 64))
    for k in range(7):
        writer.write(np.full((64, 96, 3), 30 * k, np.uint8))
    writer.release()
    return path


@pytest.mark.parametrize("multi_label", ["true", "false"])
def test_detections_are_those_of_val(toy, tmp_path, multi_label):
    """The same pictures, settings and batch: every box and score to the last digit that is written."""
    words = ["--imgsz", "96", "--conf", "0.01", "--batch", "3", "--iou", "0.6", "--device", "cpu", "--multi-label"]
    words += [multi_label, "--max-det", "20", "--weights", str(guesser()), "--project", str(tmp_path), "--name"]
    val.main([*words, "val", "--data", str(toy), "--workers", "0", "--noplots"])
    detect.main([*words, "pictures", "--source", str(toy.parent / "images/val"), "--nosave"])
    detect.main([*words, "split", "--source", str(toy), "--nosave"])
    of_val = json.loads((tmp_path / "val/predictions.json").read_text())
    key = json.dumps
    assert len(of_val) > 20
    for name in ("pictures", "split"):
        found = json.loads((tmp_path / name / "predictions.json").read_text())
        assert sorted(found, key=key) == sorted(of_val, key=key)


def test_drawn_pictures_labels_and_crops(toy, tmp_path):
    words = ["--source", toy.parent / "images/val", "--save-txt", "--save-crop", "--max-det", "3", "--line-width", "1"]
    counts, rows = run(tmp_path, "all", *words)
    folder = tmp_path / "all"
    for path in (toy.parent / "images/val").iterdir():
        shown, plain = np.asarray(Image.open(folder / path.name)), np.asarray(Image.open(path))
        assert shown.shape == plain.shape and (shown != plain).any()
        lines = [line.split() for line in (folder / f"labels/{path.stem}.txt").read_text().splitlines()]
        mine = [row for row in rows if row["file_name"] == path.name]
        assert [int(line[0]) + 1 for line in lines] == [row["category_id"] for row in mine]
        h, w = plain.shape[:2]
        for line, row in zip(lines, mine, strict=True):
            x, y, bw, bh = (float(v) for v in line[1:5])
            np.testing.assert_allclose([(x - bw / 2) * w, (y - bh / 2) * h, bw * w, bh * h], row["bbox"], atol=0.01)
    assert len(list((folder / "crops").glob("*/*.jpg"))) == counts["boxes"] == len(rows)
    assert {path.name for path in (folder / "crops").iterdir()} <= set(TOY_NAMES)
    one = next(row for row in rows if row["file_name"] == "0000.jpg")
    part = Image.open(folder / f"crops/{TOY_NAMES[one['category_id'] - 1]}/0000_0.jpg")
    assert np.abs(np.array(part.size) - one["bbox"][2:]).max() <= 1


def test_names_and_scores_are_left_out_of_a_drawing_where_asked():
    picture, found = np.zeros((80, 120, 3), np.uint8), np.array([[20.0, 40, 100, 70, 0.5, 0]])
    bare = drawn(picture, found, None, 2)
    inked = np.argwhere(bare.any(2))
    assert inked.min(0).tolist() == [40, 20] and inked.max(0).tolist() == [70, 100], "the box and nothing else"
    name, whole = drawn(picture, found, ["mug"], 2, False), drawn(picture, found, ["mug"], 2)
    assert bare.any(2).sum() < name.any(2).sum() < whole.any(2).sum()


def test_every_kind_of_source_finds_the_same(toy, tmp_path, monkeypatch):
    folder = toy.parent / "images/val"
    paths = sorted(map(str, folder.iterdir()))
    (tmp_path / "list.txt").write_text("# a list\n" + "\n".join(paths) + "\n")
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(paths)))
    sources = {"folder": [folder], "glob": [folder / "*.jp*"], "list": [tmp_path / "list.txt"], "many": paths}
    found = {name: run(tmp_path, name, "--nosave", "--source", *words) for name, words in sources.items()}
    found["stdin"] = run(tmp_path, "stdin", "--nosave", "--source", "-")
    assert found["folder"][0]["pictures"] == len(paths) and found["folder"][1]
    assert all(other == found["folder"] for other in found.values())
    _, one = run(tmp_path, "one", "--nosave", "--batch", "1", "--source", paths[3])
    assert {row["file_name"] for row in one} == {"0003.jpg"}


def test_what_is_no_picture_is_named_and_a_broken_one_does_not_end_the_run(toy, tmp_path, capsys):
    good = next((toy.parent / "images/val").iterdir()).read_bytes()
    folder = tmp_path / "Bilder und mehr"
    (folder / "unten").mkdir(parents=True)
    for name in ("a.jpg", "ü b.jpg", "unten/a.jpg", "unten/a.jpeg"):
        (folder / name).write_bytes(good)
    (folder / "notes.doc").write_text("no picture")
    (folder / "page.jpg").write_text("<html> saved as a picture")
    (folder / "empty.png").touch()
    start = good.index(b"\xff\xda") + 10  # the header and the end are whole, the pixels are of another file
    (folder / "broken.jpg").write_bytes(good[:2] + good[2:start].replace(b"\xff\xc4", b"\xff\xc5") + good[start:])
    Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(folder / "grey.tif")
    counts, rows = run(tmp_path, "mixed", "--source", folder, "--batch", "2", "--max-det", "2", "--save-txt")
    printed = capsys.readouterr().out
    for name in ("notes.doc", "page.jpg", "empty.png", "broken.jpg"):
        assert f"{name}:" in printed
    names = {"a.jpg", "ü b.jpg", "unten/a.jpg", "unten/a.jpeg", "grey.tif"}
    assert {row["file_name"] for row in rows} <= names and counts["pictures"] == len(names)
    written = {p.relative_to(tmp_path / "mixed").as_posix() for p in (tmp_path / "mixed").rglob("*") if p.is_file()}
    pictures = (names - {"grey.tif"}) | {"grey.tif.jpg"}
    texts = {"a", "ü b", "unten/a.jpg", "unten/a.jpeg", "grey"}
    assert written == pictures | {f"labels/{name}.txt" for name in texts} | {"predictions.json"}


def test_a_file_that_goes_bad_after_its_header_was_read_is_left_out(toy, tmp_path, monkeypatch):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for path in (toy.parent / "images/val").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    found = find_inputs([str(folder)])
    (folder / "0002.jpg").unlink()
    monkeypatch.setattr(detect, "find_inputs", lambda *_: found)
    counts, rows = run(tmp_path, "gone", "--source", folder, "--nosave")
    assert counts["broken"] == 1 and counts["pictures"] == len(found.pictures) - 1
    assert "0002.jpg" not in {row["file_name"] for row in rows}


def test_a_video_is_drawn_frame_by_frame(video, tmp_path):
    counts, rows = run(tmp_path, "video", "--source", video, "--batch", "3", "--max-det", "2", "--save-txt")
    assert counts["pictures"] == 7
    assert {row["file_name"] for row in rows} == {video.name} and {row["frame"] for row in rows} == set(range(7))
    assert len({row["image_id"] for row in rows}) == 7
    ours, plain = open_video(str(tmp_path / f"video/{video.stem}.mp4")), open_video(str(video))
    assert ours.fps == plain.fps and ours.frames == plain.frames
    for mine, theirs in zip(*(read_video(v, imgsz=64, stride=32, batch=1) for v in (ours, plain)), strict=True):
        assert mine["frames"][0].hw == theirs["frames"][0].hw
        assert (mine["img"] != theirs["img"]).any()
    assert len(list((tmp_path / "video/labels").iterdir())) == 7


def test_a_stream_is_looked_at_frame_by_frame(video, tmp_path):
    """An address is opened as a camera is: nobody knows how many frames it has, and each is wanted at once."""
    plain = tmp_path / "video.mp4"
    plain.write_bytes(video.read_bytes())
    _, of_file = run(tmp_path, "file", "--source", plain, "--batch", "1", "--nosave")
    counts, rows = run(tmp_path, "stream", "--source", f"file://{plain}", "--max-det", "300")
    assert counts["pictures"] == 7 and len(list((tmp_path / "stream").glob("*.mp4"))) == 1
    told = ("frame", "category_id", "bbox", "score")
    assert [[row[key] for key in told] for row in rows] == [[row[key] for key in told] for row in of_file]


def test_a_cut_video_gives_the_frames_that_are_there(video, tmp_path, toy, capsys):
    """Zeros in the middle: what comes before and behind is still detected on, as is the picture beside it."""
    content = bytearray(video.read_bytes())
    start = content.index(b"mdat")
    content[start + 200 : start + 260] = bytes(60)
    (tmp_path / "in").mkdir()
    (tmp_path / "in/cut.mp4").write_bytes(content)
    (tmp_path / "in/none.mp4").write_bytes(b"no video")
    (tmp_path / "in/0.jpg").write_bytes((toy.parent / "images/val/0000.jpg").read_bytes())
    counts, rows = run(tmp_path, "cut", "--source", tmp_path / "in", "--max-det", "1")
    assert counts["pictures"] >= 3 and {"cut.mp4", "0.jpg"} == {row["file_name"] for row in rows}
    assert "none.mp4" in capsys.readouterr().out


def test_what_was_found_is_kept_when_a_run_is_stopped(video, tmp_path):
    """A whole video file and predictions.json of the frames until then."""
    options, _ = detect.read_options(["--weights", "a.pt", "--source", str(video)])
    names, path = Names([str(video)]), str(video)
    with pytest.raises(KeyboardInterrupt), Output(tmp_path, names, TOY_NAMES, options, 1, [1, 2, 3, 4]) as output:
        output.begin_video(path, 12.0)
        for number in range(3):
            frame = Frame(path, (64, 96), number, np.zeros((64, 96, 3), np.uint8))
            output.add(frame, np.array([[1.0, 2, 30, 40, 0.5, 1]]))
        raise KeyboardInterrupt
    rows = json.loads((tmp_path / "predictions.json").read_text())
    assert [(row["frame"], row["category_id"], row["bbox"]) for row in rows] == [
        (k, 2, [1, 2, 29, 38]) for k in range(3)
    ]
    assert open_video(str(tmp_path / f"{video.stem}.mp4")).frames == 3


def test_classes_and_thresholds_of_a_class_leave_the_others_as_they_are(toy, tmp_path):
    source = ("--source", toy.parent / "images/val", "--nosave", "--max-det", "1000", "--conf", "0.001")
    _, everything = run(tmp_path, "everything", *source)
    _, some = run(tmp_path, "some", *source, "--classes", "key,bolt")
    assert some and some == [row for row in everything if row["category_id"] in (2, 4)]


def test_best_pt_carries_the_thresholds_of_best_f1(toy_args, toy, tmp_path, capsys):
    """Those of val.py's own curves, class by class; ultralytics opens the file; --conf auto uses them."""
    from ultralytics import YOLO

    words = [*toy_args, "--weights", str(guesser()), "--epochs", "1", "lr0=1e-5"]
    best = run_train(*words, project=tmp_path) / "weights/best.pt"
    carried = read_thresholds(load_weights(best).thresholds)
    metrics = val.main(["--weights", str(best), "--data", str(toy), "--project", str(tmp_path), "--noplots"])
    written = json.loads((tmp_path / "exp2/metrics.json").read_text())
    assert metrics and carried.overall == pytest.approx(written["confidence_at_best_f1"], abs=1e-4)
    assert list(carried.classes) == TOY_NAMES == list(YOLO(best).names.values())
    least = least_scores("auto", TOY_NAMES, carried)
    argv = ["--weights", best, "--source", toy, "--nosave", "--project", tmp_path, "--name"]
    detect.main([str(word) for word in [*argv, "auto", "--conf", "auto"]])
    detect.main([str(word) for word in [*argv, "low", "--conf", "0.0001"]])
    auto, low = (json.loads((tmp_path / name / "predictions.json").read_text()) for name in ("auto", "low"))
    assert auto == [row for row in low if row["score"] > least[row["category_id"] - 1]]


def test_a_threshold_is_where_f1_peaks():
    """One class is found with scores above 0.6 and mistaken below; the other only below 0.3: each has its own."""
    from types import SimpleNamespace

    n, rng = 40, np.random.default_rng(0)
    boxes = np.tile([0.5, 0.5, 0.4, 0.4], (2 * n, 1)).astype(np.float32)
    truth = SimpleNamespace(
        shapes=np.full((n, 2), 100), boxes=boxes, classes=np.tile([0, 1], n), crowd=np.zeros(2 * n, bool),
        area=np.full(2 * n, 1600.0), offsets=2 * np.arange(n + 1), names=["a", "b", "c"], image_ids=np.arange(n),
        category_ids=[1, 2, 3],
    )  # fmt: skip
    there, away = [30, 30, 70, 70], [0, 0, 10, 10]
    found = {}
    for i in range(n):
        high, low = rng.uniform(0.6, 0.9), rng.uniform(0.15, 0.3)
        rows = [[*there, high, 0], [*away, low, 0], [*there, low, 1]]
        found[i] = np.array(sorted(rows, key=lambda row: -row[4]))
    chosen = best_thresholds(f1_curves(truth, found), truth.names)
    assert 0.3 < chosen.classes["a"] <= 0.6 and chosen.classes["b"] <= 0.2
    assert chosen.classes["c"] == chosen.overall
    assert read_thresholds(chosen.plain()) == chosen
    for damaged in (None, {}, {"global": 0.1}, {"global": "x", "classes": {}}, {"global": 0.2, "classes": {"a": 7}}):
        assert read_thresholds(damaged) is None


def test_the_demo_needs_no_file(tmp_path, capsys):
    counts = detect.main(["--project", str(tmp_path), "--device", "cpu"])
    assert counts["pictures"] == PICTURES and counts["boxes"] > counts["pictures"]
    assert "demo" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--source", "nowhere"], ["nowhere", "camera"]),
        (["--source", "77"], ["camera 77"]),
        (["--source", "README.md"], ["README.md", "neither a picture nor a video"]),
        (["--source", "tests"], ["no picture"]),
        (["--sorce", "x.jpg"], ["sorce", "source"]),
        (["--conf", "1.5", "--source", "x.jpg"], ["conf"]),
        (["--conf", "automatic", "--source", "x.jpg"], ["conf", "auto"]),
        (["--conf", "auto", "--source", "x.jpg"], ["no thresholds"]),
        (["--classes", "mugg", "--source", "x.jpg"], ["mugg", "mug"]),
        (["--imgsz", "100", "--source", "x.jpg"], ["stride"]),
        ([], ["--source is missing"]),
    ],
)  # fmt: skip
def test_bad_input_gives_one_message_and_exit_code_2(words, told, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(REPO)
    argv = ["--weights", str(guesser()), "--project", str(tmp_path), *words]
    assert run_script(lambda: detect.main(argv)) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1 and all(word in message for word in told), message
    assert not (tmp_path / "exp").exists()


def test_help_names_every_option(capsys):
    assert detect.main(["--help"]) == {}
    printed = capsys.readouterr().out
    assert all(f"--{name.replace('_', '-')}" in printed for name in detect.Options.model_fields)
    with pytest.raises(UserError):
        detect.read_options(["--weights", "a.pt"])
    logging.getLogger().handlers.clear()


opened: list[str] = []  # pictures of the test below, as often as they are opened


def _note(event: str, args: tuple) -> None:
    if event == "open" and str(args[0]).endswith(".ahead.png"):
        opened.append(os.path.basename(args[0]))


def test_what_comes_next_is_decoded_while_the_network_is_at_work(tmp_path):
    """The first pass waits until the last picture, of the second batch, has been opened as often as in a whole run."""
    for k in range(4):
        Image.new("RGB", (64, 64), (60 * k,) * 3).save(tmp_path / f"{k}.ahead.png")
    words = ("--source", tmp_path, "--batch", 2, "--nosave")
    sys.addaudithook(_note)
    run(tmp_path, "first", *words)
    last = "3.ahead.png"
    times, passes = opened.count(last), []
    opened.clear()

    def wait(module: torch.nn.Module, inputs: tuple) -> None:
        if type(module).__name__ == "DetectionModel":
            end = time.monotonic() + 30
            while opened.count(last) < times and time.monotonic() < end:
                time.sleep(0.01)
            passes.append(opened.count(last))

    with torch.nn.modules.module.register_module_forward_pre_hook(wait):
        run(tmp_path, "second", *words)
    assert times > 1 and passes == [times] * 2
