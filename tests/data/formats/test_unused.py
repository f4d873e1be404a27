"""Files that are there and not used are said, with what to do; what can be understood is found."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from data.definition.dataset_yaml import load_dataset_yaml
from data.frames.inputs import find_inputs
from data.index.index import Index, build_index
from utils.errors import UserError

ROW = "0 0.5 0.5 0.2 0.2\n"


def dataset(root: Path, train: str = "images") -> Path:
    """Yaml of two pictures with labels."""
    for kind in ("images", "labels"):
        (root / kind).mkdir(parents=True)
    for name in "ab":
        Image.new("RGB", (40, 30), (9, 99, 200)).save(root / f"images/{name}.jpg")
        (root / f"labels/{name}.txt").write_text(ROW)
    (root / "data.yaml").write_text(f"train: {train}\nval: images\nnames: [cat]\n")
    return root / "data.yaml"


def read(file: Path) -> Index:
    return build_index(load_dataset_yaml(file), "train")


def test_a_tidy_dataset_has_no_problem(tmp_path):
    file = dataset(tmp_path)
    (tmp_path / "labels/classes.txt").write_text("cat")
    assert not read(file).problems


@pytest.mark.parametrize("suffix", ["jfif", "jpe", "ppm", "pgm", "JPG"])
def test_pictures_of_every_name_that_a_decoder_reads_are_used(tmp_path, suffix):
    file = dataset(tmp_path)
    kind = {"ppm": "PPM", "pgm": "PPM"}.get(suffix, "JPEG")
    Image.new("L" if suffix == "pgm" else "RGB", (50, 20), 99).save(tmp_path / f"images/c.{suffix}", format=kind)
    (tmp_path / "labels/c.txt").write_text(ROW)
    index = read(file)
    assert index.n == 3 and index.shapes[2].tolist() == [20, 50] and not index.problems


def test_pictures_that_nothing_reads_are_counted_by_suffix(tmp_path):
    file = dataset(tmp_path)
    for name in ("x.HEIC", "y.heic", "z.svg"):
        (tmp_path / "images" / name).write_bytes(b"?")
    found = {p.message.split(",")[0]: p for p in read(file).problems}
    assert set(found) == {"2 files end with .heic", "1 files end with .svg"}
    assert all(p.kind == "file" and p.path == str(tmp_path / "images") for p in found.values())


@pytest.mark.parametrize(
    ("before", "after", "where", "words"),
    [
        ("labels/a.txt", "labels/1f3a-a.txt", "labels", "1 label files belong to no picture"),
        ("labels/a.txt", "labels/a.TXT", "labels", "1 label files are named in capitals"),
        ("labels/a.txt", "images/a.txt", "images", "1 label files lie beside the pictures"),
    ],
)
def test_labels_that_no_picture_reads_are_said(tmp_path, before, after, where, words):
    file = dataset(tmp_path)
    (tmp_path / before).rename(tmp_path / after)
    index = read(file)
    (problem,) = index.problems
    assert problem.message.startswith(words) and Path(after).name in problem.message and index.n == 2
    assert problem.kind == "file" and problem.path == str(tmp_path / where)


@pytest.mark.parametrize("folder", [".ipynb_checkpoints", "@eaDir", "__MACOSX"])
def test_copies_that_a_program_keeps_among_the_pictures_are_none_of_the_dataset(tmp_path, folder):
    file = dataset(tmp_path)
    before = build_index(load_dataset_yaml(file), "train").paths
    (tmp_path / "images" / folder).mkdir()
    shutil.copy(before[0], tmp_path / "images" / folder / "a-checkpoint.jpg")
    index = build_index(load_dataset_yaml(file), "train")
    assert index.paths == before and not index.problems
    assert find_inputs([str(tmp_path / "images")]).pictures == list(before)


@pytest.mark.parametrize("folder", ["Labels", "label", "annotations/txt"])
def test_labels_in_a_folder_of_another_name_are_found_for_the_message(tmp_path, folder):
    file = dataset(tmp_path)
    (tmp_path / folder).parent.mkdir(exist_ok=True)
    (tmp_path / "labels").rename(tmp_path / folder)
    with pytest.raises(UserError, match=f"no labels at all .*but there is .*{folder}/a.txt: rename its folder"):
        read(file)


def test_a_split_of_another_case_is_suggested(tmp_path):
    file = dataset(tmp_path, "Images")
    with pytest.raises(UserError, match="/Images does not exist .*Did you mean 'images'"):
        read(file)


def test_a_list_of_some_pictures_makes_no_label_unused(tmp_path):
    """Two lists share the folders: the labels of the other list's pictures are not lost."""
    file = dataset(tmp_path, "train.txt")
    (tmp_path / "train.txt").write_text("images/a.jpg\n")
    index = read(file)
    assert index.n == 1 and not index.problems


def test_lines_of_a_list_that_are_no_path_are_named(tmp_path):
    file = dataset(tmp_path, "train.txt")
    lines = ["# made by hand", "images/a.jpg", "", '"images/b.jpg"', "images/b.jpg 1,2,3,4,0", "images/b"]
    (tmp_path / "train.txt").write_text("\n".join(lines))
    index = read(file)
    assert index.n == 1 and [(p.line, p.kind) for p in index.problems] == [(4, "row"), (5, "row"), (6, "row")]


def test_darknets_prefix_is_understood_and_said(tmp_path):
    file = dataset(tmp_path, "train.txt")
    (tmp_path / "train.txt").write_text("data/images/a.jpg\ndata/images/b.jpg\n")
    index = read(file)
    assert index.n == 2 and len(index.boxes) == 2
    assert [(p.kind, p.message.split()[0]) for p in index.problems] == [("remark", "2")]


def coco(root: Path, names: dict[str, str], categories: list[dict]) -> Index:
    """A json with the file names that `names` gives to a.jpg and b.jpg; the boxes are of category 1."""
    file = dataset(root, "images/train.json")
    images = [{"id": i, "file_name": names[n], "width": 40, "height": 30} for i, n in enumerate("ab")]
    boxes = [{"id": i, "image_id": i, "category_id": 1, "bbox": [5, 5, 10, 10], "area": 100} for i in range(2)]
    content = {"images": images, "annotations": boxes, "categories": categories}
    (root / "images/train.json").write_text(json.dumps(content))
    file.write_text("train: images/train.json\nval: images/train.json\n")
    return read(file)


PLAIN = {"a": "a.jpg", "b": "b.jpg"}


def test_the_group_that_roboflow_puts_first_is_no_class(tmp_path):
    group = {"id": 0, "name": "animals", "supercategory": "none"}
    index = coco(tmp_path, PLAIN, [group, {"id": 1, "name": "cat", "supercategory": "animals"}])
    assert index.names == ["cat"] and index.category_ids == [1] and not index.problems and len(index.boxes) == 2
    own = [{"id": 1, "name": "person", "supercategory": "person"}, {"id": 2, "name": "car", "supercategory": "none"}]
    assert coco(tmp_path / "coco", PLAIN, own).names == ["person", "car"], "a class of its own name is a class"


@pytest.mark.parametrize("spelling", ["..\\..\\media\\up\\{}", "/data/local-files/{}", "media/my%20pictures/{}"])
def test_paths_of_another_machine_are_found_by_their_last_name(tmp_path, spelling):
    index = coco(tmp_path, {n: spelling.format(f"{n}.jpg") for n in "ab"}, [{"id": 1, "name": "cat"}])
    assert [Path(p) for p in index.paths] == [tmp_path / "images/a.jpg", tmp_path / "images/b.jpg"]
    assert [p.kind for p in index.problems] == ["remark"] and len(index.boxes) == 2
