"""Every figure is written for one class and many, one epoch and many, and nothing at all."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from utils.drawing.figure import font_of, new_figure, plain, readable
from utils.drawing.sheet import COLOURS, batch_sheet, picture_sheet, save_sheet
from utils.evaluation.plots import plot_confusion, plot_f1, plot_pr
from utils.run.plots import plot_labels, plot_losses, plot_map, plot_rates, to_table


def is_picture(path: Path) -> bool:
    """A PNG of sensible size in which something was drawn."""
    pixels = np.asarray(Image.open(path).convert("L"))
    return min(pixels.shape) > 200 and pixels.std() > 1


@pytest.mark.slow
@pytest.mark.parametrize("nc", [0, 1, 5, 80])
def test_figures_of_an_evaluation(tmp_path, nc):
    rng = np.random.default_rng(0)
    names = [f"class {c}" for c in range(max(nc, 1))]
    precision = np.full((101, len(names)), np.nan)
    precision[:, :nc] = np.sort(rng.random((101, nc)), 0)[::-1]
    plot_pr(precision, names, tmp_path / "pr.png")
    f1 = np.sort(rng.random((nc, 1000)))  # unsorted, the noise of 80 lines would take a second to draw
    plot_f1(np.linspace(0, 1, 1000), f1, names[:nc], tmp_path / "f1.png", best=300)
    plot_confusion(rng.integers(0, 9, (len(names) + 1,) * 2) * min(nc, 1), names, tmp_path / "confusion.png")
    boxes = rng.random((nc * 10, 4))
    plot_labels(np.repeat(np.arange(nc), 10), boxes, names, tmp_path / "labels.png")
    assert all(is_picture(tmp_path / f"{name}.png") for name in ("pr", "f1", "confusion", "labels"))


@pytest.mark.parametrize("epochs", [0, pytest.param(1, marks=pytest.mark.slow), 50])
def test_figures_of_a_run(tmp_path, epochs):
    rows = [{"epoch": 0, "val/mAP50-95": 0.1, "val/mAP50": 0.2}]  # before training there is no loss
    rows += [{"epoch": e, "train/box": 1 / e, "train/cls": 2 / e, "train/dfl": 1.0} for e in range(1, epochs + 1)]
    rows = [row | ({"val/box": 1.5} if row["epoch"] % 2 else {}) for row in rows]  # not evaluated each epoch
    table = to_table(rows)
    plot_losses(table, tmp_path / "losses.png")
    plot_map(table, tmp_path / "map.png")
    ni = np.arange(epochs * 3 or 1)
    rates = {
        "ni": ni,
        "lr/bias": 0.1 - ni / 2000,
        "lr/norm": ni / 1500,
        "lr/weight": ni / 1500,
        "momentum": ni * 0 + 0.9,
    }
    plot_rates(rates | {"accumulate": 1 + ni // 10}, tmp_path / "rates.png", nw=epochs)
    assert all(is_picture(tmp_path / f"{name}.png") for name in ("losses", "map", "rates"))


def test_missing_cells_become_nan():
    table = to_table([{"epoch": 0, "a": 1.0}, {"epoch": 1}])
    assert table["epoch"].tolist() == [0, 1] and table["a"][0] == 1 and np.isnan(table["a"][1])


def test_a_box_is_drawn_where_it_is_in_the_colour_of_its_class():
    images = np.zeros((2, 3, 50, 100), np.uint8)
    boxes = [np.array([[50, 20, 90, 40.0]]), np.zeros((0, 4))]
    sheet = picture_sheet(images, boxes, [np.array([1]), np.zeros(0)], ["a", "b"], cell=100, columns=1)
    assert sheet.dtype == np.uint8 and sheet.shape[2] == 3
    where = np.argwhere((sheet == COLOURS[1]).all(-1))
    frame = sheet[6:56, 6:106]  # the first picture, inside its margin
    assert (frame[20:41, 50:52] == COLOURS[1]).all() and (frame[39:41, 50:91] == COLOURS[1]).all()
    assert where[:, 0].max() < 56  # nothing in the second


def test_sheets_take_pictures_of_different_shapes_scores_and_captions(tmp_path):
    images = [np.zeros((3, 40, 80), np.uint8), np.full((3, 90, 30), 200, np.uint8), np.zeros((3, 8, 8), np.uint8)]
    boxes = [np.array([[-5, -5, 200, 200.0]]), np.array([[3, 3, 2, 2.0], [0, 80, 30, 90]]), np.zeros((0, 4))]
    classes = [np.array([0]), np.array([0, 81]), np.zeros(0)]
    scores = [None, np.array([0.5, 0.25]), np.zeros(0)]
    names = [f"ñame {c}" for c in range(82)]
    sheet = picture_sheet(images, boxes, classes, names, scores, ["a long file name " * 9, "b", "c"], columns=2)
    save_sheet(sheet, tmp_path / "sheet.png")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "sheet.png")), sheet)
    assert picture_sheet([], [], [], []).ndim == 3


def test_batch_sheet_of_a_training_batch():
    import torch

    batch = {
        "img": torch.zeros(3, 3, 64, 64, dtype=torch.uint8),
        "cls": torch.tensor([0.0, 1.0]),
        "bboxes": torch.tensor([[0.5, 0.5, 0.5, 0.5], [0.2, 0.2, 0.1, 0.1]]),
        "batch_idx": torch.tensor([0.0, 2.0]),
    }
    sheet = batch_sheet(batch, ["a", "b"])
    assert (sheet == COLOURS[0]).all(-1).any() and (sheet == COLOURS[1]).all(-1).any()


HOSTILE = ["$x_1", "a_b$c$", r"back\slash\frac{", "{brace}", "_first", "100 %", "\u4e2d\u6587", "\U0001f600", ""]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_is_drawn_as_written(name):
    """Drawn as text of a figure it is no formula; what no font has is written as its code, and never as a box."""
    fig = new_figure(3, 2)
    ax = fig.subplots()
    ax.plot([0, 1], [0, 1], label=plain(name))
    legend = ax.legend()
    fig.draw_without_rendering()
    if name:
        (text,) = legend.get_texts()
        kept, _ = text._preprocess_math(text.get_text())
        assert kept.removeprefix("\u2009") == readable(name)
        assert all(letter.isspace() or font_of(letter) for letter in readable(name))


def test_every_picture_takes_any_names(tmp_path):
    rng, names = np.random.default_rng(0), HOSTILE[:-1]
    n = len(names)
    plot_pr(rng.random((101, n)), names, tmp_path / "pr.png")
    plot_f1(np.linspace(0, 1, 10), rng.random((n, 10)), names, tmp_path / "f1.png", 3)
    plot_confusion(rng.integers(0, 9, (n + 1, n + 1)), names, tmp_path / "confusion.png")
    plot_labels(rng.integers(0, n, 50), rng.uniform(0.1, 0.3, (50, 4)), names, tmp_path / "labels.png")
    assert all(is_picture(tmp_path / f"{name}.png") for name in ("pr", "f1", "confusion", "labels"))
    images = np.zeros((n, 3, 60, 90), np.uint8)
    boxes = [np.array([[10, 20, 60, 50.0]])] * n
    picture_sheet(images, boxes, [np.array([k]) for k in range(n)], names, captions=names)
