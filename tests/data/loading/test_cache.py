"""Pictures from file, disk cache and shared memory are the same bytes; every kind of file arrives as three channels."""

import errno
import logging
import multiprocessing
import os
import pickle
import shutil
import socket
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import data.pictures.cache_file
import data.pictures.decode
import data.pictures.room
from data.definition.dataset_yaml import load_dataset_yaml
from data.formats.header import ORIENTATION, picture_shape
from data.index.columns import Paths
from data.index.index import Index, build_index
from data.pictures.cache import open_pictures
from data.pictures.decode import load_picture
from data.pictures.letterbox import long_side_shape
from tests.helpers.ranks import on_ranks
from utils.device.ranks import Ranks
from utils.device.together import add_up
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


@pytest.fixture
def decoded(monkeypatch) -> list[str]:
    """Names of the pictures decoded from here on."""
    names, load = [], data.pictures.decode.load_picture
    monkeypatch.setattr(
        data.pictures.decode, "load_picture", lambda path, *a: names.append(Path(path).name) or load(path, *a)
    )
    return names


@pytest.fixture
def copied(index, tmp_path) -> Index:
    """The index of copies that may be changed: half the quality of a JPEG is another content of the same shape."""
    (tmp_path / "copy").mkdir()
    return replace(index, paths=Paths.of([shutil.copy(path, tmp_path / "copy") for path in index.paths]))


def kept_files(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache/pictures").iterdir())


def redraw(path: str, keep: str) -> None:
    """Give a picture other pixels; `keep`: mtime and size stay, as no honest program does it."""
    before, info = Path(path).read_bytes(), os.stat(path)
    with Image.open(path) as img:
        img.convert("RGB").point(lambda v: 255 - v).save(path, "JPEG", quality=30)
    if keep == "stamp":
        after = Path(path).read_bytes()
        assert len(after) < len(before)
        Path(path).write_bytes(after + bytes(len(before) - len(after)))
        os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))
        assert os.stat(path)[6::2] == info[6::2]


def test_second_run_decodes_nothing(index, tmp_path, decoded):
    open_pictures(index, 96, "disk", True)
    assert len(decoded) == 12
    open_pictures(index, 96, "disk", True, strict=True)
    assert len(decoded) == 12
    assert [p.suffix for p in kept_files(tmp_path)] == [".bin"]


def test_changed_picture_is_decoded_again_and_only_that(copied, tmp_path, decoded):
    first = open_pictures(copied, 96, "disk", True)
    old = first[5].copy()
    redraw(copied.paths[5], keep="nothing")
    decoded.clear()
    second = open_pictures(copied, 96, "disk", True)
    assert decoded == [Path(copied.paths[5]).name]
    for i in range(copied.n):
        np.testing.assert_array_equal(second[i], open_pictures(copied, 96, "off", True)[i])
    assert (second[5] != old).any()
    np.testing.assert_array_equal(first[5], old)  # a run under way keeps the file that it has mapped
    assert len(kept_files(tmp_path)) == 1


def test_touched_picture_is_not_decoded_again(copied, decoded, monkeypatch):
    open_pictures(copied, 96, "disk", True)
    decoded.clear()
    for path in copied.paths:
        os.utime(path, ns=(1, 1))
    pictures = open_pictures(copied, 96, "disk", True)
    assert not decoded
    np.testing.assert_array_equal(pictures[3], open_pictures(copied, 96, "off", True)[3])
    monkeypatch.setattr(data.pictures.cache_file, "digest", lambda _: pytest.fail("the stamps were not corrected"))
    open_pictures(copied, 96, "disk", True)


def test_strict_sees_a_change_that_hides_its_stamp(copied, decoded):
    open_pictures(copied, 96, "disk", True)
    redraw(copied.paths[2], keep="stamp")
    decoded.clear()
    open_pictures(copied, 96, "disk", True)
    assert not decoded
    pictures = open_pictures(copied, 96, "disk", True, strict=True)
    assert decoded == [Path(copied.paths[2]).name]
    np.testing.assert_array_equal(pictures[2], open_pictures(copied, 96, "off", True)[2])


def test_picture_of_another_shape_moves_the_others(tmp_path, monkeypatch, decoded):
    monkeypatch.setenv("PREHEAT_CACHE", str(tmp_path / "cache"))
    files = [tmp_path / f"{k}.png" for k in range(3)]
    for shapes in ([(30, 40)] * 3, [(40, 30), (30, 40), (20, 40)]):
        decoded.clear()
        for file, (h, w), colour in zip(files, shapes, (50, 100, 150), strict=True):
            if not file.exists() or Image.open(file).size != (w, h):
                Image.new("RGB", (w, h), (colour,) * 3).save(file)
        index = Index(list(map(str, files)), np.array(shapes), *[np.zeros(0)] * 5, ["a"], [1], [1])
        pictures = open_pictures(index, 32, "disk", True)
        assert [p.shape[:2] for p in (pictures[k] for k in range(3))] == [long_side_shape(s, 32) for s in shapes]
        assert [int(pictures[k].mean()) for k in range(3)] == [50, 100, 150]
    assert sorted(decoded) == ["0.png", "2.png"]


def test_damaged_file_is_made_again(index, tmp_path, decoded):
    for damage in (lambda f: os.truncate(f, 1000), lambda f: f.write_bytes(b"nothing"), lambda f: os.truncate(f, 0)):
        open_pictures(index, 96, "disk", True)
        damage(kept_files(tmp_path)[0])
        decoded.clear()
        pictures = open_pictures(index, 96, "disk", True)
        assert len(decoded) == 12
        np.testing.assert_array_equal(pictures[11], open_pictures(index, 96, "off", True)[11])


def test_failed_build_leaves_nothing(index, tmp_path):
    broken = replace(index, paths=Paths.of([*list(index.paths)[:-1], str(tmp_path / "absent.jpg")]))
    with pytest.raises(UserError, match="absent.jpg"):
        open_pictures(broken, 96, "disk", True)
    assert not kept_files(tmp_path)


def test_too_large_a_cache_is_refused(index, monkeypatch):
    monkeypatch.setattr(data.pictures.room.shutil, "disk_usage", lambda _: SimpleNamespace(free=10))
    for cache in ("disk", "ram"):
        with pytest.raises(UserError, match=f"--cache {cache} needs.*--cache-gb"):
            open_pictures(index, 96, cache, True)


def test_folder_that_cannot_be_written_is_named(index, tmp_path):
    (tmp_path / "cache").mkdir(exist_ok=True)
    (tmp_path / "cache/pictures").write_text("a file in its place")
    with pytest.raises(UserError, match=r"cannot be kept in .*pictures.*--cache off.*PREHEAT_CACHE"):
        open_pictures(index, 96, "disk", True)


def test_full_disk_is_one_message(index, tmp_path, monkeypatch):
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(data.pictures.cache_file.os, "fsync", full)
    with pytest.raises(UserError, match="No space left"):
        open_pictures(index, 96, "disk", True)
    assert not kept_files(tmp_path)


@pytest.mark.parametrize("cache", ["disk", "ram"])
def test_a_part_is_kept_when_all_do_not_fit(index, tmp_path, cache, decoded, caplog):
    caplog.set_level("INFO")
    size = open_pictures(index, 96, cache, True).nbytes
    caplog.clear()
    pictures = open_pictures(index, 96, cache, True, cache_gb=0.6 * size / 2**30)
    assert 0 < pictures.cached < 12 and pictures.nbytes <= 0.6 * size
    assert (
        sum(f"the first {pictures.cached} are kept, {12 - pictures.cached} are decoded" in m for m in caplog.messages)
        == 1
    )
    if cache == "disk":
        assert len(decoded) == 12, "what the larger file has is copied"
        assert kept_files(tmp_path)[0].stat().st_size == pictures.nbytes
    decoded.clear()
    for i in range(12):
        np.testing.assert_array_equal(pictures[i], open_pictures(index, 96, "off", True)[i])
        np.testing.assert_array_equal(pictures[i], pictures.load(i))
    assert len(decoded) == 12 + 3 * (12 - pictures.cached)
    fuller = open_pictures(index, 96, cache, True, cache_gb=0.9 * size / 2**30)
    assert fuller.cached > pictures.cached
    val = open_pictures(index, 96, cache, False, cache_gb=size / 2**30, beside=[fuller])
    assert 0 <= val.cached < fuller.cached and val.nbytes + fuller.nbytes <= size, "both count"


@pytest.mark.skipif(sys.platform != "linux", reason="memory by the number of a descriptor")
def test_ranks_of_a_machine_share_the_memory_of_the_cache(toy, tmp_path, monkeypatch, decoded):
    """Each picture is decoded once, what a rank writes the others see, and an ended torchrun leaves nothing."""
    monkeypatch.setenv("PREHEAT_CACHE", str(tmp_path / "cache"))
    index = build_index(load_dataset_yaml(toy), "train")
    left = tmp_path / f"cache/pictures/ranks-{socket.gethostname()}-{2**22 + 1}-x.txt"
    left.parent.mkdir(parents=True, exist_ok=True)
    left.write_text("/proc/0/fd/0")

    def job(ranks: Ranks) -> tuple[int, bool, int]:
        pictures, plain = open_pictures(index, 64, "ram", True), open_pictures(index, 64, "off", True)
        count = len(decoded)
        same = all(np.array_equal(pictures[i], plain[i]) for i in range(index.n))
        add_up(torch.zeros(()))
        pictures.flat[ranks.rank] = 100 + ranks.rank
        add_up(torch.zeros(()))
        return count, same, int(pictures.flat[0]) + int(pictures.flat[1])

    for _ in range(2):
        found = on_ranks(2, job)
        assert sum(count for count, _, _ in found) == index.n and all(same for _, same, _ in found)
        assert {told for _, _, told in found} == {201}
    assert not left.exists()


def test_least_recently_used_files_go_first(index, tmp_path):
    parts = [index.take(np.arange(k, k + 3)) for k in (0, 3, 6, 9)]
    pictures = [open_pictures(part, 96, "disk", True) for part in parts]
    for k, age in enumerate((30, 50, 60, 10)):
        os.utime(pictures[k].file, (1e9 - age, 1e9 - age))
    open_pictures(parts[2], 96, "disk", True)  # now used last
    whole = pictures[0].nbytes + pictures[2].nbytes + pictures[3].nbytes
    before = pictures[1][0].copy()
    gb = (whole + 1000) / 2**30
    open_pictures(parts[3], 96, "disk", True, cache_gb=gb)
    assert set(kept_files(tmp_path)) == {pictures[k].file for k in (0, 2, 3)}
    np.testing.assert_array_equal(pictures[1][0], before)  # mapped: valid without a name
    small = (pictures[3].nbytes + pictures[2].nbytes) / 2**30
    open_pictures(parts[3], 96, "disk", True, cache_gb=small, beside=[pictures[2]])
    assert set(kept_files(tmp_path)) == {pictures[k].file for k in (2, 3)}, "what this run uses stays, however old"


def test_worker_that_starts_after_its_file_was_replaced_decodes(copied, tmp_path):
    pictures = open_pictures(copied, 96, "disk", True)
    sent = pickle.dumps(pictures)
    assert len(sent) < pictures.nbytes / 10
    os.truncate(pictures.file, 500)
    late = pickle.loads(sent)
    assert late.cached == 0
    np.testing.assert_array_equal(late[4], open_pictures(copied, 96, "off", True)[4])
    redraw(copied.paths[5], keep="nothing")
    open_pictures(copied, 96, "disk", True)
    assert pickle.loads(sent).cached == 0


def in_process(function, *args) -> multiprocessing.Process:
    process = multiprocessing.get_context("fork").Process(target=function, args=args)
    process.start()
    return process


def build_slowly(index: Index, log: Path, stop_at: int, other: Path | None = None) -> None:
    """In a process of its own: open the cache, with a word in `log` for each picture decoded.

    Picture `stop_at` is endless, or takes until the log of another process says that it waits.
    """
    load = data.pictures.decode.load_picture

    def slow(path: str, *args: object) -> np.ndarray:
        with open(log, "a") as f:
            f.write("decoded\n")
        if stop_at >= 0 and path == index.paths[stop_at]:
            wait_for("waiting", other) if other else time.sleep(60)
        return load(path, *args)

    data.pictures.decode.load_picture = slow
    logging.basicConfig(filename=log, level="INFO", force=True)
    pictures = open_pictures(index, 96, "disk", True)
    assert pictures.cached == index.n
    os._exit(7)


def wait_for(text: str, log: Path) -> None:
    deadline = time.monotonic() + 20
    while not (log.exists() and text in log.read_text()):
        assert time.monotonic() < deadline, f"no '{text}' in {log}"
        time.sleep(0.01)


@pytest.mark.skipif(sys.platform == "win32", reason="fork")
def test_of_two_builders_the_second_waits(index, tmp_path):
    logs = tmp_path / "a.txt", tmp_path / "b.txt"
    first = in_process(build_slowly, index, logs[0], 5, logs[1])
    wait_for("decoded", logs[0])
    second = in_process(build_slowly, index, logs[1], -1)
    for process in (first, second):
        process.join(30)
        assert process.exitcode == 7
    assert logs[0].read_text().count("decoded") == 12
    assert "waiting" in logs[1].read_text() and "decoded" not in logs[1].read_text()
    assert [p.suffix for p in kept_files(tmp_path)] == [".bin"]


@pytest.mark.skipif(sys.platform == "win32", reason="fork")
def test_a_killed_builder_leaves_nothing_and_the_one_who_waits_takes_over(index, tmp_path):
    logs = tmp_path / "a.txt", tmp_path / "b.txt"
    first = in_process(build_slowly, index, logs[0], 5)
    wait_for("decoded", logs[0])
    second = in_process(build_slowly, index, logs[1], -1)
    wait_for("waiting", logs[1])
    assert {p.suffix for p in kept_files(tmp_path)} == {".tmp", ".lock"}
    first.kill()
    first.join(10)
    second.join(30)
    assert second.exitcode == 7 and logs[1].read_text().count("decoded") == 12
    assert [p.suffix for p in kept_files(tmp_path)] == [".bin"]


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
