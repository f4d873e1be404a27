"""Every kind of bad label row and label file: what is kept, what is left out, what is said."""

import codecs
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

import data.formats.text
import data.formats.yolo
from data.definition.dataset_yaml import load_dataset_yaml
from data.formats.yolo import parse_yolo
from data.index.index import Index, build_index
from utils.errors import UserError

NAMES = ["cat", "dog", "traffic light"]
GOOD = "0 0.5 0.5 0.2 0.2"
BOX = [[0.5, 0.5, 0.2, 0.2]]


def dataset(root: Path, labels: dict[str, bytes | None], names: object = NAMES) -> Path:
    """Pictures with these label files (None: none)."""
    for name, content in labels.items():
        for folder in ("images", "labels"):
            (root / folder).mkdir(exist_ok=True, parents=True)
        Image.new("RGB", (80, 60)).save(root / f"images/{name}.jpg")
        if content is not None:
            (root / f"labels/{name}.txt").write_bytes(content)
    (root / "data.yaml").write_text(f"train: images\nval: images\nnames: {names}\n")
    return root / "data.yaml"


def read(root: Path, labels: dict[str, bytes | None], names: object = NAMES) -> Index:
    return build_index(load_dataset_yaml(dataset(root, labels, names)), "train")


REFUSED = {  # row: words of the message
    "3 0.5 0.5 0.1 0.1": r"class 3 is out of range: 'names' has 3 classes \(0-2\)",
    "-1 0.5 0.5 0.1 0.1": "class -1 is out of range",
    "1e30 0.5 0.5 0.1 0.1": r"class 1e\+30 is out of range",
    "9999999999 0.5 0.5 0.1 0.1": "class 9999999999 is out of range",
    "0.5 0.5 0.5 0.1 0.1": "class 0.5 is not a whole number",
    "nan 0.5 0.5 0.1 0.1": "NaN or infinity",
    "cow 0.5 0.5 0.1 0.1": "'cow' is not a number",
    "0 x 0.5 0.1 0.1": "'x' is not a number",
    "0 0.5 nan 0.1 0.1": "NaN or infinity",
    "0 0.5 0.5 inf 0.1": "NaN or infinity",
    "0 40 30 20 20": "look like pixels: divide",
    "0 1.2 0.5 0.1 0.1": "outside 0..1",
    "0 0.5 0.5 0 0.1": "without width or height",
    "0 0.5 0.5 0.1 -0.1": "without width or height",
    "0 0.5 0.5 1e-9 0.1": "without width or height",
    "0 -0.009 0.5 0.001 0.1": "lies outside the picture",
    "0": "1 columns",
    "0 0.5 0.5 0.1": "4 columns",
    "0 0.5 0.5 0.1 0.1 7": "6 columns",
    "0 0.1 0.1 0.2 0.2 0.3 0.3 0.4": "8 columns: neither",
    "0 0.1 0.1 0.1 0.5 0.1 0.9": "without width or height",  # a polygon that is a line
    "<<<<<<< HEAD": "columns",
}


@pytest.mark.parametrize("row", REFUSED)
def test_a_refused_row_does_not_drop_its_picture(tmp_path, row):
    index = read(tmp_path, {"a": f"1 0.3 0.3 0.1 0.1\n{row}\n{GOOD}\n".encode()})
    (problem,) = index.problems
    assert problem.line == 2 and problem.path.endswith("labels/a.txt") and re.search(REFUSED[row], problem.message)
    assert "The row is left out" in problem.message and problem.kind in ("row", "past_last")
    assert index.n == 1 and index.classes.tolist() == [1, 0]


KEPT = {  # row: the row it stands for, words of the remark or None
    "dog 0.5 0.5 0.2 0.2": ("1 0.5 0.5 0.2 0.2", "'dog' is a name in place of a number: read as class 1"),
    "traffic light 0.5 0.5 0.2 0.2": ("2 0.5 0.5 0.2 0.2", "read as class 2"),
    "1.0 0.5 0.5 0.2 0.2": ("1 0.5 0.5 0.2 0.2", None),
    "1\t0.5\t0.5\t0.2\t0.2": ("1 0.5 0.5 0.2 0.2", None),
    "  1   0.5 0.5 0.2 0.2  ": ("1 0.5 0.5 0.2 0.2", None),
    "1,0.5,0.5,0.2,0.2": ("1 0.5 0.5 0.2 0.2", "commas between the columns"),
    "1, 0.5, 0.5, 0.2, 0.2": ("1 0.5 0.5 0.2 0.2", "commas between the columns"),
    "1;0.5;0.5;0.2;0.2": ("1 0.5 0.5 0.2 0.2", "semicolons"),
    "1 0,5 0,5 0,2 0,2": ("1 0.5 0.5 0.2 0.2", "decimal commas"),
    "1 0,5 0.5 0,2 0.2": ("1 0.5 0.5 0.2 0.2", "decimal commas"),
    "1;0,5;0,5;0,2;0,2": ("1 0.5 0.5 0.2 0.2", "decimal commas"),
    "1 0.5 0.5 0.2 0.2 0.93": ("1 0.5 0.5 0.2 0.2", "6 columns.*confidence"),
    "1 0.4 0.4 0.6 0.4 0.6 0.6 0.4 0.6": ("1 0.5 0.5 0.2 0.2", None),
    "1 0.5 0.5 1.0000004 1": ("1 0.5 0.5 1 1", None),
    "1 0.5 0.5 1.008 1": ("1 0.5 0.5 1 1", None),
    "1 -0.004 0.5 0.2 0.2": ("1 0.048 0.5 0.096 0.2", "reaches 10.4% outside the picture.*clipped"),
    "1 0.95 0.5 0.2 0.2": ("1 0.925 0.5 0.15 0.2", "reaches 5.0% outside"),
}


@pytest.mark.parametrize("row", KEPT)
def test_a_row_that_can_be_understood_is_kept_and_said(tmp_path, row):
    meant, words = KEPT[row]
    index = read(tmp_path, {"a": f"{GOOD}\n{row}\n".encode()})
    want = [float(word) for word in meant.split()]
    assert index.classes.tolist() == [0, want[0]]
    np.testing.assert_allclose(index.boxes[1], want[1:], atol=1e-6)
    if words is None:
        assert not index.problems
    else:
        (problem,) = index.problems
        assert problem.line == 2 and re.search(words, problem.message)


FILES = {  # content: boxes, words of the problem or None
    "bom": (codecs.BOM_UTF8 + GOOD.encode(), 1, None),
    "crlf": (f"{GOOD}\r\n1 0.3 0.3 0.1 0.1\r\n".encode(), 2, None),
    "old mac": (f"{GOOD}\r1 0.3 0.3 0.1 0.1\r".encode(), 2, None),
    "dos end": (f"{GOOD}\r\n\x1a".encode(), 1, None),
    "utf-16": (GOOD.encode("utf-16"), 1, "UTF-16-LE; it is read as such"),
    "utf-16 be": (codecs.BOM_UTF16_BE + GOOD.encode("utf-16-be"), 1, "UTF-16-BE"),
    "utf-16 bare": (GOOD.encode("utf-16-le"), 1, "UTF-16-LE"),
    "utf-32": (GOOD.encode("utf-32"), 1, "UTF-32-LE"),
    "latin-1": (f"{GOOD}\nchèvre 0.5 0.5 0.1 0.1".encode("latin-1"), 1, "Latin-1"),
    "empty": (b"", 0, None),
    "blank": (b" \n\r\n\t\n", 0, None),
    "missing": (None, 0, None),
    "twice": (f"{GOOD}\n{GOOD}\n0 0.50 0.5 0.2 0.2".encode(), 1, "the same row as line 1"),
    "many commas": (b"0,0.5,0.5,0.2,0.2\n1,0.3,0.3,0.1,0.1\n2,0.3,0.3,0.1,0.1", 3, "So in 3 rows"),
}


@pytest.mark.parametrize("name", FILES)
def test_label_files(tmp_path, name):
    content, boxes, words = FILES[name]
    index = read(tmp_path, {"a": content, "b": GOOD.encode()})
    assert index.n == 2 and len(index.classes) == boxes + 1
    assert bool(index.problems) == (words is not None)
    if words:
        assert re.search(words, index.problems[0].message) and index.problems[0].path.endswith("a.txt")


@pytest.mark.parametrize(
    "content",
    [
        bytes(range(256)),
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
        b"\xff\xfe\x00\xd8",
        GOOD.encode() + b"\0\0\0\0\0",
        b"\0" * 99,
    ],
)
def test_binary_garbage_takes_its_picture_along(tmp_path, content):
    index = read(tmp_path, {"a": content, "b": GOOD.encode()})
    assert index.n == 1 and index.paths[0].endswith("b.jpg")
    (problem,) = index.problems
    assert problem.path.endswith("a.txt") and "its picture is left out" in problem.message


def test_a_huge_label_file_is_not_read(tmp_path):
    file = dataset(tmp_path, {"a": GOOD.encode(), "b": GOOD.encode()})
    with open(tmp_path / "labels/a.txt", "r+b") as f:
        f.truncate(data.formats.text.MAX_BYTES * 1000)  # 16 GB of nothing
    index = build_index(load_dataset_yaml(file), "train")
    assert index.n == 1 and "too large for a label file" in index.problems[0].message


def test_a_label_that_is_a_folder(tmp_path):
    file = dataset(tmp_path, {"a": None, "b": GOOD.encode()})
    (tmp_path / "labels/a.txt").mkdir()
    index = build_index(load_dataset_yaml(file), "train")
    assert index.n == 1 and "a.txt" in str(index.problems[0])


def test_all_labels_missing_is_refused(tmp_path):
    with pytest.raises(UserError, match="no labels at all.*'images' replaced by 'labels'"):
        read(tmp_path, {"a": None, "b": None})


def test_ids_that_count_from_one_are_named_once(tmp_path):
    index = read(tmp_path, {k: b"1 0.5 0.5 0.2 0.2\n3 0.5 0.5 0.1 0.1\n" for k in "ab"})
    causes = [p for p in index.problems if p.kind == "cause"]
    assert causes == [index.problems[0]] and "class 0 ('cat') never does" in causes[0].message
    index = read(tmp_path / "fine", {"a": b"0 0.5 0.5 0.2 0.2\n3 0.5 0.5 0.1 0.1\n"})
    assert not any(p.kind == "cause" for p in index.problems)
    with pytest.raises(UserError, match="no labels at all.*count from 1"):
        read(tmp_path / "one", {"a": b"1 0.5 0.5 0.2 0.2"}, ["cat"])


number = st.one_of(
    st.floats(-0.1, 1.1), st.sampled_from([0, 1, 0.5, 1e-7, 1.0000005, float("nan"), float("inf"), 30])
).map(lambda v: f"{v:.7g}")
row = st.tuples(
    st.sampled_from(["0", "1", "2", "-0", "3", "0.5", "cat", "nan", "1e30"]), number, number, number, number
)
tidy = st.tuples(st.sampled_from(["0", "1", "2"]), *[st.sampled_from(["0.3", "0.5", ".50", "0.6"])] * 4)
line = st.one_of(row, tidy).map(" ".join) | st.sampled_from(["", " ", "0 0.5", f"{GOOD} 0.5", "0,0.5,0.5,0.2,0.2"])


@given(st.lists(line, max_size=6).map("\n".join), st.sampled_from([3, None]))
@example(GOOD, 3)
def test_the_fast_way_and_the_careful_way_agree(text, nc):
    fast = parse_yolo(text, "x.txt", nc, NAMES)
    problems: list[data.formats.rows.Problem] = []
    table = data.formats.yolo._parse_line_by_line(text, "x.txt", nc, NAMES, problems)
    np.testing.assert_array_equal(fast.classes, table[:, 0].astype(np.int32))
    np.testing.assert_array_equal(fast.boxes, table[:, 1:].astype(np.float32))
    assert fast.problems == problems
    assert (fast.boxes[:, 2:] > 0).all() and np.isfinite(fast.boxes).all()


def test_plain_files_take_the_fast_way():
    assert data.formats.yolo._parse_clean(f"{GOOD}\n1 0.3 0.3 0.1 0.1\n", 2) is not None


def test_rows_of_a_box_and_keypoints_are_boxes_and_polygons_stay_polygons(tmp_path):
    """Both have an odd number of columns; the whole file tells them apart."""
    rng = np.random.default_rng(0)
    poses, polygons = [], []
    for _ in range(4):
        (x, y), (w, h) = rng.uniform(0.6, 0.8, 2), rng.uniform(0.1, 0.2, 2)
        points = rng.uniform([x - w / 2, y - h / 2], [x + w / 2, y + h / 2], (5, 2))
        points[0] = 0  # not set
        poses.append([0, x, y, w, h, *points.ravel()])
        angles = np.linspace(0, 2 * np.pi, 8)[:7]
        polygons.append([0, *np.stack([x + w / 2 * np.cos(angles), y + h / 2 * np.sin(angles)], 1).ravel()])
    pose, polygon = ("\n".join(" ".join(f"{v:.6f}" for v in row) for row in rows) for rows in (poses, polygons))
    rows = parse_yolo(pose.replace("0.000000 ", "0 ", 1), "x.txt", 1)
    np.testing.assert_allclose(rows.boxes, np.array(poses)[:, 1:5], atol=1e-5)
    assert [p.kind for p in rows.problems] == ["remark"] and "5 keypoints" in rows.problems[0].message
    rows = parse_yolo(polygon, "x.txt", 1)
    xy = np.array(polygons)[:, 1:].reshape(4, -1, 2)
    np.testing.assert_allclose(rows.boxes[:, 2:], np.ptp(xy, 1), atol=1e-5)
    assert not rows.problems


def test_labels_that_are_there_and_empty_are_called_empty(tmp_path):
    with pytest.raises(UserError, match="are empty: 2 for 2 pictures"):
        read(tmp_path, {"a": b"", "b": b"\n"})


def test_a_folder_in_two_spellings_counts_once(tmp_path):
    file = dataset(tmp_path, {"a": GOOD.encode(), "b": GOOD.encode()})
    (tmp_path / "link").symlink_to(tmp_path / "images")
    file.write_text(file.read_text().replace("train: images", "train: [images, ./labels/../images, link]"))
    index = build_index(load_dataset_yaml(file), "train")
    assert index.n == 2 and len(index.boxes) == 2 and not index.problems


def boxes_of(testdata: Path) -> dict[str, np.ndarray]:
    """Rows (k, 5) of the label files of real pictures."""
    files = sorted((testdata / "bccd/labels/val").glob("*.txt")) or sorted((testdata / "bccd").rglob("labels/**/*.txt"))
    return {file.stem: np.loadtxt(file, ndmin=2) for file in files[:30]}


def as_text(rows: np.ndarray) -> bytes:
    return "".join(" ".join([str(int(c)), *(f"{v:.6g}" for v in box)]) + "\n" for c, *box in rows).encode()


def corners_of(rows: np.ndarray, size: np.ndarray) -> np.ndarray:
    low, high = (rows[:, 1:3] + sign * rows[:, 3:] / 2 for sign in (-1, 1))
    return np.concatenate([rows[:, :1], low.clip(0) * size, high.clip(0, 1) * size], 1)


@pytest.mark.parametrize("size", [(1, 1), (80, 60)], ids=["shares", "pixels"])
def test_corners_in_place_of_boxes_are_named_once_and_boxes_never_are(testdata, tmp_path, size):
    real = boxes_of(testdata)
    right = read(tmp_path / "right", {name: as_text(rows) for name, rows in real.items()})
    assert not [p for p in right.problems if p.kind == "cause"]
    wrong = {name: as_text(corners_of(rows, np.array(size))) for name, rows in real.items()}
    wrong["right"] = GOOD.encode()
    index = read(tmp_path / "wrong", wrong)
    causes = [p for p in index.problems if p.kind == "cause"]
    assert [p.message.count("written as corners, x1 y1 x2 y2") for p in causes] == [1] and index.problems[0] == causes[
        0
    ]
    assert "x = (x1 + x2) / 2" in causes[0].message and causes[0].path.endswith(".txt") and causes[0].line
    assert sum(p.kind == "corners" for p in index.problems) >= 3


def test_boxes_that_reach_out_here_and_there_are_no_corners(tmp_path):
    """Wide boxes near the upper left reach out and would fit as corners, but others of the set would not."""
    sloppy = "0 0.2 0.2 0.5 0.5\n1 0.7 0.7 0.2 0.1\n0 0.6 0.2 0.3 0.2\n"
    index = read(tmp_path, {f"p{k}": sloppy.encode() for k in range(9)})
    assert {p.kind for p in index.problems} == {"corners"} and len(index.problems) == 9 and len(index.classes) == 27
