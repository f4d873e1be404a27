"""A dataset's own archive, from a server on this machine."""

import io
import tarfile
import threading
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from data.definition.dataset_yaml import load_dataset_yaml
from utils.errors import UserError


class Quiet(SimpleHTTPRequestHandler):
    """A file server that prints nothing."""

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server(tmp_path):
    """Address of a server of the folder `served`, which has set.zip and set.tar.gz."""
    folder = tmp_path / "served"
    folder.mkdir()
    with zipfile.ZipFile(folder / "set.zip", "w") as z:
        z.writestr("set/images/a.txt", "a")
        z.writestr("set/../../climbed.txt", "b")
    with tarfile.open(folder / "set.tar.gz", "w:gz") as t:
        for name in ("images/a.txt", "labels/a.txt"):
            t.addfile(tarfile.TarInfo(name), io.BytesIO())
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def write_yaml(folder: Path, download: str) -> Path:
    file = folder / "x.yaml"
    file.write_text(f"path: there\ntrain: images\nnames: [a]\ndownload: {download}\n")
    return file


@pytest.mark.parametrize("name", ["set.zip", "set.tar.gz"])
def test_archive_is_unpacked_only_when_asked_for(server, tmp_path, name):
    file = write_yaml(tmp_path, f"{server}/{name}")
    with pytest.raises(UserError, match="--download"):
        load_dataset_yaml(file)
    config = load_dataset_yaml(file, download=True)
    assert (config.root / "images/a.txt").is_file() and not (tmp_path / "climbed.txt").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["served", "there", "x.yaml"]


@pytest.mark.parametrize(
    ("address", "words"),
    [("{}/none.zip", "404"), ("import os", "scripts are never run"), ("file:///x.zip", "never run")],
)
def test_what_cannot_be_fetched_is_named(server, tmp_path, address, words):
    with pytest.raises(UserError, match=words):
        load_dataset_yaml(write_yaml(tmp_path, address.format(server)), download=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["served", "x.yaml"]
