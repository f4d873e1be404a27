"""Pascal VOC: layouts, names from the xmls, coordinates, difficult objects, and every kind of bad xml."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.definition.dataset_yaml import load_dataset_yaml
from data.formats.voc import parse_voc
from data.index.index import Index, build_index
from data.loading.dataset import TrainDataset
from utils.config.schema import Hyp
from utils.env import REPO
from utils.errors import UserError

NAMES = ["cat", "dog"]


def item(name: str = "cat", box: tuple = (9, 7, 48, 36), **more: object) -> str:
    sides = "".join(f"<{s}>{v}</{s}>" for s, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
    rest = "".join(f"<{k}>{v}</{k}>" for k, v in more.items())
    return f"<object><name>{name}</name>{rest}<bndbox>{sides}</bndbox></object>"


def xml(*items: str, filename: str = "", size: tuple[object, object] | None = (80, 60)) -> str:
    head = f"<filename>{filename}</filename>" if filename else ""
    if size:
        head += f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>"
    return f"<annotation><folder>VOC</folder>{head}{''.join(items)}</annotation>"


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (80, 60), (9, 99, 200)).save(path)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def devkit(root: Path, years: tuple[str, ...] = ("2007",)) -> Path:
    """VOCdevkit with a, b in train, c in val, d in test; b's object is difficult, c has none."""
    for year in years:
        base = root / f"VOCdevkit/VOC{year}"
        for stem in "abcd":
            picture(base / f"JPEGImages/{year}_{stem}.jpg")
        write(
            base / f"Annotations/{year}_a.xml", xml(item("dog"), item("cat", (1, 1, 80, 60)), filename=f"{year}_a.jpg")
        )
        write(base / f"Annotations/{year}_b.xml", xml(item("dog", difficult=1), item("cat", difficult=0)))
        write(base / f"Annotations/{year}_c.xml", xml())
        write(base / f"Annotations/{year}_d.xml", xml(item("owl")))
        for split, stems in {"train": "ab", "val": "c", "test": "d", "dog_train": "a"}.items():
            flag = " -1" if "_" in split else ""
            lines = "".join(f"{year}_{s}{flag}\n" for s in stems)
            write(base / f"ImageSets/Main/{split}.txt", lines)
    return root / "VOCdevkit"


def config_of(root: Path, text: str) -> Index:
    (root / "data.yaml").write_text(text)
    return load_dataset_yaml(root / "data.yaml")


def stems(index: Index) -> list[str]:
    return [Path(p).stem for p in index.paths]


def test_devkit(tmp_path):
    devkit(tmp_path)
    config = config_of(tmp_path, "path: VOCdevkit\ntrain: VOC2007\nval: VOC2007\ntest: VOC2007\n")
    assert config.names == ["cat", "dog", "owl"]  # of all xmls, sorted
    index = build_index(config, "train")
    assert stems(index) == ["2007_a", "2007_b"] and index.classes.tolist() == [1, 0, 1, 0] and not index.problems
    np.testing.assert_allclose(index.boxes[:2], [[28 / 80, 21 / 60, 0.5, 0.5], [0.5, 0.5, 1, 1]], rtol=1e-6)
    np.testing.assert_allclose(index.area[:2], [1200, 4800], rtol=1e-6)
    assert index.crowd.tolist() == [False, False, True, False]  # difficult
    data = TrainDataset(index, Hyp(mosaic=0.0, epochs=1, imgsz=80), 80)
    assert sorted(len(data[0, p]["cls"]) for p in range(2)) == [1, 2]
    assert stems(build_index(config, "test")) == ["2007_d"]
    with pytest.raises(UserError, match="label files of .val. in .* are empty"):
        build_index(config, "val")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("train: VOCdevkit", ["2007_a", "2007_b", "2012_a", "2012_b"]),
        ("train: [VOCdevkit/VOC2007, VOCdevkit/VOC2012]", ["2007_a", "2007_b", "2012_a", "2012_b"]),
        ("train: VOCdevkit/VOC2012/ImageSets/Main/test.txt", ["2012_d"]),
        ("train: VOCdevkit/VOC2012/ImageSets/Main/dog_train.txt", ["2012_a"]),
        ("train: VOCdevkit\\VOC2007\\JPEGImages", ["2007_a", "2007_b", "2007_c", "2007_d"]),
    ],
)
def test_ways_to_name_a_part_of_the_devkit(tmp_path, text, expected):
    devkit(tmp_path, ("2007", "2012"))
    index = build_index(config_of(tmp_path, text), "train")
    assert stems(index) == expected and len(set(index.image_ids.tolist())) == len(expected)


@pytest.mark.parametrize("folder", ["VOCdevkit", "VOCdevkit/VOC2007"])
def test_a_devkit_needs_no_yaml(tmp_path, folder):
    devkit(tmp_path)
    with_yaml = config_of(tmp_path, f"path: {folder}\ntrain: .\nval: .\n")
    config = load_dataset_yaml(tmp_path / folder)
    assert config.names == with_yaml.names
    index = build_index(config, "train")
    assert stems(index) == ["2007_a", "2007_b"] == stems(build_index(with_yaml, "train"))
    (tmp_path / "VOCdevkit/VOC2007/JPEGImages").rename(tmp_path / "VOCdevkit/VOC2007/pictures")
    with pytest.raises(UserError, match="VOC2007/Annotations looks like VOC's, but JPEGImages is missing"):
        load_dataset_yaml(tmp_path / folder)


def test_a_split_without_a_list_names_the_lists(tmp_path):
    devkit(tmp_path)
    (tmp_path / "VOCdevkit/VOC2007/ImageSets/Main/val.txt").unlink()
    config = config_of(tmp_path, "train: VOCdevkit\nval: VOCdevkit\n")
    with pytest.raises(UserError, match=r"no val.txt, only \['test.txt', 'train.txt'\]"):
        build_index(config, "val")


@pytest.mark.parametrize(
    ("pictures", "xmls"),
    [("train", "train"), ("images", "annotations"), ("images/train", "annotations/train"), ("images", "Annotations")],
)
def test_pictures_with_xmls_near_them(tmp_path, pictures, xmls):
    for name in ("a.jpg", "b.png", "c.jpg"):
        picture(tmp_path / pictures / name)
    write(tmp_path / xmls / "a.xml", xml(item("dog")))
    write(tmp_path / xmls / "b.xml", xml(item("cat")))
    index = build_index(config_of(tmp_path, f"train: {pictures}\n"), "train")
    assert index.names == NAMES and index.classes.tolist() == [1, 0] and stems(index) == ["a", "b", "c"]


def test_txt_labels_go_before_xmls(tmp_path):
    picture(tmp_path / "images/a.jpg")
    write(tmp_path / "labels/a.txt", "1 0.5 0.5 0.2 0.2")
    write(tmp_path / "images/a.xml", xml(item("cat")))
    assert build_index(config_of(tmp_path, "train: images\nnames: [cat, dog]"), "train").classes.tolist() == [1]


def test_a_changed_xml_is_noticed_and_nothing_is_written(tmp_path):
    root = devkit(tmp_path)
    config = config_of(tmp_path, "train: VOCdevkit\n")
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    assert (
        build_index(config, "train").classes.tolist() == build_index(config, "train").classes.tolist() == [1, 0, 1, 0]
    )
    assert before == {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    write(root / "VOC2007/Annotations/2007_a.xml", xml(item("ant")))
    config = load_dataset_yaml(tmp_path / "data.yaml")
    assert config.names == ["ant", "cat", "dog", "owl"] and build_index(config, "train").classes.tolist() == [0, 2, 1]


def test_bccd_agrees_with_its_txt_labels(testdata, tmp_path):
    """Its xmls as a devkit whose pictures are links; two of its objects have no width (its README)."""
    (tmp_path / "VOC/JPEGImages").mkdir(parents=True)
    for path in (testdata / "bccd/images").rglob("*.jpg"):
        (tmp_path / "VOC/JPEGImages" / path.name).symlink_to(path)
    (tmp_path / "VOC/Annotations").symlink_to(testdata / "bccd/voc/Annotations")
    voc = build_index(config_of(tmp_path, "train: VOC\n"), "train")
    config = load_dataset_yaml(testdata / "bccd/bccd.yaml")
    txts = [build_index(config, split) for split in ("train", "val")]
    assert sorted(voc.names) == sorted(config.names) and voc.n == sum(txt.n for txt in txts) == 364
    assert len(voc.classes) == sum(len(txt.classes) for txt in txts)
    assert sum("no width" in p.message for p in voc.problems) == 2
    row = {stem: i for i, stem in enumerate(stems(voc))}
    for txt in txts:
        for i, stem in enumerate(stems(txt)):
            ours, theirs = voc.rows(row[stem]), txt.rows(i)
            assert [voc.names[c] for c in voc.classes[ours]] == [txt.names[c] for c in txt.classes[theirs]]
            np.testing.assert_allclose(voc.boxes[ours], txt.boxes[theirs], atol=1.01 / 480)  # theirs: without the - 1


OBJECTS = {  # object -> boxes, words of the problem or None
    item(): ([[28 / 80, 21 / 60, 0.5, 0.5]], None),
    item(box=(9.0, 7.0, 48.0, 36.0)): ([[28 / 80, 21 / 60, 0.5, 0.5]], None),
    item(box=("9.5", " 7 ", "48.5", "36")): ([[28.5 / 80, 21 / 60, 0.5, 0.5]], None),
    item(name=" cat\n"): ([[28 / 80, 21 / 60, 0.5, 0.5]], None),
    item(box=(48, 36, 9, 7)): ([[28 / 80, 21 / 60, 0.5, 0.5]], "object 2: its corners are swapped.*48 36 9 7"),
    item(box=(9, 36, 48, 7)): ([[28 / 80, 21 / 60, 0.5, 0.5]], "swapped"),
    item(box=(5, 5, 6, 6)): ([[5 / 80, 5 / 60, 2 / 80, 2 / 60]], None),  # both ends belong to it
    item(box=(5, 5, 5, 9)): ([], "5 5 5 9.*no width"),
    item(box=(0, 0, 80, 60)): ([[0.5, 0.5, 1, 1]], "outside"),  # from tools that count from 0; 1/60 is over 1 %
    item(box=(41, 31, 100, 60)): ([[0.75, 0.75, 0.5, 0.5]], "25.0% outside.*clipped"),
    item(box=(90, 1, 99, 9)): ([], "outside the picture"),
    item(box=("x", 1, 2, 3)): ([], "bndbox.*xmin=x.*is no box"),
    item(box=("nan", 1, 2, 3)): ([], "is no box"),
    item(box=("1e999", 1, 2, 3)): ([], "is no box"),
    "<object><name>cat</name></object>": ([], "xmin=-.*is no box"),
    "<object><name>cat</name><polygon/></object>": ([], "is no box"),
    item(name="cats"): ([], "class 'cats' is not under 'names'. Did you mean 'cat'"),
    item(name=""): ([], "class '' is not under"),
}


@pytest.mark.parametrize("text", OBJECTS)
def test_a_bad_object_does_not_drop_the_others(text):
    boxes, words = OBJECTS[text]
    rows = parse_voc(xml(item("dog"), text).encode(), "a.xml", NAMES, (60, 80))
    assert rows.usable and rows.classes.tolist() == [1, *[0] * len(boxes)]
    np.testing.assert_allclose(rows.boxes[1:], np.reshape(boxes, (-1, 4)), rtol=1e-5)
    assert bool(rows.problems) == (words is not None), rows.problems
    if words:
        assert re.search(words, str(rows.problems[0])) and rows.problems[0].path == "a.xml"


HEADS = {
    xml(item(), filename="a.jpg"): None,
    xml(item(), filename="C:\\pictures\\a.png"): None,
    xml(item(), filename="a"): None,
    xml(item(), filename="other.jpg"): "<filename> says other.jpg; the xml's own name counts",
    xml(item(), size=None): None,
    xml(item(), size=(0, 0)): None,
    xml(item(), size=("wide", 60)): None,
    xml(item(box=(17, 13, 96, 72)), size=(160, 120)): "<size> says 160x120, the picture has 80x60.*boxes are scaled",
    xml(item(), size=(60, 80)): "swapped.*upright",
    f"<?xml version='1.0' encoding='utf-8'?>\n<!DOCTYPE annotation>{xml(item())}": None,
    "\ufeff" + xml(item()): None,
}


@pytest.mark.parametrize("text", HEADS)
def test_heads_of_xmls(text):
    rows = parse_voc(text.encode(), "a.xml", NAMES, (60, 80), "a")
    np.testing.assert_allclose(rows.boxes, [[28 / 80, 21 / 60, 0.5, 0.5]], rtol=1e-6)
    assert (rows.problems == []) if HEADS[text] is None else re.search(HEADS[text], str(rows.problems[0]))


def test_another_encoding_in_an_unused_field_spoils_nothing():
    text = xml(item()).replace("<folder>VOC", "<folder>图片").encode("gbk")
    assert len(parse_voc(text, "a.xml", NAMES, (60, 80)).classes) == 1
    assert len(parse_voc(xml(item()).encode("utf-16"), "a.xml", NAMES, (60, 80)).classes) == 1


def bomb() -> str:
    laughs = "".join(f'<!ENTITY l{k} "{f"&l{k - 1};" * 10}">' for k in range(1, 12))
    return f'<!DOCTYPE a [<!ENTITY l0 "ha">{laughs}]>' + xml(item("&l11;"))


BROKEN = {
    "": "the file is empty",
    "  \n": "the file is empty",
    xml(item())[:-30]: "no whole xml",
    "not xml": "no whole xml",
    "\0\1\2": "no whole xml",
    bomb(): "declares the entity 'l0'",
    f'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>{xml(item("&x;"))}': "declares the entity 'x'",
    f'<!DOCTYPE a [<!ENTITY % x SYSTEM "http://localhost/x"> %x;]>{xml(item())}': "declares the entity 'x'",
}


@pytest.mark.parametrize("text", BROKEN, ids=lambda t: t[:30])
def test_a_broken_xml_takes_its_picture_along(tmp_path, text):
    for name in "ab":
        picture(tmp_path / f"images/{name}.jpg")
    write(tmp_path / "images/a.xml", text)
    write(tmp_path / "images/b.xml", xml(item()))
    index = build_index(config_of(tmp_path, "train: images\n"), "train")
    (problem,) = index.problems
    assert stems(index) == ["b"] and problem.path.endswith("a.xml")
    assert re.search(BROKEN[text], problem.message) and "its picture is left out" in problem.message


def test_an_entity_bomb_takes_no_memory(tmp_path):
    write(tmp_path / "a.xml", bomb())
    code = """
import resource, sys
from data.formats.voc import parse_voc
content = open(sys.argv[1], "rb").read()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert not parse_voc(content, "a.xml", ["cat"], (60, 80)).usable
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    command = [sys.executable, "-c", code, str(tmp_path / "a.xml")]
    assert int(subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=True).stdout) < 10 * 1024


def test_xmls_shared_by_two_pictures_are_said(tmp_path):
    for name in ("a.jpg", "a.png"):
        picture(tmp_path / "images" / name)
    write(tmp_path / "images/a.xml", xml(item()))
    (problem,) = build_index(config_of(tmp_path, "train: images\n"), "train").problems
    assert "same label file" in problem.message


def test_all_difficult_is_refused(tmp_path):
    picture(tmp_path / "images/a.jpg")
    write(tmp_path / "images/a.xml", xml(item(difficult=1)))
    with pytest.raises(UserError, match="difficult"):
        build_index(config_of(tmp_path, "train: images\n"), "train")


@pytest.mark.parametrize("change", ["xml edited", "xml added", "picture added", "list edited"])
def test_a_changed_devkit_is_noticed(tmp_path, change):
    base = devkit(tmp_path) / "VOC2007"
    file = tmp_path / "data.yaml"
    file.write_text(f"path: .\ntrain: VOCdevkit\nval: VOCdevkit\nnames: {NAMES}\n")
    if change == "xml added":
        (base / "Annotations/2007_b.xml").unlink()
    before = build_index(load_dataset_yaml(file), "train")
    if change == "xml edited":
        write(base / "Annotations/2007_a.xml", xml(item("dog")))
    elif change == "xml added":
        write(base / "Annotations/2007_b.xml", xml(item("cat")))
    elif change == "list edited":
        write(base / "ImageSets/Main/train.txt", "2007_a\n")
    else:
        write(base / "ImageSets/Main/train.txt", "2007_a\n2007_b\n2007_e\n")
        build_index(load_dataset_yaml(file), "train")  # 2007_e is not there yet
        picture(base / "JPEGImages/2007_e.jpg")
    after = build_index(load_dataset_yaml(file), "train")
    assert (before.n, len(before.classes)) != (after.n, len(after.classes))


@pytest.mark.parametrize("place", ["images/Annotations", "images/train", "annotations/train"])
def test_xmls_that_appear_near_plain_pictures_are_noticed(tmp_path, place):
    for stem in "ab":
        picture(tmp_path / f"images/train/{stem}.jpg")
    write(tmp_path / "images/train/a.xml", xml(item("cat")))
    file = tmp_path / "data.yaml"
    file.write_text(f"path: .\ntrain: images/train\nval: images/train\nnames: {NAMES}\n")
    assert len(build_index(load_dataset_yaml(file), "train").classes) == 1
    write(tmp_path / place / "b.xml", xml(item("dog"), item("cat")))
    assert build_index(load_dataset_yaml(file), "train").classes.tolist() == [0, 1, 0]
