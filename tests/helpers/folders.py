"""Folders for what functions with a cache make once for many tests."""

import os
import tempfile
from pathlib import Path


def lasting_folder(of: str) -> Path:
    """A new folder that is there until the tests have ended; `of`: what it holds."""
    return Path(tempfile.mkdtemp(prefix=f"preheat-test-{of}-", dir=os.environ["PREHEAT_CACHE"]))
