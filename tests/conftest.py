"""Every test runs from the repo root with the environment that the scripts set, and a cache folder of its own."""

import os
import sys
import tempfile
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPO))
os.environ.setdefault("PREHEAT_CACHE", tempfile.mkdtemp(prefix="preheat-test-cache-"))

import utils.env  # noqa: E402, F401  (sets the libraries' environment before any of them is imported)

TESTDATA = Path(os.environ.get("PREHEAT_TESTDATA", REPO.parent / "shared" / "testdata"))


@pytest.fixture(scope="session")
def testdata() -> Path:
    """Folder of real pictures and weights; the test is skipped where it is absent."""
    if not TESTDATA.is_dir():
        pytest.skip(f"no test data at {TESTDATA} (set PREHEAT_TESTDATA)")
    return TESTDATA
