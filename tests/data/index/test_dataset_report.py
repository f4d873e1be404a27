"""python -m data.index: the numbers of a dataset whose content is known, copies, problems, plots and exit codes."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.index.copies import TAIL, find_copies
from data.report.advice import advice
from data.report.counts import count
from data.report.main import main
from data.report.plots import LETTERS, plot_boxes
from data.report.text import class_table, shorten
from utils.env import REPO
from utils.errors import UserError, run_script

CLEAN = {
    "train": {"a": "0 0.5 0.5 0.5 0.5\n1 0.5 0.5 0.2 0.2\n", "b": "0 0.5 0.5 0.1 0.8\n"},
    "val": {"c": "0 0.5 0.5 0.5 0.5\n1 0.5 0.5 0.25 0.25\n"},
}


def make(root: Path, splits: dict[str, dict[str, str | None]], names: str = "[cat, dog, bird]", seed: int = 0) -> Path:
    """A dataset of 80 x 60 noise with these label texts (None: no label file), and its yaml."""
    rng = np.random.default_rng(seed)
    for split, labels in splits.items():
        for kind in ("images", "labels"):
            (root / kind / split).mkdir(parents=True, exist_ok=True)
        for name, text in labels.items():
            noise = rng.integers(0, 255, (60, 80, 3), dtype=np.uint8)
            Image.fromarray(noise).save(root / f"images/{split}/{name}.png")
            if text is not None:
                (root / f"labels/{split}/{name}.txt").write_text(text)
    file = root / "data.yaml"
    file.write_text("".join(f"{split}: images/{split}\n" for split in splits) + f"names: {names}\n")
    return file


@pytest.fixture
def messy(tmp_path: Path) -> Path:
    """A leak, copies within train, backgrounds, a bad row, an empty picture and two absent classes."""
    train = {
        "a": "0 0.5 0.5 0.5 0.5\n0 0.5 0.5 0.2 0.2\n1 0.5 0.5 0.05 0.05\n",
        "b": "0 0.5 0.5 0.1 0.8\n",
        "copy": "0 0.5 0.5 0.1 0.8\n",
        "background": "",
        "unlabelled": None,
        "bad": "0 0.5 0.5 0.9 0.9\n7 0.5 0.5 0.1 0.1\n",
        "empty": "0 0.5 0.5 0.5 0.5\n",
    }
    file = make(tmp_path / "set", {"train": train, "val": {"leak": "0 0.5 0.5 0.5 0.5\n", "own": "0 0.5 0.5 1 1\n"}})
    images = tmp_path / "set/images"
    shutil.copy(images / "train/b.png", images / "train/copy.png")
    shutil.copy(images / "train/bad.png", images / "val/leak.png")
    (images / "train/empty.png").write_bytes(b"")
    return file


def report(file: Path, *more: str) -> int:
    return run_script(lambda: main([str(file), "--project", str(file.parent.parent / "runs"), *more]))


def row(text: str, title: str) -> list[str]:
    """The cells of the first line of a table that begins so."""
    line = next(line for line in text.splitlines() if line.startswith(title))
    return line.removeprefix(title).split()


def test_numbers_of_a_known_dataset(messy, capsys):
    counts = main([str(messy), "--imgsz", "80", "--project", str(messy.parent.parent / "runs")])
    text = capsys.readouterr().out
    train, val = counts["train"], counts["val"]
    assert (train.pictures, train.boxes, train.left_out) == (6, 6, 1)
    assert (train.backgrounds, train.unlabelled, train.crowds) == (2, 1, 0)
    assert train.class_boxes.tolist() == [5, 1, 0] and train.class_pictures.tolist() == [4, 1, 0]
    assert sorted(train.per_picture.tolist()) == [0, 0, 1, 1, 1, 3]
    assert (val.pictures, val.boxes, val.left_out, val.backgrounds) == (2, 2, 0, 0)
    assert train.by_area().tolist() == [4, 2, 0]  # 40x30, 16x12, 4x3, twice 8x48, 72x54 pixels
    assert train.by_area(160).tolist() == [2, 3, 1] and val.by_area(160).tolist() == [0, 1, 1]
    assert train.tiny(80) == pytest.approx(1 / 6) and train.tiny(40) == pytest.approx(4 / 6) and val.tiny(80) == 0
    assert (train.larger_than(79), train.larger_than(80)) == (6, 0)
    assert row(text, "pictures") == ["6", "2"] and row(text, "boxes") == ["6", "2"]
    assert row(text, "  left out: cannot be used") == ["1", "0"]
    assert row(text, "  backgrounds: without a box") == ["2", "0"]
    assert row(text, "    without a label file too") == ["1", "0"]
    assert row(text, "boxes per picture, median") == ["1", "1"] and row(text, "  most") == ["3", "1"]
    assert row(text, "  largest") == ["80x60", "80x60"]
    assert row(text, "boxes, small (below 32x32 px)") == ["66.7%", "0.0%"]
    assert row(text, "  with a side below 8 px") == ["16.7%", "0.0%"]
    assert row(text, "cat") == ["5", "83.3%", "4", "2", "100.0%", "2"] and row(text, "bird")[0] == "0"
    assert "train: 5 times as many boxes of 'cat' as of 'dog'" in text
    assert "train: no box of 'bird' (1 of 3 classes)" in text and "val: no box of 'dog', 'bird'" in text


def test_copies_problems_and_advice_are_said(messy, capsys):
    assert report(messy) == 0
    text, folder, images = capsys.readouterr().out, messy.parent.parent / "runs/data", messy.parent / "images"
    assert "LEAK: 1 pictures of train are in val too" in text
    assert f"  {images}/train/bad.png is {images}/val/leak.png" in text
    assert "train: 1 pictures are copies of others in train" in text
    assert f"  {images}/train/b.png is {images}/train/copy.png" in text
    groups = (folder / "duplicates.txt").read_text().strip().split("\n\n")
    assert sorted(len(group.splitlines()) for group in groups) == [2, 2]
    problems = (folder / "problems.txt").read_text().splitlines()
    assert len(problems) == 2 and all(line in text for line in problems) and "2 problems" in text
    assert any("bad.txt, line 2: class 7 is out of range" in line for line in problems)
    assert any(line.startswith(f"{images}/train/empty.png") for line in problems)
    said = [line for line in text.splitlines() if line.startswith("advice:")]
    assert any("remove the 1 shared pictures" in line for line in said)
    assert any("'dog': in train, but not in val" in line for line in said)
    assert any("33.3% of train are background" in line for line in said)
    assert all(line in (folder / "report.txt").read_text().splitlines() for line in said)


def test_long_lists_are_cut_on_the_console_only(tmp_path, capsys):
    splits = {"train": {f"p{i:02d}": "0 0.5 0.5 0.5 0.5\n9 0.5 0.5 0.1 0.1\n" for i in range(25)}}
    file = make(tmp_path / "set", splits)
    words = ("--noplots", "--split", "train")
    assert report(file, *words) == 0 and report(file, *words, "--all") == 0
    first, second = capsys.readouterr().out.split("written to")[:2]
    assert first.count("class 9 is out of range") == 20 and "and 5 more" in first
    assert second.count("class 9 is out of range") == 25 and "more:" not in second
    assert len((tmp_path / "runs/data/problems.txt").read_text().splitlines()) == 25


@pytest.mark.slow
def test_a_dataset_without_fault_is_left_as_it_is(tmp_path, capsys):
    file = make(tmp_path / "set", CLEAN, names="[cat, dog]")
    before = {p: (p.stat().st_size, p.stat().st_mtime_ns) for p in file.parent.rglob("*")}
    assert report(file, "--strict") == 0 and report(file) == 0 and report(file, "--exist-ok") == 0
    assert {p: (p.stat().st_size, p.stat().st_mtime_ns) for p in file.parent.rglob("*")} == before
    assert sorted(p.name for p in (tmp_path / "runs").iterdir()) == ["data", "data2"]
    assert sorted(p.name for p in (tmp_path / "runs/data").iterdir()) == [
        "label_plots.png",
        "pictures.png",
        "report.txt",
    ]
    text = capsys.readouterr().out
    assert "no picture is there twice" in text and "no problems" in text and "LEAK" not in text
    for name in ("label_plots.png", "pictures.png"):
        pixels = np.asarray(Image.open(tmp_path / "runs/data" / name).convert("L"))
        assert min(pixels.shape) > 200 and pixels.std() > 5


@pytest.mark.parametrize("lacks", ["train", "val"])
def test_a_split_that_training_needs_is_named_where_it_is_missing(tmp_path, capsys, lacks):
    file = make(tmp_path / "set", CLEAN, names="[cat, dog]")
    file.write_text("".join(line + "\n" for line in file.read_text().splitlines() if not line.startswith(lacks)))
    assert report(file, "--noplots") == 2
    out, err = capsys.readouterr()
    assert f"has no '{lacks}'" in err and "no problems with pictures or labels" in out, "the other is reported first"


def test_strict_prints_everything_and_fails(messy, capsys):
    assert report(messy, "--strict", "--noplots") == 2
    captured = capsys.readouterr()
    assert "class 7 is out of range" in captured.out and "LEAK" in captured.out
    assert "2 problems" in captured.err and "share 1 pictures" in captured.err and captured.err.count("\n") == 1


def test_strict_fails_for_a_leak_alone(tmp_path, capsys):
    file = make(tmp_path / "set", CLEAN)
    shutil.copy(tmp_path / "set/images/train/a.png", tmp_path / "set/images/val/c.png")
    assert report(file, "--noplots") == 0 and report(file, "--noplots", "--strict") == 2
    assert report(file, "--noplots", "--strict", "--split", "val") == 0  # alone it shares nothing
    assert "share 1 pictures" in capsys.readouterr().err


def test_a_split_that_cannot_be_used_hides_no_other(tmp_path, capsys):
    file = make(tmp_path / "set", CLEAN | {"val": {"c": None}})
    assert report(file, "--noplots") == 2
    captured = capsys.readouterr()
    assert row(captured.out, "pictures") == ["2"] and "no labels at all" in captured.err
    assert report(file, "--noplots", "--split", "train") == 0
    assert report(file, "--noplots", "--split", "val", "--name", "none") == 2
    assert not (tmp_path / "runs/none").exists()


@pytest.mark.parametrize("test", ["../test/images", "nothing"])
def test_a_test_split_that_is_not_there_is_one_line(tmp_path, capsys, test):
    """Roboflow's yamls name ../test/images whether there is one or not; it is a fault only where test is asked for."""
    file = make(tmp_path / "set", CLEAN)
    (tmp_path / "set/nothing").mkdir()
    file.write_text(file.read_text() + f"test: {test}\n")
    assert report(file, "--noplots") == 0
    out, err = capsys.readouterr()
    assert out.count("test is left out") == 1 and row(out, "pictures") == ["2", "1"] and not err
    assert report(file, "--noplots", "--strict") == 2 and report(file, "--noplots", "--split", "test") == 2


def test_options_stand_in_any_order_and_in_every_spelling(tmp_path, capsys):
    file, project = make(tmp_path / "set", CLEAN), tmp_path / "runs"
    for k, words in enumerate((
        ["--strict", file, "--split", "val"], ["--split", "val", file], ["--split=val", "--no-strict", file],
        ["split=val", "strict=false", f"data={file}"], ["--data", file, "--split", "val", "--strict", "true"],
        [file, "--img", "320", "--split", "val"],
    )):  # fmt: skip
        found = main([*words, "--noplots", "--project", project, "--name", f"n{k}"])
        assert list(found) == ["val"]
    assert "'img' is today imgsz" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--strct"], ["strct", "Did you mean 'strict'"]),
        (["--imgsz", "0"], ["imgsz", "0"]),
        (["--split", "tset"], ["tset", "Did you mean 'test'"]),
        (["--split", "test"], ["no 'test'"]),
        (["other.yaml"], ["other.yaml", "one dataset"]),
        (["--data", "other.yaml"], ["one dataset"]),
        (["--imgsz"], ["imgsz needs a value"]),
    ],
)
def test_wrong_options_are_one_message(tmp_path, capsys, more, words):
    assert report(make(tmp_path / "set", CLEAN), *more) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1 and all(word in message for word in words), message
    assert not (tmp_path / "runs").exists()


def test_datasets_that_are_not_there(tmp_path, capsys):
    assert run_script(lambda: main([str(tmp_path / "absent.yaml")])) == 2
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/mine.yaml").touch()
    (tmp_path / "folder/other.yml").touch()
    assert run_script(lambda: main([str(tmp_path / "folder")])) == 2
    message = capsys.readouterr().err
    assert (
        "absent.yaml" in message
        and "is a folder, not a dataset yaml: name the one in it that is meant (mine.yaml, other.yml)" in message
    )
    (tmp_path / "none.yaml").write_text("names: [a]\n")
    with pytest.raises(UserError, match="no 'train', 'val' or 'test'"):
        main([str(tmp_path / "none.yaml")])


@pytest.mark.slow
def test_the_module_runs_as_a_program(tmp_path):
    def run(*words: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "data.index", *map(str, words)]
        environment = os.environ | {"PYTHONPATH": str(REPO)}
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)

    done = run(make(tmp_path / "set", CLEAN), "--noplots")
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert [p.name for p in (tmp_path / "runs/data").iterdir()] == ["data"]  # named as the yaml
    done = run("nowhere.yaml")
    assert done.returncode == 2 and "nowhere.yaml" in done.stderr


def test_help_names_every_option(capsys):
    from data.report.main import Options

    assert main(["--help"]) == {}
    text = capsys.readouterr().out
    assert all(f"--{name.replace('_', '-')}" in text for name in Options.model_fields)


def test_copies_are_the_files_of_equal_bytes(tmp_path):
    rng = np.random.default_rng(1)
    end = rng.bytes(TAIL)
    contents = [b"", b"x", b"y", end, b"a" + end, b"b" + end, b"b" + end[:-1] + b"!", rng.bytes(3 * TAIL)]
    picks = {split: rng.integers(len(contents), size=15) for split in ("train", "val", "test")}
    paths = {}
    for split, chosen in picks.items():
        paths[split] = [str(tmp_path / f"{split}{i}") for i in range(15)]
        for file, k in reversed([*zip(paths[split], chosen, strict=True)]):  # inodes in another order than rows
            Path(file).write_bytes(contents[k])
    os.remove(paths["val"][0])
    os.link(paths["val"][1], paths["val"][0])
    os.remove(paths["test"][0])
    os.symlink(paths["train"][0], paths["test"][0])
    for file in paths["test"][1:3]:  # gone since they were indexed: copies of nothing
        os.remove(file)
    equal: dict[bytes, list] = {}
    for split, files in paths.items():
        for i, file in enumerate(files):
            if Path(file).exists():
                equal.setdefault(Path(file).read_bytes(), []).append((split, i))
    expected = [group for group in equal.values() if len(group) > 1]
    copies = find_copies(paths)
    found = [
        [(copies.splits[copies.split[k]], int(copies.row[k])) for k in range(low, high)]
        for low, high in zip(copies.offsets[:-1], copies.offsets[1:], strict=True)
    ]
    assert found == expected  # and in this order: by their first pictures
    assert copies.counts().tolist() == [[sum(s == split for s, _ in g) for split in paths] for g in expected]
    assert find_copies({"train": []}).groups == 0


def test_only_files_that_may_be_equal_are_read(tmp_path, monkeypatch):
    for k in range(5):
        (tmp_path / str(k)).write_bytes(b"." * (k + 1 if k < 3 else 9))  # 3 and 4 are equal
    os.link(tmp_path / "0", tmp_path / "link")
    read = []
    opened = open
    monkeypatch.setattr("builtins.open", lambda file, *a, **k: read.append(str(file)) or opened(file, *a, **k))
    copies = find_copies({"train": [str(tmp_path / name) for name in ("0", "1", "2", "3", "4", "link")]})
    monkeypatch.undo()
    assert copies.groups == 2 and {Path(file).name for file in read if str(tmp_path) in file} == {"3", "4"}


def test_val_that_is_train_is_said_once(tmp_path, capsys):
    file = make(tmp_path / "set", {"train": CLEAN["train"]})
    file.write_text("train: images/train\nval: images/train\nnames: [cat, dog]\n")
    assert report(file, "--noplots") == 0
    text = capsys.readouterr().out
    assert "LEAK: 2 pictures" in text and "a.png, the same file" in text and "val is train" in text
    assert "remove the" not in text and "copies of others" not in text


def test_a_json_has_no_label_files(tmp_path, capsys):
    file = make(tmp_path / "set", CLEAN | {"train": CLEAN["train"] | {"z": None}})
    assert report(file, "--noplots", "--split", "train") == 0
    pictures = [{"id": k, "file_name": f"{name}.png", "width": 80, "height": 60} for k, name in enumerate("abz")]
    boxes = [{"id": 1, "image_id": 0, "category_id": 1, "bbox": [1, 2, 30, 30], "area": 900, "iscrowd": 0}]
    categories = [{"id": k, "name": name} for k, name in enumerate(("cat", "dog", "bird"), 1)]
    content = {"images": pictures, "annotations": boxes, "categories": categories}
    (tmp_path / "set/images/train/all.json").write_text(json.dumps(content))
    file.write_text("train: images/train/all.json\nnames: [cat, dog, bird]\n")
    assert report(file, "--noplots", "--split", "train") == 0
    first, second = capsys.readouterr().out.split("written to")[:2]
    assert row(first, "  backgrounds: without a box") == ["1"] and row(second, "  backgrounds: without a box") == ["2"]
    assert row(first, "    without a label file too") == ["1"] and "without a label file too" not in second


def test_crowds_are_counted_apart(tmp_path):
    from dataclasses import replace

    from data.definition.dataset_yaml import load_dataset_yaml
    from data.index.index import build_index

    index = build_index(load_dataset_yaml(make(tmp_path, CLEAN)), "train")
    crowd = np.zeros(len(index.classes), bool)
    crowd[0] = True
    found = count(replace(index, crowd=crowd))
    assert (found.boxes, found.crowds, found.backgrounds) == (2, 1, 0) and found.class_boxes.tolist() == [1, 1, 0]


@pytest.mark.slow
def test_figures_and_table_of_one_and_of_many_classes(tmp_path):
    from data.definition.dataset_yaml import load_dataset_yaml
    from data.index.index import build_index

    for nc in (1, 80, 130):
        names = [f"a name that is rather long {k}" for k in range(nc)]
        rows = "".join(f"{k} 0.5 0.5 {0.001 + k / 200} 0.5\n" for k in range(nc))
        file = make(tmp_path / str(nc), {"train": {"a": rows, "b": "0 0.5 0.5 0.1 0.1\n"}}, names=str(names))
        counts = {"train": count(build_index(load_dataset_yaml(file), "train"))}
        plot_boxes(counts, names, 640, tmp_path / f"{nc}.png")
        pixels = np.asarray(Image.open(tmp_path / f"{nc}.png").convert("L"))
        assert pixels.shape == (1170, 1820) and pixels.std() > 5
        lines = class_table(counts, names, 100)
        assert sum("a name that" in line and "%" in line for line in lines) == min(nc, 100)
        assert any("100 of 130 classes" in line for line in lines) == (nc == 130)
        said = advice(counts, names, find_copies({"train": []}), 640)
        assert any("a side below 8 px" in line for line in said) == (nc == 1)  # 1 of 2, 3 of 81, 3 of 131 boxes
    assert shorten("abcdefghij", 10) == "abcdefghij"
    assert len({shorten(name, LETTERS) for name in names}) == 130  # told apart by their ends
