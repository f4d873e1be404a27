"""The order of an epoch: pure, a permutation, or drawn by weights with every count as near as whole numbers come."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.definition.dataset_yaml import load_dataset_yaml
from data.index.columns import Paths
from data.index.index import Index, build_index
from data.loading.dataset import TrainDataset
from data.loading.order import PURPOSES, class_counts, epoch_order, generator, picture_weights
from utils.config.files import load_hyp_file
from utils.config.options import parse_args
from utils.config.schema import Hyp
from utils.env import REPO


def index_of(classes: list[list[int]], nc: int, crowd: set[int] = frozenset()) -> Index:
    """Pictures with boxes of these classes; crowd: numbers of the boxes that are crowds."""
    flat = np.array([c for row in classes for c in row], np.int32)
    return Index(
        paths=Paths.of([f"/{i}.jpg" for i in range(len(classes))]),
        shapes=np.full((len(classes), 2), 64, np.int32),
        boxes=np.full((len(flat), 4), 0.5, np.float32),
        classes=flat,
        area=np.ones(len(flat), np.float32),
        crowd=np.isin(np.arange(len(flat)), list(crowd)),
        offsets=np.cumsum([0, *map(len, classes)]),
        names=[f"c{k}" for k in range(nc)],
        image_ids=np.arange(1, len(classes) + 1),
        category_ids=list(range(1, nc + 1)),
    )


pictures = st.lists(st.lists(st.integers(0, 3), max_size=6), min_size=1, max_size=40)


@given(pictures, st.floats(0.01, 1), st.integers(0, 5), st.integers(0, 50))
def test_counts_are_floor_or_ceil_of_what_the_weights_ask(classes, balance, seed, epoch):
    index = index_of(classes, 4)
    weights = picture_weights(index, balance)
    assert weights.shape == (index.n,) and weights.sum() == pytest.approx(1) and (weights > 0).all()
    order = epoch_order(seed, epoch, index.n, weights)
    counts = np.bincount(order, minlength=index.n)
    wanted = index.n * weights
    assert len(order) == index.n
    assert (counts >= np.floor(wanted - 1e-9)).all() and (counts <= np.ceil(wanted + 1e-9)).all()


def test_over_many_epochs_pictures_come_as_often_as_their_weights():
    index = index_of([[0], [0], [0, 0, 0], [1], [], [0, 1, 2]], 3)
    weights = picture_weights(index, 0.7)
    orders = np.stack([epoch_order(0, epoch, index.n, weights) for epoch in range(4000)])
    counts = np.bincount(orders.ravel(), minlength=index.n) / 4000
    np.testing.assert_allclose(counts, index.n * weights, atol=0.04)
    first = np.bincount(orders[:, 0], minlength=index.n) / 4000  # and at any position
    np.testing.assert_allclose(first, weights, atol=0.04)


def test_weights_are_those_of_yolov5_and_backgrounds_stay():
    classes = [[0, 0, 1], [0], [], [0, 2], []]
    weights = picture_weights(index_of(classes, 4), 1.0)
    class_weights = 1 / np.maximum(np.bincount([0, 0, 1, 0, 0, 2], minlength=4), 1)  # labels_to_class_weights
    theirs = np.array([(class_weights * np.bincount(row, minlength=4)).sum() for row in classes if row])
    np.testing.assert_allclose(weights[[0, 1, 3]], theirs / theirs.sum() * 3 / 5)
    np.testing.assert_allclose(weights[[2, 4]], 1 / 5)
    np.testing.assert_allclose(picture_weights(index_of([[], []], 2), 1.0), 0.5)
    half = picture_weights(index_of(classes, 4), 0.5)
    np.testing.assert_allclose(half, (weights + 1 / 5) / 2)


def test_crowds_do_not_count():
    index = index_of([[0, 1], [0], [1]], 2, crowd={1})
    assert class_counts(index).tolist() == [2, 1]
    np.testing.assert_allclose(picture_weights(index, 1.0), [0.25, 0.25, 0.5])
    only_crowd = index_of([[0], [1]], 2, crowd={1})
    np.testing.assert_allclose(picture_weights(only_crowd, 1.0), [0.5, 0.5])


def test_without_weights_the_order_is_the_permutation_it_always_was():
    for seed, epoch, n in [(0, 0, 100), (3, 7, 1), (1, 2, 1001)]:
        order = epoch_order(seed, epoch, n)
        np.testing.assert_array_equal(order, np.random.default_rng([seed, epoch, 0, 0]).permutation(n))
        assert order.dtype == np.int32
    assert len(set(PURPOSES.values())) == len(PURPOSES), "streams of their own"
    with pytest.raises(LookupError, match="cutout.*PURPOSES of data/loading/order.py"):
        generator(1, 2, 3, "cutout")
    assert generator(1, 2, 3, "flip").random() == np.random.default_rng([1, 2, 3, 4]).random()


def test_balance_0_has_no_weights_and_even_weights_make_a_permutation():
    index = index_of([[0], [1], []], 2)
    assert picture_weights(index, 0.0) is None
    assert sorted(epoch_order(0, 4, 999, np.full(999, 1 / 999))) == list(range(999))


def test_weights_of_their_own_are_not_mixed_up():
    heavy = [np.array([0.9, 0.1]), np.array([0.1, 0.9])]
    for _ in range(2):
        for k, weights in enumerate(heavy):
            assert (epoch_order(0, 0, 2, weights) == k).sum() >= 1
    assert (epoch_order(0, 0, 2, heavy[0]) != epoch_order(0, 0, 2, heavy[1])).any()


def test_other_processes_draw_the_same():
    weights = np.linspace(1, 3, 300)
    weights /= weights.sum()
    code = (
        f"import sys; sys.path.insert(0, {str(REPO)!r})\n"
        "import numpy as np\nfrom data.loading.order import epoch_order\n"
        "w = np.linspace(1, 3, 300)\nprint(*epoch_order(5, 9, 300, w / w.sum()))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert list(map(int, out.split())) == epoch_order(5, 9, 300, weights).tolist()


def test_classes_become_more_even(testdata):
    """The coefficient of variation of boxes a class falls, in an epoch of real pictures."""
    index = build_index(load_dataset_yaml(testdata / "coco128/coco128.yaml"), "train")
    uneven = []
    for balance in (0, 0.5, 1):
        rows = index.take(epoch_order(0, 0, index.n, picture_weights(index, balance)))
        counts = class_counts(rows)[class_counts(index) > 0]
        uneven.append(counts.std() / counts.mean())
    assert uneven[0] > 1.08 * uneven[1] > 1.08**2 * uneven[2], uneven


def test_dataset_follows_the_weights(testdata):
    index = build_index(load_dataset_yaml(testdata / "bccd/bccd.yaml"), "val")
    plain, even = (TrainDataset(index, Hyp(imgsz=64, balance=b, mosaic=0), 64) for b in (0, 1))
    seen = [[len(d._picture(2, p)[1]) for p in range(index.n)] for d in (plain, even)]
    boxes = np.diff(index.offsets)
    assert sorted(seen[0]) == sorted(boxes.tolist())
    assert seen[1] == boxes[epoch_order(0, 2, index.n, picture_weights(index, 1.0))].tolist()


@pytest.mark.parametrize(
    ("words", "balance"), [(["--image-weights"], 1), (["image_weights=False"], 0), (["balance=0.3"], 0.3)]
)
def test_old_spelling_on_the_command_line(words, balance):
    assert parse_args(words)[1].balance == balance


@pytest.mark.parametrize(("value", "balance"), [("true", 1), ("false", 0)])
def test_old_spelling_in_a_file(tmp_path, value, balance):
    (tmp_path / "opt.yaml").write_text(f"image_weights: {value}\nnoautoanchor: false\n")
    values, notes = load_hyp_file(str(tmp_path / "opt.yaml"))
    assert Hyp(**values).balance == balance
    assert any(f"'image_weights' is today balance={balance}" in note for note in notes)
