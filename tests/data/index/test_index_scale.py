"""The kept index: every kind of change is noticed, nothing else is read again, and nothing is copied."""

import logging
import multiprocessing
import os
import pickle
import shutil
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

import data.index.read
import data.index.state
import data.sources.coco
import data.sources.yolo
from data.definition.dataset_yaml import load_dataset_yaml
from data.index.file import index_file
from data.index.index import Index, build_index, count_pictures
from tests.data.index.test_index import coco_json, make_dataset
from tests.helpers.loops import shown
from utils.env import REPO
from utils.errors import UserError
from utils.files import newest

CAT, DOG = "0 0.5 0.5 0.2 0.2", "1 0.5 0.5 0.2 0.2"  # of the same size
LABELS = {"x/a": CAT, "x/b": DOG, "x/c": None, "y/d": CAT}
BOTH = ("a", "b", "c", "d")


@pytest.fixture(params=["whole", pytest.param("parts", marks=pytest.mark.slow)])
def file(request, tmp_path, monkeypatch) -> Path:
    """Yaml of four pictures in two folders, with a cache folder of its own.

    whole: looked at in one go; parts: one by one, and read by several processes; forked: looked at by several, too.
    """
    monkeypatch.setenv("PREHEAT_CACHE", str(tmp_path / "cache"))
    if request.param != "whole":
        monkeypatch.setattr(data.index.read, "CHUNK", 1)
        monkeypatch.setattr(data.index.state, "CHUNK", 1)
        monkeypatch.setattr(data.index.state, "FEW", 0 if request.param == "forked" else 100)
    return make_dataset(tmp_path / "set", LABELS)


# of the stored file, its pickle and the yaml: by how many processes the pictures were read says nothing here
WHOLE = pytest.mark.parametrize("file", ["whole"], indirect=True)


def build(file: Path, **options: bool) -> Index:
    return build_index(load_dataset_yaml(file), "train", **options)


def classes(index: Index) -> dict[str, list[int]]:
    """Stem of each picture: its classes."""
    return {Path(path).stem: index.classes[index.rows(i)].tolist() for i, path in enumerate(index.paths)}


def rewrite(path: Path, text: str) -> None:
    """Other content of the same size, and the time that it had: only reading it shows the change."""
    before = path.stat()
    path.write_text(text)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def edited(root: Path) -> dict[str, list[int]]:
    (root / "labels/x/a.txt").write_text(DOG)
    return {"a": [1]}


def emptied(root: Path) -> dict[str, list[int]]:
    (root / "labels/x/a.txt").write_text("")
    return {"a": []}


def touched(root: Path) -> dict[str, list[int]]:
    rewrite(root / "labels/x/a.txt", DOG)
    os.utime(root / "labels/x/a.txt")
    return {"a": [1]}


def older(root: Path) -> dict[str, list[int]]:
    rewrite(root / "labels/x/a.txt", DOG)
    os.utime(root / "labels/x/a.txt", (1, 1))
    return {"a": [1]}


def touched_picture(root: Path) -> dict[str, list[int]]:
    rewrite(root / "labels/x/a.txt", DOG)
    os.utime(root / "images/x/a.jpg")
    return {"a": [1]}


def added_label(root: Path) -> dict[str, list[int]]:
    (root / "labels/x/c.txt").write_text(DOG)
    return {"c": [1]}


def removed_label(root: Path) -> dict[str, list[int]]:
    (root / "labels/x/a.txt").unlink()
    return {"a": []}


def renamed_label(root: Path) -> dict[str, list[int]]:
    (root / "labels/x/a.txt").rename(root / "labels/x/c.txt")
    return {"a": [], "c": [0]}


def labels_change_places(root: Path) -> dict[str, list[int]]:
    a, b, other = (root / f"labels/x/{name}.txt" for name in ("a", "b", "other"))
    for source, target in ((a, other), (b, a), (other, b)):
        source.rename(target)
    return {"a": [1], "b": [0]}


def added_picture(root: Path) -> dict[str, list[int]]:
    shutil.copy(root / "images/x/a.jpg", root / "images/y/e.jpg")
    return {"e": []}


def renamed_picture(root: Path) -> dict[str, list[int]]:
    (root / "images/x/a.jpg").rename(root / "images/x/e.jpg")
    return {"a": None, "e": []}


def removed_picture(root: Path) -> dict[str, list[int]]:
    (root / "images/x/a.jpg").unlink()
    return {"a": None}


def broken_picture(root: Path) -> dict[str, list[int]]:
    (root / "images/x/a.jpg").write_bytes(b"")
    return {"a": None}


def new_folder(root: Path) -> dict[str, list[int]]:
    (root / "images/y/deep/er").mkdir(parents=True)
    (root / "labels/y/deep/er").mkdir(parents=True)
    shutil.copy(root / "images/x/a.jpg", root / "images/y/deep/er/e.jpg")
    (root / "labels/y/deep/er/e.txt").write_text(DOG)
    return {"e": [1]}


def removed_folder(root: Path) -> dict[str, list[int]]:
    shutil.rmtree(root / "images/y")
    return {"d": None}


def removed_label_folder(root: Path) -> dict[str, list[int]]:
    shutil.rmtree(root / "labels/y")
    return {"d": []}


CHANGES = (
    edited, emptied, touched, older, touched_picture, added_label, removed_label, renamed_label, labels_change_places,
    added_picture, renamed_picture, removed_picture, broken_picture, new_folder, removed_folder, removed_label_folder,
)  # fmt: skip


# one by one: a change of each column
COLUMNS = (edited, removed_label, touched_picture, renamed_picture, added_picture, removed_label_folder)


@pytest.mark.parametrize(
    ("file", "change"),
    [("whole", change) for change in CHANGES]
    + shown([("forked", edited)], [("forked", edited), *(("parts", change) for change in COLUMNS)]),
    indirect=["file"],
)
def test_every_change_is_noticed(file, change):
    for label in file.parent.glob("labels/x/*.txt"):
        os.utime(label, (1e9, 1e9))  # the same time for all, as an archive leaves it
    before = classes(build(file))
    now = {k: v for k, v in (before | change(file.parent)).items() if v is not None}
    after = build(file)
    assert classes(after) == now != before
    assert classes(build(file)) == now, "as kept"
    assert after.image_ids.tolist() == sorted(after.image_ids.tolist())


def test_label_of_a_folder_that_was_absent(file):
    shutil.rmtree(file.parent / "labels/y")
    assert classes(build(file))["d"] == []
    (file.parent / "labels/y").mkdir()
    (file.parent / "labels/y/d.txt").write_text(DOG)
    assert classes(build(file))["d"] == [1]


def test_only_strict_reads_what_kept_its_size_and_time(file):
    build(file)
    rewrite(file.parent / "labels/x/a.txt", DOG)
    assert classes(build(file))["a"] == [0]
    assert classes(build(file, strict=True))["a"] == [1]
    assert classes(build(file))["a"] == [1], "and keeps it"


def test_only_what_changed_is_read_again(file):
    build(file)
    rewrite(file.parent / "labels/y/d.txt", DOG)  # not to be seen
    (file.parent / "labels/x/a.txt").write_text("1 0.5 0.5 0.2 0.2\nbad\n")
    after = build(file)
    assert classes(after) == {"a": [1], "b": [1], "c": [], "d": [0]} and len(after.problems) == 1
    shutil.copy(file.parent / "images/x/a.jpg", file.parent / "images/y/e.jpg")  # files of y may have changed places
    assert classes(build(file)) == {"a": [1], "b": [1], "c": [], "d": [1], "e": []}


def test_what_is_taken_over_is_what_would_be_read(file):
    """Problems, pictures that cannot be used and ids included."""
    (file.parent / "labels/x/b.txt").write_text("bad\n1 0.5 0.5 0.2 0.2\nworse\n")
    (file.parent / "images/x/a.jpg").write_bytes(b"")
    build(file)
    Image.new("RGB", (20, 10)).save(file.parent / "images/x/c.jpg")
    Image.new("RGB", (20, 10)).save(file.parent / "images/0.jpg")
    partly = build(file)
    newest(index_file(load_dataset_yaml(file), "train", False)).unlink()
    whole = build(file)
    assert whole.n == 4 and len(whole.problems) == 3 and whole.image_ids.tolist() == [1, 3, 4, 5]
    for name in ("shapes", "boxes", "classes", "area", "crowd", "offsets", "image_ids"):
        np.testing.assert_array_equal(getattr(partly, name), getattr(whole, name))
    assert partly.paths == whole.paths and partly.problems == whole.problems


@WHOLE
def test_lists_and_what_appears_beside_them(file):
    root = file.parent
    (root / "lists").mkdir()
    (root / "lists/some.txt").write_text("images/x/a.jpg\n")
    file.write_text(yaml.safe_dump({"train": "lists/some.txt", "names": ["cat", "dog"]}))
    assert list(build(file).paths) == [str(root / "images/x/a.jpg")]
    (root / "lists/some.txt").write_text("images/x/b.jpg\n")
    assert list(build(file).paths) == [str(root / "images/x/b.jpg")]
    shutil.copytree(root / "images", root / "lists/images")
    shutil.copytree(root / "labels", root / "lists/labels")
    assert list(build(file).paths) == [str(root / "lists/images/x/b.jpg")]


@WHOLE
def test_another_source_in_the_yaml_is_another_index(file):
    build(file)
    file.write_text(yaml.safe_dump({"train": "images/x", "names": ["cat", "dog"]}))
    assert set(classes(build(file, trust=True))) == {"a", "b", "c"}


@WHOLE
def test_a_folder_that_leads_back_to_itself(file):
    (file.parent / "images/x/again").symlink_to(file.parent / "images")
    assert set(classes(build(file))) == set(BOTH)


@WHOLE
def test_trust_looks_at_nothing(file, caplog):
    caplog.set_level(logging.INFO)
    first = build(file, trust=True)
    assert "no index of 'train' is kept" in caplog.text
    caplog.clear()
    shutil.rmtree(file.parent / "images")
    trusted = build(file, trust=True)
    assert trusted.paths == first.paths and classes(trusted) == classes(first) and not caplog.text
    with pytest.raises(UserError, match="does not exist"):
        build(file)


@WHOLE
@pytest.mark.parametrize("damage", ["cut", "longer", "empty", "header", "column", "other", "version"])
def test_a_damaged_file_is_rebuilt(file, damage, monkeypatch):
    if damage == "version":
        monkeypatch.setattr("data.index.file.VERSION", 0)
    first = build(file)
    kept = newest(index_file(load_dataset_yaml(file), "train", False))
    content = bytearray(kept.read_bytes())
    places = {"header": content.index(b"usable"), "column": content.index(first.boxes.tobytes())}
    place = places.get(damage, 0)
    content[place] ^= damage in ("header", "column")
    changed = {"cut": content[:-70], "longer": content + b"\0" * 64, "empty": b"", "other": b"PK\3\4" + content[4:]}
    kept.unlink()  # a new file: the old one is still mapped
    kept.write_bytes(changed.get(damage, content))
    monkeypatch.undo() if damage == "version" else None
    rewrite(file.parent / "labels/x/a.txt", DOG)  # seen only when read again
    monkeypatch.setenv("PREHEAT_CACHE", str(file.parent.parent / "cache"))
    again = build(file)
    assert again.paths == first.paths and again.boxes.tolist() == first.boxes.tolist()
    assert classes(again)["a"] == classes(build(file, trust=True))["a"] == [1]


def test_two_builders_at_once(file, tmp_path):
    fork = multiprocessing.get_context("fork")
    barrier, found = fork.Barrier(2), fork.SimpleQueue()

    def work() -> None:
        barrier.wait()
        index = build(file)
        found.put((classes(index), bool(index.file.key)))

    processes = [fork.Process(target=work) for _ in range(2)]
    for process in processes:
        process.start()
    results = [found.get() for _ in processes]
    for process in processes:
        process.join()
    assert results == [({"a": [0], "b": [1], "c": [], "d": [0]}, True)] * 2
    assert len(list((tmp_path / "cache/indexes").iterdir())) == 1


@WHOLE
def test_pickling_copies_no_column(file):
    index = build(file)
    content = pickle.dumps(index)
    assert b"a.jpg" not in content and index.boxes.tobytes() not in content
    again = pickle.loads(content)
    assert classes(again) == classes(index) and again.paths == index.paths and again.names == index.names
    assert not again.boxes.flags.owndata and not again.boxes.flags.writeable


@WHOLE
@pytest.mark.parametrize("why", ["some rows", "replaced file", "no file"])
def test_pickling_copies_where_the_file_is_not_the_index(file, why, monkeypatch):
    if why == "no file":
        monkeypatch.setenv("PREHEAT_CACHE", str(file))  # no folder: nothing can be kept
    index = build(file)
    if why == "some rows":
        index = index.take(np.array([1, 0]))
    elif why == "replaced file":
        (file.parent / "labels/x/a.txt").write_text(DOG)
        build(file)
    again = pickle.loads(pickle.dumps(index))
    assert classes(again) == classes(index) and again.paths == index.paths and classes(again)["a"] == [0]


def test_problems_are_decoded_when_looked_at(tmp_path):
    file = make_dataset(tmp_path, {"a": CAT + "\nbad" * 20_000, "b": CAT + "\n0 0.5 0.5 0.1\0\n"})
    first = build(file)
    tracemalloc.start()
    index = build(file)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20, f"{peak} bytes for 20,001 problems"
    problems = index.problems
    assert len(problems) == 20_001 and problems[0].line == 2 and problems[-1].path.endswith("b.txt")
    assert [p.line for p in problems[5:8]] == [7, 8, 9] and list(problems) == list(first.problems)
    with pytest.raises(IndexError):
        problems[20_001]


def test_json_counts_by_its_content(tmp_path, monkeypatch):
    file = coco_json(tmp_path)
    path = tmp_path / "ann/instances_train.json"
    before = build(file)
    with monkeypatch.context() as patch:
        patch.setattr(data.sources.coco, "read_coco", lambda *_: pytest.fail("the json was parsed again"))
        build(file)
        os.utime(path)
        assert build(file).boxes.tolist() == before.boxes.tolist()
        assert count_pictures(str(file)) == (2, True)
    path.write_text(path.read_text().replace('"area": 700.5', '"area": 701.5'))
    assert build(file).area.tolist() == [701.5, 4000]
    rewrite(path, path.read_text().replace('"area": 701.5', '"area": 702.5'))
    assert build(file).area.tolist() == [701.5, 4000]
    Image.new("RGB", (8, 6)).save(tmp_path / "images/train/a.jpg")
    assert build(file).area.tolist() == [702.5, 4000], "a changed picture: everything is read"


def test_single_cls_has_an_index_of_its_own(tmp_path):
    file = coco_json(tmp_path)
    assert build(file).nc == 3
    for _ in range(2):
        index = build(file, single_cls=True)
        assert (index.names, index.category_ids, index.classes.tolist()) == (["item"], [1], [0, 0])
    assert build(file).classes.tolist() == [1, 0]


@WHOLE
def test_pictures_are_counted_by_folders_alone(file):
    build(file)
    rewrite(file.parent / "labels/x/a.txt", DOG)
    assert count_pictures(str(file)) == (4, True)
    (file.parent / "labels/x/e.txt").write_text("")
    assert count_pictures(str(file)) == (4, True), "no picture more or less"
    (file.parent / "images/x/a.jpg").unlink()
    assert count_pictures(str(file)) == (3, False)


def test_reading_an_index_needs_no_torch(tmp_path):
    code = f"""
import sys
sys.path.insert(0, {str(REPO)!r})
from data.definition.dataset_yaml import load_dataset_yaml
from data.index.index import build_index
assert build_index(load_dataset_yaml({str(make_dataset(tmp_path, LABELS))!r}), "train").n == 4
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
