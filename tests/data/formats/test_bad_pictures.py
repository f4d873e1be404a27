"""Odd and broken picture files: what can be decoded arrives as Pillow sees it, the rest is named and left out."""

import io
import re
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from data.definition.dataset_yaml import load_dataset_yaml
from data.formats.header import ORIENTATION
from data.index.index import Index, build_index
from data.pictures.decode import load_picture
from utils.env import REPO

rng = np.random.default_rng(0)
PIXELS = cv2.resize(rng.integers(0, 256, (6, 8, 3), np.uint8), (80, 60), interpolation=cv2.INTER_CUBIC)
RGB = Image.fromarray(PIXELS)
DEEP = (np.arange(4800).reshape(60, 80) * 13).astype(np.uint16)  # 0..62387


def saved(img: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    img.save(out, kind, **options)
    return out.getvalue()


def with_alpha(img: Image.Image) -> Image.Image:
    """Half transparent, half not: the colours under the alpha are the picture."""
    img = img.convert("RGBA")
    img.putalpha(Image.fromarray(np.tile(np.linspace(0, 255, 80).astype(np.uint8), (60, 1))))
    return img


def turned(img: Image.Image, how: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION] = how
    return exif


def dataset(root: Path, files: dict[str, bytes]) -> Index:
    """The index of one good picture and these files, each with the same label."""
    for folder in ("images", "labels"):
        (root / folder).mkdir()
    for name, content in ({"good.jpg": saved(RGB, "JPEG")} | files).items():
        (root / "images" / name).write_bytes(content)
        (root / "labels" / name).with_suffix(".txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (root / "data.yaml").write_text("train: images\nval: images\nnames: [cat]\n")
    return build_index(load_dataset_yaml(root / "data.yaml"), "train")


ODD = {
    "grey.jpg": saved(RGB.convert("L"), "JPEG"),
    "cmyk.jpg": saved(RGB.convert("CMYK"), "JPEG", quality=95),
    "cmyk.tif": saved(RGB.convert("CMYK"), "TIFF"),
    "bits.png": saved(RGB.convert("1"), "PNG"),
    "bits.bmp": saved(RGB.convert("1"), "BMP"),
    "bits.tif": saved(RGB.convert("1"), "TIFF"),
    "palette.png": saved(RGB.convert("P"), "PNG"),
    "palette-clear.png": saved(RGB.convert("P"), "PNG", transparency=0),
    "palette.gif": saved(RGB.convert("P"), "GIF", transparency=3),
    "alpha.png": saved(with_alpha(RGB), "PNG"),
    "alpha.webp": saved(with_alpha(RGB), "WEBP", lossless=True, exact=True),
    "alpha.tif": saved(with_alpha(RGB), "TIFF"),
    "alpha.gif": saved(with_alpha(RGB), "GIF"),
    "grey-alpha.png": saved(with_alpha(RGB).convert("LA"), "PNG"),
    "moving.gif": saved(RGB, "GIF", save_all=True, append_images=[ImageOps.invert(RGB)] * 2),
    "moving.webp": saved(RGB, "WEBP", lossless=True, save_all=True, append_images=[ImageOps.invert(RGB)] * 2),
    "moving.png": saved(RGB, "PNG", save_all=True, append_images=[ImageOps.invert(RGB)] * 2),
    "pages.tif": saved(RGB, "TIFF", save_all=True, append_images=[ImageOps.invert(RGB)] * 2),
    "packed.tif": saved(RGB, "TIFF", compression="tiff_lzw"),
    "a.jp2": saved(RGB, "JPEG2000"),
    "dot.png": saved(RGB.resize((1, 1)), "PNG"),
    "dot.jpg": saved(RGB.resize((1, 1)), "JPEG"),
    "long.jpg": saved(RGB.resize((4000, 8)), "JPEG"),
    "long.png": saved(RGB.resize((8, 4000)), "PNG"),
    "named-png.jpg": saved(RGB, "PNG"),
    "named-jpg.png": saved(RGB, "JPEG"),
    "trailer.jpg": saved(RGB, "JPEG") + b"left by a camera" * 20,
    "bad-exif.jpg": saved(RGB, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff"),
    "bad-exif.png": saved(RGB, "PNG", exif=b"not EXIF at all"),
    **{f"turned-{k}.jpg": saved(RGB, "JPEG", exif=turned(RGB, k)) for k in range(2, 9)},
    **{f"turned-{k}.png": saved(RGB, "PNG", exif=turned(RGB, k)) for k in (3, 6)},
    **{f"turned-{k}.webp": saved(RGB, "WEBP", lossless=True, exif=turned(RGB, k)) for k in (3, 8)},
    **{f"turned-{k}.tif": saved(RGB, "TIFF", exif=turned(RGB, k)) for k in (3, 6, 7)},
    **{f"square-{k}.jpg": saved(RGB.resize((64, 64)), "JPEG", exif=turned(RGB, k)) for k in (5, 6)},
    "square-6.tif": saved(RGB.resize((64, 64)), "TIFF", exif=turned(RGB, 6)),
}
if "AVIF" in Image.SAVE or Image.init() and "AVIF" in Image.SAVE:
    ODD |= {f"turned-{k}.avif": saved(RGB, "AVIF", quality=90, exif=turned(RGB, k)) for k in (1, 3, 6)}


@pytest.mark.parametrize("name", ODD)
def test_odd_pictures_arrive_as_pillow_sees_them(tmp_path, name):
    index = dataset(tmp_path, {name: ODD[name]})
    assert not index.problems and index.n == 2
    row = [Path(p).name for p in index.paths].index(name)
    hw = tuple(index.shapes[row].tolist())
    img = load_picture(index.paths[row], hw, max(hw))
    assert img.dtype == np.uint8 and img.shape == (*hw, 3) and img.flags.c_contiguous
    with Image.open(io.BytesIO(ODD[name])) as truth:
        try:
            upright = ImageOps.exif_transpose(truth)
        except Exception:  # the damaged EXIF
            upright = truth
        theirs = np.asarray(upright.convert("RGB"))[..., ::-1]
    assert img.shape == theirs.shape
    assert np.abs(img.astype(int) - theirs).max() <= 1  # the two round CMYK differently
    for imgsz in (32, 640):
        assert max(load_picture(index.paths[row], hw, imgsz, reduce=True).shape) == imgsz


DEEP_RGB = np.stack([DEEP, DEEP[::-1], DEEP[:, ::-1]], 2)
EIGHT = (DEEP >> 8).astype(np.uint8)


@pytest.mark.parametrize(
    ("name", "content", "truth"),
    [
        ("grey.png", saved(Image.fromarray(DEEP), "PNG"), EIGHT),
        ("grey.tif", saved(Image.fromarray(DEEP), "TIFF"), EIGHT),
        ("turned.tif", saved(Image.fromarray(DEEP), "TIFF", exif=turned(RGB, 6)), np.rot90(EIGHT, -1)),
        ("colour.png", cv2.imencode(".png", DEEP_RGB)[1].tobytes(), (DEEP_RGB >> 8).astype(np.uint8)),
        ("colour.tif", cv2.imencode(".tiff", DEEP_RGB)[1].tobytes(), (DEEP_RGB >> 8).astype(np.uint8)),
        ("long.tif", saved(Image.fromarray(DEEP.astype(np.int32)), "TIFF"), EIGHT),
        ("float.tif", saved(Image.fromarray((DEEP / 65535).astype(np.float32)), "TIFF"), EIGHT),
        ("bytes.tif", saved(Image.fromarray(EIGHT.astype(np.float32)), "TIFF"), EIGHT),
    ],
)
def test_deep_pictures_are_scaled_not_clipped(tmp_path, name, content, truth):
    index = dataset(tmp_path, {name: content})
    assert not index.problems
    row = [Path(p).name for p in index.paths].index(name)
    img = load_picture(index.paths[row], tuple(index.shapes[row].tolist()), 80)
    assert np.abs(img.astype(int) - truth.reshape(*truth.shape[:2], -1)).max() <= 1


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def test_exif_behind_the_pixels_of_a_png(tmp_path):
    content = saved(RGB, "PNG")
    end = content.index(b"IEND") - 4
    exif = turned(RGB, 6).tobytes().removeprefix(b"Exif\0\0")
    index = dataset(tmp_path, {"a.png": content[:end] + chunk(b"eXIf", exif) + content[end:]})
    assert index.shapes[0].tolist() == [80, 60]
    np.testing.assert_array_equal(load_picture(index.paths[0], (80, 60), 80), np.rot90(PIXELS, -1)[..., ::-1])


def bomb() -> bytes:
    """A PNG of 20,000 x 20,000 pixels in some 50 KB."""
    packer = zlib.compressobj(9)
    row = bytes(1 + 20000 // 8)
    pixels = b"".join(packer.compress(row) for _ in range(20000)) + packer.flush()
    header = struct.pack(">IIBBBBB", 20000, 20000, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


NOISE = Image.effect_noise((80, 60), 50)
BROKEN = {
    "truncated.jpg": (saved(NOISE, "JPEG")[:-700], "truncated"),
    "truncated.png": (saved(NOISE, "PNG")[:-700], "truncated"),
    "truncated.gif": (saved(NOISE, "GIF")[:-700], "."),
    "truncated.bmp": (saved(NOISE, "BMP")[:-700], "truncated"),
    "truncated.webp": (saved(NOISE, "WEBP", lossless=True)[:-700], "."),
    "truncated.tif": (saved(NOISE, "TIFF")[:-700], "."),
    "header-only.png": (saved(NOISE, "PNG")[:33], "damaged"),
    "empty.jpg": (b"", "the file is empty"),
    "page.jpg": (b"<!DOCTYPE html><html>404 Not Found</html>", "text, not a picture.*<!DOCTYPE html>"),
    "text.jpg": (b"version https://git-lfs.github.com/spec/v1\noid sha256:12", "."),
    "garbage.jpg": (bytes(range(256)) * 4, "no picture of a known format"),
    "script.jpg": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 80 60\nshowpage\n", "text, not a picture"),
    "bomb.png": (bomb(), "400000000 pixels.*too large.*Make it smaller"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_pictures_are_left_out_and_named(tmp_path, name):
    content, words = BROKEN[name]
    index = dataset(tmp_path, {name: content})
    assert [Path(p).name for p in index.paths] == ["good.jpg"]
    (problem,) = index.problems
    assert problem.path.endswith(name) and re.search(f"(?s){words}", problem.message)


def test_a_folder_named_like_a_picture_is_walked_through(tmp_path):
    dataset(tmp_path, {})
    (tmp_path / "images/x.jpg").mkdir()
    (tmp_path / "images/x.jpg/inside.png").write_bytes(saved(RGB, "PNG"))
    index = build_index(load_dataset_yaml(tmp_path / "data.yaml"), "train")
    assert [Path(p).name for p in index.paths] == ["good.jpg", "inside.png"] and not index.problems


def test_an_absent_picture_of_a_list_is_named(tmp_path):
    dataset(tmp_path, {})
    (tmp_path / "list.txt").write_text("images/good.jpg\nimages/gone.jpg\n")
    (tmp_path / "data.yaml").write_text("train: list.txt\nnames: [cat]\n")
    index = build_index(load_dataset_yaml(tmp_path / "data.yaml"), "train")
    assert index.n == 1 and "no such file" in index.problems[0].message


def test_two_pictures_with_one_stem_are_said(tmp_path):
    index = dataset(tmp_path, {"good.png": saved(RGB, "PNG"), "good.k.jpg": saved(RGB, "JPEG")})
    (problem,) = index.problems
    assert index.n == 3 and "good.jpg" in str(problem) and "good.png" in str(problem) and "good.txt" in str(problem)


def test_a_bomb_is_refused_in_little_memory(tmp_path):
    (tmp_path / "bomb.png").write_bytes(bomb())
    code = """
import resource, sys
from pathlib import Path
from PIL import Image
from data.formats.header import picture_shape
from data.pictures.decode import load_picture
from utils.errors import UserError
Image.MAX_IMAGE_PIXELS = {limit}
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert picture_shape(sys.argv[1])[0] is None
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    for limit in (10**7, None):  # a library may have taken Pillow's own guard away
        command = [sys.executable, "-c", code.format(limit=limit), str(tmp_path / "bomb.png")]
        grown = int(subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=True).stdout)
        assert grown < 30 * 1024  # KB; its pixels would take 50 MB as bits and 1.2 GB as BGR
