"""A file is written whole or not at all."""

import pytest

from utils.files import sha256, write_whole


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
