"""Pictures from file, disk cache and shared memory are the same bytes; every kind of file arrives as three channels."""

import pickle
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import data.cache
import data.decode
from data.cache import open_pictures
from data.decode import load_picture
from data.header import ORIENTATION, picture_shape
from data.index import Index, build_index, load_dataset_yaml
from data.paths import Paths
from utils.errors import UserError


@pytest.fixture
def index(testdata, tmp_path, monkeypatch) -> Index:
    """A few pictures of COCO128 (of several shapes), and a cache folder of their own."""
    monkeypatch.setenv("PREHEAT_CACHE", str(tmp_path / "cache"))
    whole = build_index(load_dataset_yaml(testdata / "coco128/coco128.yaml"), "train")
    return whole.take(np.arange(12))


@pytest.mark.parametrize("cache", ["disk", "ram"])
@pytest.mark.parametrize("reduce", [True, False])
def test_cached_pictures_are_the_decoded_ones(index, cache, reduce):
    plain = open_pictures(index, 96, "off", reduce)
    cached = open_pictures(index, 96, cache, reduce)
    fresh = pickle.loads(pickle.dumps(cached)) if cache == "disk" else cached  # as a worker that was not forked gets it
    for i in range(index.n):
        np.testing.assert_array_equal(plain[i], cached[i])
        np.testing.assert_array_equal(plain[i], fresh[i])
        assert max(plain[i].shape[:2]) == 96


def test_second_run_decodes_nothing(index, tmp_path, monkeypatch):
    open_pictures(index, 96, "disk", True)
    monkeypatch.setattr(data.decode, "load_picture", lambda *_: pytest.fail("decoded again"))
    open_pictures(index, 96, "disk", True)
    assert [p.suffix for p in (tmp_path / "cache/pictures").iterdir()] == [".bin"]


def test_changed_picture_is_decoded_again(tmp_path, monkeypatch):
    monkeypatch.setenv("PREHEAT_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "a.png"
    for colour in (10, 200):
        Image.new("RGB", (40, 30), (colour,) * 3).save(file)
        index = Index([str(file)], np.array([[30, 40]]), *[np.zeros(0)] * 5, ["a"], [1], [1])
        assert open_pictures(index, 32, "disk", True)[0].max() == colour


def test_failed_build_leaves_nothing(index, tmp_path):
    broken = replace(index, paths=Paths.of([*list(index.paths)[:-1], str(tmp_path / "absent.jpg")]))
    with pytest.raises(UserError, match="absent.jpg"):
        open_pictures(broken, 96, "disk", True)
    assert not list((tmp_path / "cache/pictures").iterdir())


def test_too_large_a_cache_is_refused(index, monkeypatch):
    monkeypatch.setattr(data.cache.shutil, "disk_usage", lambda _: SimpleNamespace(free=10))
    for cache in ("disk", "ram"):
        with pytest.raises(UserError, match=f"--cache {cache} needs"):
            open_pictures(index, 96, cache, True)


def test_remembered_pictures_are_not_decoded_again(index, monkeypatch):
    pictures = open_pictures(index, 96, "off", True, remember=2)
    first = pictures[0], pictures[1]
    assert pictures[0] is first[0]
    assert pictures[2] is not None and pictures[0] is first[0] and pictures[1] is not first[1]  # the oldest goes


def test_reduced_decoding_looks_the_same(tmp_path):
    y, x = np.mgrid[:480, :640]
    smooth = np.stack([x % 256 // 2, y // 2, (x + y) // 5], 2).astype(np.uint8)
    Image.fromarray(smooth).save(tmp_path / "a.jpg", quality=95)
    whole, reduced = (load_picture(str(tmp_path / "a.jpg"), (480, 640), 64, reduce=r) for r in (False, True))
    assert whole.shape == reduced.shape == (48, 64, 3) and (whole != reduced).any()
    assert np.abs(whole.astype(int) - reduced).mean() < 2


KINDS = {
    "grey.jpg": ("L", {}),
    "cmyk.jpg": ("CMYK", {}),
    "bits.png": ("1", {}),
    "palette.png": ("P", {}),
    "alpha.png": ("RGBA", {}),
    "deep.png": ("I;16", {}),
    "moving.gif": ("P", {"save_all": True, "append_images": [Image.new("P", (40, 30))]}),
    "a.bmp": ("RGB", {}),
    "a.webp": ("RGB", {}),
    "a.tif": ("RGB", {}),
}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_arrives_as_three_channels(tmp_path, name):
    mode, options = KINDS[name]
    Image.new(mode, (40, 30), 1 if mode in ("1", "P") else None or 0).save(tmp_path / name, **options)
    shape, reason = picture_shape(str(tmp_path / name))
    img = load_picture(str(tmp_path / name), shape, 80)
    assert (shape, reason) == ((30, 40), "") and img.shape == (60, 80, 3) and img.dtype == np.uint8


@pytest.mark.parametrize("rotation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("reduce", [True, False])
def test_exif_rotation_is_applied(tmp_path, rotation, suffix, reduce):
    from PIL import ImageOps

    pixels = np.zeros((120, 160, 3), np.uint8)
    pixels[:60, :80], pixels[60:, :80], pixels[:60, 80:] = (250, 0, 0), (0, 250, 0), (0, 0, 250)
    exif = Image.Exif()
    exif[ORIENTATION] = rotation
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(pixels).save(path, exif=exif, quality=95)
    with Image.open(path) as img:
        truth = np.asarray(ImageOps.exif_transpose(img).convert("RGB"))[..., ::-1]
    shape, _ = picture_shape(str(path))
    img = load_picture(str(path), shape, 40, reduce)
    assert shape == truth.shape[:2] and max(img.shape) == 40
    step = 4
    middle = np.s_[2:-2, 2:-2]
    near = np.abs(img.astype(int) - truth[step // 2 :: step, step // 2 :: step])[middle]
    assert np.median(near) < 6 and (near > 60).mean() < 0.2


def test_changed_or_broken_pictures_are_named(tmp_path):
    file = tmp_path / "a.jpg"
    Image.new("RGB", (40, 30)).save(file)
    with pytest.raises(UserError, match="a.jpg has changed: 40x30 pixels, 50x30"):
        load_picture(str(file), (30, 50), 32)
    file.write_bytes(b"nothing")
    with pytest.raises(UserError, match="a.jpg cannot be decoded"):
        load_picture(str(file), (30, 40), 32)
    Path(file).unlink()
    with pytest.raises(UserError, match="a.jpg cannot be read"):
        load_picture(str(file), (30, 40), 32)
