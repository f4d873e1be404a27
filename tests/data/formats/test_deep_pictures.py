"""Pictures of 10, 12 and 14 bits in 16-bit files: as bright as their camera meant them, wherever they are read."""

import io
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

import detect
import val
from data.definition.dataset_yaml import load_dataset_yaml
from data.formats.header import read_header
from data.index.index import Index, build_index
from data.loading.dataset import EvalDataset, TrainDataset
from data.pictures.cache import open_pictures
from data.pictures.decode import load_picture
from data.scored import with_white
from data.sources.depth import Depth, white_lines
from models.detector import load_for_eval
from models.weights.save import save_weights
from tests.helpers.runs import TOY_NAMES, guesser
from utils.config.schema import Hyp

EIGHT = np.linspace(0, 255, 64 * 64).astype(np.uint8).reshape(64, 64)  # every level, the darkest and the brightest


def stored_as(bits: int, colour: bool) -> np.ndarray:
    """The picture as a camera of so many bits writes it into 16, its lowest bits noise."""
    noise = np.random.default_rng(0).integers(0, 1 << (bits - 8), EIGHT.shape)
    deep = ((EIGHT.astype(np.uint16) << (bits - 8)) | noise).astype(np.uint16)
    return np.stack([deep, deep[::-1], deep[:, ::-1]], 2) if colour else deep


def content_of(name: str, values: np.ndarray) -> bytes:
    if name.endswith(".jp2"):  # without loss
        out = io.BytesIO()
        Image.fromarray(values).save(out, "JPEG2000")
        return out.getvalue()
    return cv2.imencode(Path(name).suffix, values)[1].tobytes()


def dataset(root: Path, train: dict[str, bytes], val: dict[str, bytes]) -> Path:
    for split, files in (("train", train), ("val", val)):
        for folder in ("images", "labels"):
            (root / folder / split).mkdir(parents=True)
        for name, content in files.items():
            (root / "images" / split / name).write_bytes(content)
            (root / "labels" / split / name).with_suffix(".txt").write_text("0 0.5 0.5 0.4 0.4\n")
    path = root / "data.yaml"
    path.write_text(f"train: images/train\nval: images/val\nnames: {TOY_NAMES}\n")
    return path


def indexes(path: Path) -> tuple[Index, Index]:
    config = load_dataset_yaml(path)
    return build_index(config, "train"), build_index(config, "val")


def settled(train: Index, val: Index, **given: object) -> Hyp:
    return with_white(Hyp(imgsz=64, epochs=1, mosaic=0.0, **given), train.depth, val.depth)


@pytest.mark.parametrize("name", ["a.png", "a.tiff", "a.pgm", "a.ppm", "a.jp2"])
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_every_format_and_number_of_bits_gives_the_eight_bit_picture(tmp_path, name, bits):
    values = stored_as(bits, colour=name not in ("a.pgm", "a.jp2"))
    if bits == 8:
        values = values.astype(np.uint16)
    content = content_of(name, values)
    train, val = indexes(dataset(tmp_path, {name: content}, {name: content}))
    assert train.depth.top == read_header(train.paths[0]).top == values.max()
    hyp = settled(train, val)
    assert hyp.white_level == (1 << bits) - 1
    picture = load_picture(train.paths[0], (64, 64), 64, white=hyp.white_level)
    truth = (values >> (bits - 8)).astype(np.uint8)
    np.testing.assert_array_equal(picture, truth if truth.ndim == 3 else np.stack([truth] * 3, 2))


def test_netpbm_says_itself_what_is_white(tmp_path):
    twelve = stored_as(12, colour=False)
    content = b"P5\n# a comment\n64 64\n4095\n" + twelve.astype(">u2").tobytes()
    (tmp_path / "a.pgm").write_bytes(content)
    picture = load_picture(str(tmp_path / "a.pgm"), (64, 64), 64)
    assert np.abs(picture[..., 0].astype(int) - EIGHT).max() <= 1
    with Image.open(tmp_path / "a.pgm") as img:
        assert np.abs(picture[..., 0].astype(int) - (np.asarray(img) >> 8)).max() <= 1


@pytest.mark.parametrize("exif", range(1, 9))
def test_deep_tiffs_are_turned_as_their_exif_says(tmp_path, exif):
    values = stored_as(12, colour=False)[:48]
    tags = Image.Exif()
    tags[0x0112] = exif
    Image.fromarray(values).save(tmp_path / "a.tif", exif=tags)
    Image.fromarray((values >> 4).astype(np.uint8)).save(tmp_path / "b.tif", exif=tags)
    hw = read_header(str(tmp_path / "a.tif")).shape
    ours, eight = (load_picture(str(tmp_path / name), hw, 64, white=4095) for name in ("a.tif", "b.tif"))
    np.testing.assert_array_equal(ours, eight)


def test_white_is_one_value_for_dark_and_bright_pictures_of_train_and_val(tmp_path):
    """A dark picture stays dark beside a bright one, a picture of 8 bits stays as it is, whoever reads them."""
    bright, dark = stored_as(12, False), stored_as(12, False) // 16
    files = {"bright.png": content_of("a.png", bright), "eight.png": content_of("a.png", EIGHT)}
    train, val = indexes(dataset(tmp_path, files, {"dark.png": content_of("a.png", dark)}))
    assert val.depth.white == 255 and train.depth.white == 4095
    hyp = settled(train, val)
    assert hyp.white_level == 4095
    truth = {"bright.png": EIGHT, "eight.png": EIGHT, "dark.png": dark >> 4}
    for index in (train, val):
        for cache in ("off", "ram", "disk"):
            pictures = open_pictures(index, 64, cache, False, white=hyp.white_level)
            for i, path in enumerate(index.paths):
                np.testing.assert_array_equal(pictures[i][..., 0], truth[Path(path).name])
    sample = TrainDataset(train, hyp.model_copy(update={"scale": 0.0, "translate": 0.0, "fliplr": 0.0} | NO_HSV), 64)
    levels = {tuple(np.unique(sample[0, p]["img"][0])) for p in range(2)}
    assert levels == {tuple(np.unique(EIGHT))}
    assert EvalDataset(val, 64, 32, 1, white=hyp.white_level)[0]["img"].max() in (dark.max() >> 4, 114)


NO_HSV = {"hsv_h": 0.0, "hsv_s": 0.0, "hsv_v": 0.0}


@pytest.mark.parametrize(("kind", "scale", "white"), [("f4", 1 / 255, 1), ("f4", 16, 4095), ("i4", 16, 4095)])
def test_floats_and_32_bits_have_one_white_too(tmp_path, kind, scale, white):
    """By its own range the dark picture would be as bright as the other."""
    contents = []
    for values in (EIGHT, EIGHT // 8):
        out = io.BytesIO()
        Image.fromarray((values * np.float64(scale)).astype(kind)).save(out, "TIFF")
        contents.append(out.getvalue())
    train, val = indexes(dataset(tmp_path, {"bright.tif": contents[0]}, {"dark.tif": contents[1]}))
    hyp = settled(train, val)
    assert hyp.white_level == white
    for index, truth in ((train, EIGHT), (val, EIGHT // 8)):
        picture = load_picture(index.paths[0], (64, 64), 64, white=hyp.white_level)[..., 0]
        assert np.abs(picture.astype(int) - truth).max() <= 1


def test_two_levels_do_not_share_a_file_of_decoded_pictures(tmp_path):
    content = content_of("a.png", stored_as(12, False))
    train, _ = indexes(dataset(tmp_path, {"a.png": content}, {"b.png": content}))
    one, other = (open_pictures(train, 64, "disk", False, white=white) for white in (4095, 65535))
    assert one.file != other.file and one[0].max() == 255 and other[0].max() == 15


def test_white_as_it_is_given_and_outliers_that_would_darken_everything():
    tops = np.array([0] * 5 + [4000] * 19 + [65535], np.float32)
    depth = Depth.of(tops)
    assert depth.white == 65535 and sum(depth.counts) == 20
    said = " ".join(white_lines([depth]))
    assert "20 pictures" in said and "65535 (16 bits)" in said
    assert "only 1 of them exceed 4095 (12 bits)" in said and "--white-level 4095" in said
    assert "4095 (12 bits), given" in " ".join(white_lines([depth], 4095))
    assert white_lines([Depth()]) == [] and Depth().white is None
    assert with_white(Hyp(epochs=1, white_level=1023.0), depth).white_level == 1023
    assert with_white(Hyp(epochs=1), Depth()).white_level is None


def test_val_and_detect_take_the_level_of_the_weights(tmp_path, capsys):
    """With it they find in 12-bit pictures what they find in the same pictures of 8 bits; detect.py has to be told."""
    rng = np.random.default_rng(0)
    eight = [cv2.resize(rng.integers(0, 256, (6, 6, 3), np.uint8), (64, 64)) for _ in range(3)]
    deep = [(picture.astype(np.uint16) << 4) | 15 for picture in eight]
    deep[0][0, 0], deep[0][0, 1] = 4095, 0
    eight[0][0, 0], eight[0][0, 1] = 255, 0
    sets = {}
    for name, pictures in (("eight", eight), ("deep", deep)):
        files = {f"{k}.png": content_of("a.png", picture) for k, picture in enumerate(pictures)}
        sets[name] = dataset(tmp_path / name, files, files)
    model = load_for_eval(str(guesser()))
    words = ["--imgsz", "64", "--conf", "0.001", "--device", "cpu", "--project", str(tmp_path)]
    weights = {}
    for name, args in (("told", {"white_level": 4095.0}), ("plain", {})):
        weights[name] = tmp_path / f"{name}.pt"
        save_weights(weights[name], model, TOY_NAMES, args, 0, {})
    found = {}
    for name, source, told in (("a", "eight", "plain"), ("b", "deep", "told"), ("c", "deep", "plain")):
        folder = tmp_path / source / "images/val"
        detect.main(["--weights", str(weights[told]), "--source", str(folder), "--name", name, "--nosave", *words])
        found[name] = json.loads((tmp_path / name / "predictions.json").read_text())
    assert found["a"] == found["b"] and found["a"] != found["c"]
    for name in ("eight", "deep"):
        more = ["--data", str(sets[name]), "--name", f"val-{name}", "--noplots", "--workers", "0"]
        val.main(["--weights", str(weights["plain"]), *more, *words])
    assert "6 pictures have more than 8 bits a channel: white_level 4095 (12 bits)" in capsys.readouterr().out
    rows = [json.loads((tmp_path / f"val-{name}/predictions.json").read_text()) for name in ("eight", "deep")]
    assert rows[0] == rows[1]
