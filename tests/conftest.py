"""Every test runs from the repo root with the environment that the scripts set, and a cache folder of its own."""

import contextlib
import gc
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

gc.disable()  # until all is imported: what the collector would look through again and again stays anyway
REPO = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPO))
FIRST = "PYTEST_XDIST_WORKER" not in os.environ  # the process that starts the others, whose cache they share
if FIRST:
    os.environ["PREHEAT_CACHE"] = tempfile.mkdtemp(prefix="preheat-test-cache-")

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the networks are tiny: threads would only wait for each other

signal.signal(signal.SIGINT, signal.default_int_handler)  # be it ignored, as it is in a job in the background

import utils.env  # noqa: E402, F401  (sets the libraries' environment before any of them is imported)

import data.formats.header  # noqa: E402, F401  isort: skip  (as in the scripts, before ultralytics replaces PIL's Image.open)
from hypothesis import settings  # noqa: E402  isort: skip
from PIL import Image  # noqa: E402  isort: skip

settings.register_profile("preheat", deadline=None)  # a busy machine is no failure
settings.load_profile("preheat")

TESTDATA = Path(os.environ.get("PREHEAT_TESTDATA", REPO.parent / "shared" / "testdata"))


@pytest.fixture(scope="session")
def testdata() -> Path:
    """Folder of real pictures and weights; the test is skipped where it is absent."""
    if not TESTDATA.is_dir():
        pytest.skip(f"no test data at {TESTDATA} (set PREHEAT_TESTDATA)")
    return TESTDATA


@pytest.fixture(scope="session")
def toy(tmp_path_factory) -> Path:
    """Dataset yaml of a very small drawn world: 20 + 8 pictures, 4 classes."""
    from data.toy.draw import draw

    root = tmp_path_factory.mktemp("toy") / "target"
    draw("target", root, {"train": 20, "val": 8})
    file = root / "toy.yaml"
    file.write_text("train: images/train\nval: images/val\nnames: [mug, key, leaf, bolt]\n")
    return file


@pytest.fixture(scope="session")
def small_demo(toy) -> None:
    """The data sets of the demo, which would be drawn on first use, are there already, as small as the toy."""
    for name in ("source-v1", "target-v1"):
        root = Path(os.environ["PREHEAT_CACHE"], "toy", name)
        part = Path(tempfile.mkdtemp(dir=os.environ["PREHEAT_CACHE"])) / name
        shutil.copytree(toy.parent, part)
        root.parent.mkdir(exist_ok=True)
        with contextlib.suppress(OSError):  # another process of the tests was first
            part.rename(root)


@pytest.fixture
def toy_args(toy) -> list[str]:
    """Options of a run of a fraction of a second: few tensors, 64 pixels, accumulation windows that cross epochs."""
    return [
        *("--weights", str(REPO / "tests/helpers/tiny.yaml"), "--data", str(toy), "--imgsz", "64", "--epochs", "3"),
        *("--batch", "8", "--workers", "0", "nbs=32", "warmup_epochs=1", "ema_tau=5", "--noplots", "--device", "cpu"),
    ]


@pytest.fixture
def undrawn(monkeypatch) -> None:
    """Figures are composed but not rendered, and saved as a pixel: where a test looks at words and at what is there."""

    def savefig(figure: object, file: object, **settings: object) -> None:
        Image.new("RGB", (1, 1)).save(file, "png")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", savefig)


@pytest.fixture
def forked_runs(monkeypatch) -> None:
    """Python programs that the test starts, or compare.py, are forks of this process, which has imported torch."""
    if sys.platform == "linux":
        from tests.helpers import forked

        monkeypatch.setattr(subprocess, "Popen", forked.Popen)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Each process, whose share is as many tests in a row, begins with a part of the slow ones: at the end of the queue
    they would keep one process busy while the others have none, and a fork costs less before much has been made.
    """
    slow, fast = ([i for i in items if bool(i.get_closest_marker("slow")) == kind] for kind in (True, False))
    n = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))
    parts = (kind[len(kind) * k // n : len(kind) * (k + 1) // n] for k in range(n) for kind in (slow, fast))
    items[:] = [item for part in parts for item in part]


def pytest_collection_finish() -> None:
    """What is imported by now stays: the collector need not look through it again, nor touch it in a fork."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True, scope="module")
def frozen() -> Iterator[None]:
    """What the tests of a file leave for the next one stays, too."""
    yield
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    """Nothing stays of the cache folder."""
    if FIRST:
        shutil.rmtree(os.environ["PREHEAT_CACHE"], ignore_errors=True)
