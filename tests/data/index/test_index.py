"""Dataset yaml and labels -> index: what is read, what is refused, and what is said."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

import data.formats.header
import data.index.index
import data.sources.yolo
from data.definition.dataset_yaml import load_dataset_yaml
from data.formats.yolo import parse_yolo
from data.index.index import Index, build_index, report_problems
from utils.env import REPO
from utils.errors import UserError


def make_dataset(root: Path, labels: dict[str, str | None], **keys: object) -> Path:
    """Pictures of 80 x 60 with the given label texts (None: no label file) and their yaml."""
    for name, text in labels.items():
        picture, label = root / f"images/{name}.jpg", root / f"labels/{name}.txt"
        picture.parent.mkdir(parents=True, exist_ok=True)
        label.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (80, 60), (90, 120, 30)).save(picture)
        if text is not None:
            label.write_text(text)
    file = root / "data.yaml"
    content = {"train": "images", "val": "images", "names": ["cat", "dog"]} | keys
    file.write_text(yaml.safe_dump({k: v for k, v in content.items() if v is not None}))
    return file


def read(root: Path, labels: dict[str, str | None], split: str = "train", **keys: object) -> Index:
    return build_index(load_dataset_yaml(make_dataset(root, labels, **keys)), split)


def test_columns(tmp_path):
    index = read(tmp_path, {"b": "1 0.5 0.5 0.5 0.5\n0 0.25 0.25 0.1 0.2\n", "a": None, "c": ""})
    assert [Path(p).name for p in index.paths] == ["a.jpg", "b.jpg", "c.jpg"] and not index.problems
    assert index.offsets.tolist() == [0, 0, 2, 2] and index.classes.tolist() == [1, 0]
    assert index.shapes.tolist() == [[60, 80]] * 3 and (index.n, index.nc, len(index)) == (3, 2, 3)
    np.testing.assert_allclose(index.boxes[index.rows(1)], [[0.5, 0.5, 0.5, 0.5], [0.25, 0.25, 0.1, 0.2]])
    np.testing.assert_allclose(index.area, [1200, 96], rtol=1e-6)
    assert index.image_ids.tolist() == [1, 2, 3] and index.category_ids == [1, 2] and not index.crowd.any()


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("0 0.5 0.5 0.1", "4 columns"),
        ("0 0.5 nan 0.1 0.1", "NaN"),
        ("0 0.5 inf 0.1 0.1", "infinity"),
        ("5 0.5 0.5 0.1 0.1", "class 5 is out of range"),
        ("-1 0.5 0.5 0.1 0.1", "class -1 is out of range"),
        ("0.5 0.5 0.5 0.1 0.1", "not a whole number"),
        ("cow 0.5 0.5 0.1 0.1", "'cow' is not a number"),
        ("0 40 30 20 20", "look like pixels"),
        ("0 1.2 0.5 0.1 0.1", "outside 0..1"),
        ("0 0.5 0.5 0 0.1", "without width"),
        ("0 0.5 0.5 0.1 -0.1", "without width or height"),
        ("1 0.5 0.5 0.2 0.2", "the same row as line 1"),
        ("0 0.02 0.5 0.2 0.2", "clipped"),
    ],
)
def test_bad_rows_are_named_and_the_rest_is_kept(tmp_path, row, words):
    index = read(tmp_path, {"a": f"1 0.5 0.5 0.2 0.2\n{row}\n1 0.3 0.3 0.1 0.1\n"})
    (problem,) = index.problems
    assert words in problem.message and problem.line == 2 and problem.path.endswith("a.txt")
    assert len(index.classes) == 2 + (words == "clipped")
    assert ((index.boxes[:, :2] - index.boxes[:, 2:] / 2) >= -1e-6).all()
    with pytest.raises(UserError, match="strict"):
        build_index(load_dataset_yaml(tmp_path / "data.yaml"), "train", strict=True)


def test_polygons_become_boxes():
    rows = parse_yolo("1 0.1 0.2 0.5 0.2 0.5 0.6 0.1 0.6\n0 0.2 0.2 0.4 0.3 0.3 0.8\n0 0.5 0.5 0.1 0.1", "x.txt", 2)
    np.testing.assert_allclose(rows.boxes, [[0.3, 0.4, 0.4, 0.4], [0.3, 0.5, 0.2, 0.6], [0.5, 0.5, 0.1, 0.1]])
    assert rows.classes.tolist() == [1, 0, 0] and not rows.problems


def test_tabs_blank_lines_and_byte_order_mark(tmp_path):
    index = read(tmp_path, {"a": "\ufeff0\t0.5\t0.5\t0.2\t0.2\r\n\r\n 1 0.5 0.5 1.002 1 \n"})
    assert index.classes.tolist() == [0, 1] and not index.problems and index.boxes.max() <= 1


def test_bad_pictures_are_left_out(tmp_path):
    file = make_dataset(tmp_path, {k: "0 0.5 0.5 0.2 0.2" for k in "abcd"})
    whole = Image.effect_noise((80, 60), 50)
    whole.save(tmp_path / "images/b.jpg")
    (tmp_path / "images/a.jpg").write_bytes((tmp_path / "images/b.jpg").read_bytes()[:-700])
    (tmp_path / "images/c.jpg").write_bytes(b"")
    (tmp_path / "images/d.jpg").write_text("<html>not found</html>")
    (tmp_path / "images/e.jpg").mkdir()
    whole.save(tmp_path / "images/f.png")
    (tmp_path / "images/f.png").write_bytes((tmp_path / "images/f.png").read_bytes()[:-700])
    index = build_index(load_dataset_yaml(file), "train")
    assert [Path(p).name for p in index.paths] == ["b.jpg"]
    assert sorted(Path(p.path).name for p in index.problems) == ["a.jpg", "c.jpg", "d.jpg", "f.png"]
    assert "truncated" in str(index.problems[0]) and "empty" in str(index.problems[1])


def test_binary_label_is_left_out_with_its_picture(tmp_path):
    file = make_dataset(tmp_path, {"a": "0 0.5 0.5 0.2 0.2", "b": ""})
    (tmp_path / "labels/b.txt").write_bytes(bytes(range(256)))
    index = build_index(load_dataset_yaml(file), "train")
    assert index.n == 1 and "UTF-8" in index.problems[0].message


def test_exif_rotation_swaps_the_shape(tmp_path):
    file = make_dataset(tmp_path, {"a": "0 0.5 0.5 0.2 0.2"})
    exif = Image.Exif()
    exif[data.formats.header.ORIENTATION] = 6
    Image.new("RGB", (80, 60)).save(tmp_path / "images/a.jpg", exif=exif)
    assert build_index(load_dataset_yaml(file), "train").shapes.tolist() == [[80, 60]]


def test_second_start_reads_no_label(tmp_path, monkeypatch):
    file = make_dataset(tmp_path, {"a": "0 0.5 0.5 0.2 0.2\nbad\n", "b": None})
    first = build_index(load_dataset_yaml(file), "train")
    monkeypatch.setattr(data.sources.yolo, "read_label", lambda *_: pytest.fail("labels were read again"))
    monkeypatch.setattr(data.sources.yolo, "read_header", lambda *_: pytest.fail("pictures were opened again"))
    second = build_index(load_dataset_yaml(file), "train")
    for column in ("shapes", "boxes", "classes", "area", "crowd", "offsets", "image_ids"):
        a, b = getattr(first, column), getattr(second, column)
        np.testing.assert_array_equal(a, b)
        assert a.dtype == b.dtype
    assert (first.paths, first.names, first.problems) == (second.paths, second.names, second.problems)


@pytest.mark.parametrize("change", ["label", "added label", "added picture", "removed picture", "names"])
def test_a_change_is_noticed(tmp_path, change):
    file = make_dataset(tmp_path, {"a": "0 0.5 0.5 0.2 0.2", "b": None, "c": "1 0.5 0.5 0.2 0.2"})
    before = build_index(load_dataset_yaml(file), "train")
    if change == "label":
        (tmp_path / "labels/a.txt").write_text("1 0.5 0.5 0.2 0.2")  # the same size
    elif change == "added label":
        (tmp_path / "labels/b.txt").write_text("1 0.5 0.5 0.2 0.2")
    elif change == "added picture":
        shutil.copy(tmp_path / "images/a.jpg", tmp_path / "images/d.jpg")
    elif change == "removed picture":
        (tmp_path / "images/c.jpg").unlink()
    else:
        make_dataset(tmp_path, {}, names=["cat"])
    after = build_index(load_dataset_yaml(file), "train")
    assert (before.paths, before.classes.tolist()) != (after.paths, after.classes.tolist())


def test_damaged_cache_is_rebuilt(tmp_path, monkeypatch):
    monkeypatch.setenv("PREHEAT_CACHE", str(tmp_path / "cache"))
    file = make_dataset(tmp_path / "set", {"a": "0 0.5 0.5 0.2 0.2"})
    build_index(load_dataset_yaml(file), "train")
    (cached,) = (tmp_path / "cache/indexes").iterdir()
    cached.write_bytes(cached.read_bytes()[:100])
    assert build_index(load_dataset_yaml(file), "train").n == 1


def test_nothing_is_written_to_the_dataset(tmp_path):
    file = make_dataset(tmp_path, {"a": "0 0.5 0.5 0.2 0.2"})
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    build_index(load_dataset_yaml(file), "train")
    assert before == {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}


def test_a_cache_folder_that_cannot_be_written_costs_only_the_cache(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PREHEAT_CACHE", str(tmp_path / "file"))
    assert read(tmp_path / "set", {"a": "0 0.5 0.5 0.2 0.2"}).n == 1


def test_single_cls(tmp_path):
    file = make_dataset(tmp_path, {"a": "0 0.5 0.5 0.2 0.2\n1 0.5 0.5 0.1 0.1\n7 0.5 0.5 0.3 0.3"})
    index = build_index(load_dataset_yaml(file), "train", single_cls=True)
    assert index.nc == 1 and index.classes.tolist() == [0, 0, 0] and not index.problems


def test_lists_of_pictures_and_several_sources(tmp_path):
    file = make_dataset(tmp_path, {k: "0 0.5 0.5 0.2 0.2" for k in ("x/a", "x/b", "y/c")})
    (tmp_path / "some.txt").write_text("./images/x/b.jpg\nimages\\x\\b.jpg\n\n" + str(tmp_path / "images/x/a.jpg"))
    make_dataset(tmp_path, {}, train="some.txt", val=["some.txt", "images/y"])
    config = load_dataset_yaml(file)
    assert [Path(p).name for p in build_index(config, "train").paths] == ["a.jpg", "b.jpg"]
    assert [Path(p).name for p in build_index(config, "val").paths] == ["a.jpg", "b.jpg", "c.jpg"]


@pytest.mark.parametrize(
    ("labels", "keys", "words"),
    [
        ({"a": None}, {}, "no labels at all.*'labels'"),
        ({"a": "9 0.5 0.5 0.1 0.1"}, {}, "no labels at all.*class 9 is out of range"),
        ({}, {}, "does not exist"),
        ({"a": ""}, {"train": None}, "has no 'train'"),
        ({"a": ""}, {"train": "elsewhere"}, "elsewhere does not exist"),
        ({"a": ""}, {"train": "labels"}, "no pictures in"),
        ({"a": ""}, {"train": "x.json"}, "x.json does not exist"),
    ],
)
def test_hopeless_datasets_are_refused(tmp_path, labels, keys, words):
    with pytest.raises(UserError, match=f"(?s){words}"):
        read(tmp_path, labels, **keys)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"names": None}, "names no classes"),
        ({"names": []}, "names no classes"),
        ({"names": {0: "a", 2: "b"}}, "without gaps"),
        ({"names": {"x": "a"}}, "class ids"),
        ({"names": ["a", "a"]}, "more than once"),
        ({"nc": 3}, "nc is 3"),
        ({"path": "nowhere"}, "nowhere does not exist"),
        ({"path": "nowhere", "download": "https://example.com/x.zip"}, "Nothing is fetched.*unpack https"),
        ({"train": 5}, "must be a path"),
    ],
)
def test_wrong_yamls_are_refused(tmp_path, keys, words):
    with pytest.raises(UserError, match=f"(?s){words}"):
        load_dataset_yaml(make_dataset(tmp_path, {"a": ""}, **keys))


@pytest.mark.parametrize("text", ["", "- a\n- b", "names: [a\n", "names: !!python/object/apply:os.system ['true']"])
def test_files_that_are_no_dataset_yaml(tmp_path, text):
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(UserError, match="x.yaml"):
        load_dataset_yaml(tmp_path / "x.yaml")


def test_yaml_names_and_paths(tmp_path, monkeypatch):
    monkeypatch.setenv("PREHEAT_CACHE", str(tmp_path))
    (tmp_path / "set").mkdir()
    (tmp_path / "x.yaml").write_text("path: ${cache}\\set\ntrain: images\\train\nnames: {1: b, '0': 7}\n")
    config = load_dataset_yaml(tmp_path / "x.yaml")
    assert config.root == tmp_path / "set" and config.names == ["7", "b"]
    assert config.train == [tmp_path / "set/images/train"] and config.val is None


def test_missing_yaml_says_where_it_was_looked_for():
    with pytest.raises(UserError, match=f"coco12.yaml.*{REPO}/data/coco12.yaml.*Did you mean 'coco128.yaml'"):
        load_dataset_yaml("coco12.yaml")


def test_yamls_of_the_repo_are_read(tmp_path, monkeypatch):
    monkeypatch.setenv("PREHEAT_CACHE", str(tmp_path))
    for name, nc, folder in (("coco128", 80, "coco128"), ("voc.yaml", 20, "VOC")):
        with pytest.raises(UserError, match="does not exist"):
            load_dataset_yaml(name)
        (tmp_path / folder).mkdir()
        assert len(load_dataset_yaml(name).names) == nc


def coco_json(root: Path, **changes: object) -> Path:
    """A COCO json of two pictures with sparse category ids, one crowd, and the yaml that names it."""
    keys = {"names": ["dog", "cat", "owl"], "train": "ann/instances_train.json"}
    file = make_dataset(root, {"train/a": None, "train/b": None}, **keys)
    boxes = [
        {"id": 1, "image_id": 30, "category_id": 17, "bbox": [8, 6, 40, 30], "area": 700.5, "iscrowd": 0},
        {"id": 2, "image_id": 30, "category_id": 90, "bbox": [0, 0, 80, 60], "area": 4000, "iscrowd": 1},
        {"id": 3, "image_id": 30, "category_id": 50, "bbox": [0, 0, 8, 6], "area": 48, "iscrowd": 0},
        {"id": 4, "image_id": 9, "category_id": 90, "bbox": [1, 2, 0, 4], "area": 0, "iscrowd": 0},
    ]
    content = {
        "images": [{"id": k, "file_name": f"{n}.jpg", "height": 60, "width": 80} for k, n in ((30, "b"), (9, "a"))],
        "categories": [{"id": k, "name": n} for k, n in ((90, "dog"), (17, "cat"), (50, "cow"))],
        "annotations": boxes,
    } | changes
    (root / "ann").mkdir()
    (root / "ann/instances_train.json").write_text(json.dumps(content))
    return file


def test_coco_json(tmp_path):
    index = build_index(load_dataset_yaml(coco_json(tmp_path)), "train")
    assert index.image_ids.tolist() == [30, 9] and index.category_ids == [90, 17, 91]  # owl: a free id
    assert index.classes.tolist() == [1, 0] and index.crowd.tolist() == [False, True]
    np.testing.assert_allclose(index.boxes[0], [28 / 80, 21 / 60, 0.5, 0.5])
    np.testing.assert_allclose(index.area, [700.5, 4000])
    said = " ".join(map(str, index.problems))
    assert "category 'cow'" in said and "annotation 4" in said and len(index.problems) == 2


def test_coco_json_wrong_in_some_way(tmp_path):
    with pytest.raises(UserError, match="No category"):
        build_index(load_dataset_yaml(coco_json(tmp_path / "a", categories=[{"id": 1, "name": "fox"}])), "train")
    with pytest.raises(UserError, match="not a COCO instances json"):
        build_index(load_dataset_yaml(coco_json(tmp_path / "b", images=3)), "train")
    images = [{"id": 30, "file_name": "z.jpg", "height": 60, "width": 80}]
    with pytest.raises(UserError, match="(?s)were not found.*Looked in.*images/train"):
        build_index(load_dataset_yaml(coco_json(tmp_path / "c", images=images)), "train")


def test_coco128_json_and_labels_agree(testdata, tmp_path):
    root = testdata / "coco128"
    content = yaml.safe_load((root / "coco128.yaml").read_text()) | {"path": str(root)}
    content["val"] = "annotations/instances_train2017.json"
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(content))
    config = load_dataset_yaml(tmp_path / "x.yaml")
    txt, coco = build_index(config, "train"), build_index(config, "val")
    assert txt.n == coco.n == 128 and txt.paths == coco.paths and not txt.problems and not coco.problems
    assert len(txt.classes) == 929 == (~coco.crowd).sum() and coco.category_ids[-1] == 90
    for i in range(txt.n):
        a = np.column_stack([txt.classes, txt.boxes])[txt.rows(i)]
        rows = np.column_stack([coco.classes, coco.boxes])[coco.rows(i)][~coco.crowd[coco.rows(i)]]
        np.testing.assert_allclose(a[np.lexsort(a.T.round(3))], rows[np.lexsort(rows.T.round(3))], atol=2e-5)


def test_report_is_short(tmp_path):
    index = read(tmp_path, {"a": "0 0.5 0.5 0.2 0.2\n" + "bad\n" * 30})
    lines: list[str] = []
    report_problems(index, lines.append)
    assert len(lines) == 11 and "20 more" in lines[-1] and "line 2" in lines[0]
