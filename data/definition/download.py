"""Fetch a dataset's archive; runs only when the user asked for it with --download."""

import shutil
import tarfile
import tempfile
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

from utils.errors import UserError


def is_archive(url: str) -> bool:
    """Whether this is the address of an archive, not a script."""
    one_line = "\n" not in url.strip()
    return one_line and url.startswith(("http://", "https://")) and url.endswith((".zip", ".tar", ".tar.gz", ".tgz"))


def fetch_dataset(url: str, root: Path) -> None:
    """Download an archive and unpack it as the folder `root`, which appears whole or not at all."""
    if not is_archive(url):
        raise UserError(
            f"'download: {url[:80]}' is not the address of a .zip, .tar or .tar.gz; scripts are never run. "
            f"Get the dataset by hand and put it at {root}."
        )
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root.parent, prefix=".download-") as folder:
            archive, unpacked = Path(folder) / "archive", Path(folder) / "unpacked"
            with urllib.request.urlopen(url, timeout=60) as source, open(archive, "wb") as target:
                shutil.copyfileobj(source, target)
            unpacked.mkdir()
            _unpack(archive, unpacked)
            entries = [entry for entry in unpacked.iterdir() if entry.name != "__MACOSX"]
            alone = len(entries) == 1 and entries[0].is_dir() and entries[0].name not in ("images", "labels")
            (entries[0] if alone else unpacked).rename(root)
    except (OSError, zipfile.BadZipFile, tarfile.TarError, urllib.error.URLError) as e:
        raise UserError(f"{url} could not be fetched into {root} ({e}). Get it by hand and unpack it there.") from None


def _unpack(archive: Path, folder: Path) -> None:
    """Unpack a zip or tar; names that climb out of the folder stay inside it or are refused."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as content:
            content.extractall(folder)
    else:
        with tarfile.open(archive) as content:
            content.extractall(folder, filter="data")
