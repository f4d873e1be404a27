"""What may be tried of a key: words of a command line, and the files of other trainers."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.config.schema import Hyp
from utils.errors import UserError
from utils.tune.search.space import Axis, grid_of, is_axis, join, parse_axis, read_space, settings_of, usual_space


def test_a_range_on_a_log_scale_a_plain_one_values_and_whole_numbers():
    assert parse_axis("lr0=log:1e-4:1e-1") == Axis("lr0", low=1e-4, high=0.1, log=True)
    assert parse_axis("--mosaic=0:1") == Axis("mosaic", low=0.0, high=1.0)
    assert parse_axis("optimizer=sgd|AdamW").values == ("sgd", "adamw")
    assert parse_axis("warmup_epochs=0|1|3").values == (0.0, 1.0, 3.0)
    assert parse_axis("close-mosaic=0:5") == Axis("close_mosaic", low=0, high=5, whole=True)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("lr0=1e-1:1e-4", "lower end"),
        ("mosaic=log:0:1", "log scale has no 0"),
        ("mosaic=0:2", "mosaic"),
        ("optimizer=sgd|adam2", "optimizer"),
        ("optimizer=sgd|sgd", "only one value"),
        ("close_mosaic=0:1.5", "whole numbers"),
        ("lro=0:1", "lr0"),
        ("lr0=5", "nothing that may be tried"),
    ],
)
def test_a_space_that_cannot_be_searched_is_refused(word, said):
    with pytest.raises(UserError, match=said):
        parse_axis(word)


@pytest.mark.parametrize(
    "word", ["--lr0", "lr0=0.01", "weights=a/b.pt", "data=C:/x.yaml", "--epochs", "name=a|b:c", "4"]
)
def test_settings_are_no_axes(word):
    assert not is_axis(word) or word == "name=a|b:c"  # a name is refused later: it is no setting of a run


@given(st.floats(1e-5, 1e-2), st.floats(1.5, 1e4), st.integers(2, 9), st.booleans())
def test_a_grid_has_its_ends_and_even_steps(low, ratio, points, log):
    axis = Axis("lr0", low=low, high=low * ratio, log=log, points=points)
    grid = axis.grid()
    assert grid[0] == axis.low and grid[-1] == axis.high and len(grid) == points
    scale = [math.log(v) for v in grid] if log else grid
    steps = [b - a for a, b in zip(scale, scale[1:], strict=False)]
    assert max(steps) == pytest.approx(min(steps), rel=1e-6)
    assert all(axis.holds(v) for v in grid)


def test_a_grid_of_two_keys_has_every_pair_once():
    points = grid_of([parse_axis("lr0=log:1e-3:1e-1:3"), parse_axis("optimizer=sgd|adamw")])
    assert len(points) == 6 == len({tuple(p.items()) for p in points})
    with pytest.raises(UserError, match="number of points"):
        grid_of([parse_axis("lr0=log:1e-3:1e-1")])


def test_settings_inside_and_outside():
    axes = [parse_axis("lr0=log:1e-4:1e-1"), parse_axis("optimizer=sgd|adamw")]
    assert settings_of(axes, Hyp(lr0=0.01, optimizer="sgd")) == {"lr0": 0.01, "optimizer": "sgd"}
    assert settings_of(axes, Hyp(lr0=0.5, optimizer="sgd")) is None
    assert settings_of(usual_space(Hyp()), Hyp()) is not None


def test_the_last_word_on_a_key_counts():
    assert [a.word for a in join([parse_axis("lr0=1e-3:1e-2"), parse_axis("lr0=1e-3:1e-1")])] == ["0.001:0.1"]


def test_spaces_of_ultralytics_and_yolov5_are_read(tmp_path):
    ours = {"lr0": (1e-5, 0.1, True), "momentum": (0.6, 0.98, False), "hsv_h": (0.0, 0.1, False)}
    files = {
        "ultralytics.yaml": "lr0: [1.0e-5, 0.1, 1.0]\nmomentum: [0.6, 0.98, 0.3]\nhsv_h: [0.0, 0.1]\n",
        "yolov5.yaml": "lr0: [1, 1.0e-5, 0.1]\nmomentum: [0.3, 0.6, 0.98]\nhsv_h: [1, 0.0, 0.1]\n"
        "anchor_t: [1, 2.0, 8.0]\nanchors: [2, 2.0, 10.0]\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
        axes, point, notes = read_space(tmp_path / name)
        searched = ours | ({"anchor_t": (2.0, 8.0, False)} if "anchor_t" in text else {})
        assert {a.key: (a.low, a.high, a.log) for a in axes} == searched and not point
    assert any("not searched" in note and "anchors" in note for note in notes)
    (tmp_path / "own.yaml").write_text("lr0: log:1e-4:1e-1\noptimizer: [sgd, adamw]\nimgsz: 640\n")
    axes, _, notes = read_space(tmp_path / "own.yaml")
    assert [a.word for a in axes] == ["log:0.0001:0.1", "sgd|adamw"] and "imgsz" in notes[0]
    (tmp_path / "mixed.yaml").write_text("lr0: [1, 1.0e-5, 0.1]\nmomentum: [0.6, 0.98, 0.3]\n")
    with pytest.raises(UserError, match="in all lines alike"):
        read_space(tmp_path / "mixed.yaml")


def test_tables_of_a_search_give_the_range_they_cover_and_their_best_row(tmp_path):
    tables = {
        "tune_results.csv": "fitness,lr0,momentum\n0.2,0.01,0.9\n0.5,0.002,0.95\n0.1,0.03,0.9\n",
        "evolve.csv": "  metrics/precision, metrics/mAP_0.5:0.95, val/box_loss, lr0, momentum, obj_x\n"
        "0.1, 0.2, 1, 0.01, 0.9, 1\n0.2, 0.5, 1, 0.002, 0.95, 1\n0.3, 0.1, 1, 0.03, 0.9, 1\n",
    }  # fmt: skip
    for name, text in tables.items():
        (tmp_path / name).write_text(text)
        axes, point, _ = read_space(tmp_path / name)
        assert {a.key: (a.low, a.high) for a in axes} == {"lr0": (0.002, 0.03), "momentum": (0.9, 0.95)}
        assert point == {"lr0": 0.002, "momentum": 0.95}
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="no table of a search"):
        read_space(tmp_path / "other.csv")
    with pytest.raises(UserError, match="no such file"):
        read_space(tmp_path / "absent.yaml")
