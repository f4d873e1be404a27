"""The toy datasets: the same everywhere, exact boxes, and safe to draw from several processes."""

import multiprocessing
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from data.toy import draw as toy

COUNTS = {"train": 24, "val": 6}
WORLDS = sorted(toy.WORLDS)


def files_of(root: Path) -> dict[str, bytes]:
    """Every file under `root`, by its path in it."""
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def scenes(name: str, n: int) -> list:
    """The first pictures of a world with the things on them."""
    world = toy.WORLDS[name]
    return [toy.compose(world, np.random.default_rng([world.seed, 0, i])) for i in range(n)]


@pytest.fixture(scope="module", params=WORLDS)
def drawn(request, tmp_path_factory) -> tuple[str, Path]:
    """A world's name and the folder it is drawn in."""
    root = tmp_path_factory.mktemp(request.param) / "v1"
    toy.draw(request.param, root, COUNTS)
    return request.param, root


def test_layout_and_counts(drawn):
    _, root = drawn
    for split, n in COUNTS.items():
        stems = [f"{i:04d}" for i in range(n)]
        assert sorted(p.name for p in (root / "images" / split).iterdir()) == [f"{s}.jpg" for s in stems]
        assert sorted(p.name for p in (root / "labels" / split).iterdir()) == [f"{s}.txt" for s in stems]
    assert [p.name for p in root.parent.iterdir()] == ["v1"]  # nothing left over


def test_a_second_drawing_is_equal_byte_for_byte(drawn, tmp_path):
    name, root = drawn
    toy.draw(name, tmp_path / "again", COUNTS)
    assert files_of(tmp_path / "again") == files_of(root)


def test_fewer_pictures_are_the_first_of_many(drawn, tmp_path):
    name, root = drawn
    toy.draw(name, tmp_path / "few", {"train": 3})
    many = files_of(root)
    assert all(many[path] == content for path, content in files_of(tmp_path / "few").items())


def test_splits_and_pictures_differ(drawn):
    _, root = drawn
    pictures = [content for path, content in files_of(root).items() if path.endswith(".jpg")]
    assert len(set(pictures)) == len(pictures) == sum(COUNTS.values())


def test_rows_are_within_range(drawn):
    name, root = drawn
    rows = np.loadtxt([line for p in root.glob("labels/*/*.txt") for line in p.open()], ndmin=2)
    assert set(rows[:, 0]) <= set(range(len(toy.WORLDS[name].shapes)))
    assert (rows[:, 3:] > 0).all()
    assert (rows[:, 1:3] - rows[:, 3:] / 2 > -2e-6).all() and (rows[:, 1:3] + rows[:, 3:] / 2 < 1 + 2e-6).all()


def test_an_existing_drawing_is_left_alone(drawn):
    name, root = drawn
    before = {p: p.stat().st_mtime_ns for p in root.rglob("*")}
    toy.draw(name, root, {"train": 1})
    assert {p: p.stat().st_mtime_ns for p in root.rglob("*")} == before


def test_a_folder_of_something_else_is_not_overwritten(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(OSError):
        toy.draw("target", tmp_path, {"train": 1})
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("name", WORLDS)
def test_boxes_are_the_tight_bounds_of_the_masks_seen_well_enough(name):
    labelled = hidden = 0
    for picture, things in scenes(name, 40):
        expected = []
        for i, thing in enumerate(things):
            on_top = [t.mask for t in things[i + 1 :]]
            seen = thing.mask & ~np.any(on_top, axis=0) if on_top else thing.mask
            assert thing.mask.shape == picture.shape[:2] and thing.mask.sum() <= thing.pixels
            if thing.cls >= 0 and seen.sum() >= 0.4 * thing.pixels:
                expected.append((thing.cls, *cv2.boundingRect(thing.mask.astype(np.uint8))))
            hidden += thing.cls >= 0 and seen.sum() < 0.4 * thing.pixels
        rows = np.array(toy.label_rows(things)).reshape(-1, 5)
        h, w = picture.shape[:2]
        size = rows[:, 3:] * (w, h)
        pixels = np.hstack([rows[:, :1], rows[:, 1:3] * (w, h) - size / 2, size])
        np.testing.assert_allclose(pixels, np.array(expected).reshape(-1, 5), atol=1e-6)
        labelled += len(expected)
    assert labelled > 100 and hidden > 0  # both sides of the rule were met


@pytest.mark.parametrize("name", WORLDS)
def test_a_silhouette_fits_in_its_patch(name):
    world = toy.WORLDS[name]
    for seed in range(10):
        rng = np.random.default_rng(seed)
        cover = toy.silhouette(rng, list(world.shapes.values())[seed % len(world.shapes)], 20)
        assert cover[[0, -1]].max() == cover[:, [0, -1]].max() == 0  # nothing is cut off by its own patch
        assert 0.05 < (cover >= 128).mean() < 0.6


def test_target_has_empty_pictures_small_objects_and_several_sizes():
    pictures = scenes("target", 100)
    rows = [toy.label_rows(things) for _, things in pictures]
    sides = [max(r[3] * p.shape[1], r[4] * p.shape[0]) for (p, _), rs in zip(pictures, rows, strict=True) for r in rs]
    assert 2 <= sum(not any(t.cls >= 0 for t in things) for _, things in pictures) <= 20
    assert min(sides) < 16 and max(sides) > 60
    assert {p.shape for p, _ in pictures} == {(160, 160, 3), (120, 160, 3), (160, 120, 3)}


def test_two_processes_at_once_make_one_drawing(drawn, tmp_path):
    name, root = drawn
    spawn = multiprocessing.get_context("spawn")
    both = [spawn.Process(target=toy.draw, args=(name, tmp_path / "v1", COUNTS)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
    assert [process.exitcode for process in both] == [0, 0]
    assert files_of(tmp_path / "v1") == files_of(root)
    assert [p.name for p in tmp_path.iterdir()] == ["v1"]


@pytest.mark.parametrize("name", WORLDS)
def test_the_yaml_names_the_classes_drawn(name):
    config = yaml.safe_load((Path(toy.__file__).parent / f"toy-{name}.yaml").read_text())
    assert config["names"] == list(toy.WORLDS[name].shapes)
    assert {f"images/{split}" for split in toy.WORLDS[name].counts} == {config["train"], config["val"]}
