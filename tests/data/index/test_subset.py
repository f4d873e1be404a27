"""Some classes by name, some pictures by fraction: what is left is a whole index of its own."""

import numpy as np
import pytest
import yaml

import train
import val
from data.definition.dataset_yaml import load_dataset_yaml
from data.index.index import Index, build_index
from data.index.subset import drawn, left_out, subset
from tests.data.loading.test_order import index_of
from utils.config.options import parse_args
from utils.config.schema import Hyp, save_hyp
from utils.errors import UserError


@pytest.fixture(scope="module")
def bccd(testdata) -> Index:
    return build_index(load_dataset_yaml(testdata / "bccd/bccd.yaml"), "train")


def test_classes_keep_every_picture_and_only_their_boxes(bccd):
    part = subset(bccd, Hyp(classes=["RBC", "WBC"]))
    names = [bccd.names.index(name) for name in part.names]
    assert sorted(part.names) == ["RBC", "WBC"] and names == sorted(names), "in the order of the dataset"
    assert part.paths == bccd.paths and part.nc == len(part.category_ids) == 2
    for i in range(bccd.n):
        keep = np.isin(bccd.classes[bccd.rows(i)], names)
        np.testing.assert_array_equal(part.boxes[part.rows(i)], bccd.boxes[bccd.rows(i)][keep])
        np.testing.assert_array_equal(part.area[part.rows(i)], bccd.area[bccd.rows(i)][keep])
        whole = [bccd.names[c] for c in bccd.classes[bccd.rows(i)][keep]]
        assert [part.names[c] for c in part.classes[part.rows(i)]] == whole
    assert left_out(bccd, part) == f"0 of {bccd.n} pictures and {len(bccd.boxes) - len(part.boxes)} of " + (
        f"{len(bccd.boxes)} boxes are left out"
    )


def test_crowds_and_category_ids_follow(bccd):
    index = index_of([[0, 1, 2], [], [2, 0]], 3, crowd={2, 3})
    index = index.take(np.arange(3))
    part = subset(index, Hyp(classes=["c2"]))
    assert part.crowd.tolist() == [True, True] and part.classes.tolist() == [0, 0]
    assert part.offsets.tolist() == [0, 1, 1, 2] and part.category_ids == [3] and part.names == ["c2"]


@pytest.mark.parametrize("wanted", [["c1"], ["C1"], [1], ["1"], [" c1 ", "c1", 1]])
def test_a_class_by_name_or_number(wanted):
    assert subset(index_of([[0, 1]], 2), Hyp(classes=wanted)).names == ["c1"]


def test_names_come_before_numbers():
    index = index_of([[0, 1]], 2)
    index.names[:] = ["1", "0"]
    assert subset(index, Hyp(classes=[0])).names == ["0"] and subset(index, Hyp(classes=[0])).category_ids == [2]


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (["c3"], "there is no 'c3'.*The dataset has c0, c1, c2"),
        (["c10"], "Did you mean 'c1'"),
        ([3], "there is no '3'"),
        ([-1], "there is no '-1'"),
        (["c2"], "none of the 2 pictures has a box of c2"),
    ],
)
def test_wrong_classes_are_named(wanted, message):
    with pytest.raises(UserError, match=message):
        subset(index_of([[0], [1]], 3), Hyp(classes=wanted))


def test_single_class_of_the_chosen_ones():
    part = subset(index_of([[0, 1], [2]], 3), Hyp(classes=["c0", "c2"], single_cls=True))
    assert part.names == ["item"] and part.classes.tolist() == [0, 0] and part.offsets.tolist() == [0, 1, 2]


@pytest.mark.parametrize(("n", "fraction", "count"), [(100, 0.1, 10), (7, 0.5, 4), (5, 0.01, 1), (3, 1.0, 3)])
def test_fraction(n, fraction, count):
    rows = drawn(n, fraction)
    assert len(rows) == len(set(rows)) == count and (np.diff(rows) > 0).all()
    assert set(drawn(n, fraction / 2)) <= set(rows), "a larger part holds a smaller"


def test_fraction_is_of_training_only_and_the_same_for_every_seed(bccd):
    one, two = (subset(bccd, Hyp(fraction=0.2, seed=seed), training=True) for seed in (0, 1))
    assert one.n == round(bccd.n * 0.2) and one.paths == two.paths
    assert subset(bccd, Hyp(fraction=0.2)).n == bccd.n
    assert subset(bccd, Hyp(), training=True) is bccd, "nothing asked, nothing copied"
    with pytest.raises(UserError, match="without a box"):
        subset(index_of([[]] * 30 + [[0]], 1), Hyp(fraction=0.01), training=True)


@pytest.mark.parametrize(
    ("words", "classes"),
    [
        (["--classes", "RBC,WBC"], ["RBC", "WBC"]),
        (["classes=[RBC, WBC]"], ["RBC", "WBC"]),
        (["classes=[0, 2]"], [0, 2]),
        (["--classes", "0,2"], ["0", "2"]),
        (["--classes", "RBC"], ["RBC"]),
        (["--classes", "no"], ["no"]),
        (["classes=null"], None),
    ],
)
def test_classes_as_users_write_them(words, classes, tmp_path):
    hyp = parse_args(words)[1]
    assert hyp.classes == classes
    save_hyp(tmp_path / "hyp.yaml", hyp)
    assert parse_args(["--hyp", str(tmp_path / "hyp.yaml")])[1] == hyp


@pytest.mark.parametrize(
    ("text", "classes"),
    [("[RBC, 'a, b']", ["RBC", "a, b"]), ("RBC", ["RBC"]), ("2", [2]), ("\n- 0\n- WBC", [0, "WBC"])],
)
def test_classes_in_a_file(tmp_path, text, classes):
    (tmp_path / "a.yaml").write_text(f"classes: {text}\n")
    assert parse_args(["--hyp", str(tmp_path / "a.yaml")])[1].classes == classes


@pytest.mark.parametrize("text", ["[no, yes]", "[]", "[1.5]"])
def test_impossible_classes(tmp_path, text):
    (tmp_path / "a.yaml").write_text(f"classes: {text}\n")
    with pytest.raises(UserError, match="classes: "):
        parse_args(["--hyp", str(tmp_path / "a.yaml")])


def test_a_run_on_a_part_of_a_dataset(toy_args, tmp_path, capsys):
    """Names follow into the weights; val.py takes them by name, from all classes or from the same part."""
    words = [*toy_args, "--epochs", "1", "--project", str(tmp_path), "--classes", "leaf,mug", "--fraction", "0.5"]
    train.main([*words, "cls_pw=0.5", "balance=1"])
    said = capsys.readouterr().out
    assert "train: 10 of 20 pictures and" in said and "val: 0 of 8 pictures and" in said
    assert "10 + 8 pictures" in said and "2 classes" in said and "class loss weighted (cls_pw 0.5)" in said
    assert yaml.safe_load((tmp_path / "exp/hyp.yaml").read_text())["classes"] == ["leaf", "mug"]
    data = toy_args[toy_args.index("--data") + 1]
    common = ["--weights", tmp_path / "exp/weights/best.pt", "--data", data, "--imgsz", 64, "--noplots"]
    common += ["--device", "cpu", "--workers", 0, "--project", tmp_path / "val"]
    with pytest.raises(UserError, match="--classes mug,leaf"):
        val.main([*common])
    part = val.main([*common, "--classes", "mug,leaf"])
    assert part.keys() >= {"val/mAP50-95"} and "classes are matched by name" not in capsys.readouterr().out
    assert val.main([*common, "--classes", "mug"])["val/mAP50-95"] >= 0


def test_the_plan_counts_the_fraction(toy_args, tmp_path, capsys):
    train.main([*toy_args, "--project", str(tmp_path), "--plan", "--fraction", "0.5", "--epochs", "4"])
    assert "10 for training" in capsys.readouterr().out
