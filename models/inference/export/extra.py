"""Libraries of requirements-extra.txt, imported where they are used, and named when they are missing."""

import importlib
from typing import Any

from utils.errors import UserError


def extra(name: str, why: str) -> Any:
    """The module `name`; UserError with the command that installs it."""
    try:
        return importlib.import_module(name)
    except ImportError as e:
        package = name.replace("_", "-")
        raise UserError(
            f"{why} needs {package}, which is not installed ({e}): pip install {package}, or all extras: pip install "
            "-r requirements-extra.txt"
        ) from None
