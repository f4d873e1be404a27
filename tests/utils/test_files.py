"""A file is written whole or not at all."""

import mmap
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from data.definition.dataset_yaml import load_dataset_yaml
from data.index.index import build_index
from data.pictures.cache import open_pictures
from tests.utils.windows import forbid_as_windows_does, is_mapped
from utils.files import newest, sha256, write_new, write_whole


def test_a_file_is_the_old_one_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "state.bin"
    write_whole(path, b"old")

    def half(file) -> None:
        file.write(b"new, but")
        assert path.read_bytes() == b"old"
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write_whole(path, half)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]
    write_whole(path, lambda file: file.write(b"new"))
    assert path.read_bytes() == b"new" and list(tmp_path.iterdir()) == [path]


def test_the_digest_is_that_of_the_content(tmp_path):
    (tmp_path / "a").write_bytes(b"x")
    (tmp_path / "b").write_bytes(b"x")
    (tmp_path / "c").write_bytes(b"y")
    assert sha256(tmp_path / "a") == sha256(str(tmp_path / "b")) != sha256(tmp_path / "c")
    assert sha256(tmp_path / "gone") == "-"


def test_new_content_never_touches_a_file_that_somebody_has_mapped(tmp_path, monkeypatch):
    path = tmp_path / "a [1].bin"
    assert newest(path) == path
    first = write_new(path, b"first")
    assert newest(path) == first and first.suffix == ".bin"
    with open(first, "rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    refused = forbid_as_windows_does(monkeypatch)
    with pytest.raises(PermissionError):  # the helper does what it says: this is how it went wrong
        os.replace(write_new(tmp_path / "b.bin", b"x"), first)
    assert is_mapped(first) and first.exists()
    second = write_new(path, lambda f: f.write(b"second"))
    assert newest(path) == second and second.read_bytes() == b"second" and mapped[:] == b"first"
    assert first.exists() and refused.count(str(first)) >= 2, "who has it mapped keeps it"
    mapped.close()
    third = write_new(path, b"third")
    assert set(tmp_path.glob("a*")) == {third} == {newest(path)}, "what is mapped no more goes the next time"


def test_a_file_that_is_open_elsewhere_for_a_moment_is_tried_again(tmp_path, monkeypatch):
    path, times, real = tmp_path / "last.pt", [], os.replace

    def busy(*args: object) -> None:
        times.append(args)
        if len(times) < 3:
            raise PermissionError(13, "sharing violation")
        real(*args)

    monkeypatch.setattr(os, "replace", busy)
    write_whole(path, b"new")
    assert path.read_bytes() == b"new" and len(times) == 3
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(PermissionError(13, "sharing violation")))
    with pytest.raises(PermissionError):
        write_whole(path, b"newer")
    assert path.read_bytes() == b"new" and list(tmp_path.iterdir()) == [path]


def test_an_index_and_decoded_pictures_are_made_anew_while_others_have_them_mapped(toy, tmp_path, monkeypatch):
    """On Windows too: a label and a picture change while a run works with what was stored before."""
    monkeypatch.setenv("PREHEAT_CACHE", str(tmp_path / "cache"))
    shutil.copytree(toy.parent, tmp_path / "set")
    config = load_dataset_yaml(tmp_path / "set" / toy.name)
    before = build_index(config, "train")
    pictures = open_pictures(before, 64, "disk", False)
    old, first = np.array(pictures[0]), before.paths[0]
    boxes = len(before.boxes)
    refused = forbid_as_windows_does(monkeypatch)
    label = first.replace("images", "labels").rsplit(".", 1)[0] + ".txt"
    with open(label, "a") as file:
        file.write("0 0.31 0.32 0.11 0.12\n")
    with Image.open(first) as img:
        other = img.convert("RGB").point(lambda v: 255 - v)
    other.save(first)
    after = build_index(config, "train")
    assert len(after.boxes) == boxes + 1 and after.file.key, "it is stored, and can be mapped"
    again = open_pictures(after, 64, "disk", False)
    assert (again[0] != old).any() and again.file != pictures.file
    assert (pictures[0] == old).all() and len(before.boxes) == boxes, "the other run goes on with what it has"
    assert refused and open_pictures(after, 64, "disk", False).file == again.file
    refused.clear()
    small = open_pictures(after.take(np.arange(2)), 64, "disk", False, cache_gb=again.nbytes / 2**30)
    assert str(again.file) in refused and small.file.exists(), "what has to go and cannot is no error"
