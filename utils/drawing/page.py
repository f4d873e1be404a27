"""What every page of a report has in common: one HTML file, no script, nothing to fetch; its tables and pictures."""

import base64
import io
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.figure import Figure

from utils.drawing.figure import use_fonts


@dataclass(frozen=True)
class Picture:
    """A picture as data URI; `alt` says in words what it shows."""

    src: str
    alt: str
    width: float  # inches it was drawn for


@dataclass(frozen=True)
class Table:
    """Rows of text under a caption; the first cell names its row."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: int = 1  # leading columns that are words; the others are numbers, set to the right


def clean(text: Any) -> str:
    """Text of users or programs without control characters and terminal colours; lines stay lines."""
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", str(text)).replace("\r\n", "\n").replace("\r", "\n")
    return "".join(c for c in text if c in "\n\t" or c.isprintable())


def to_picture(fig: Figure, alt: str) -> Picture:
    """The figure as PNG in a data URI."""
    content = io.BytesIO()
    use_fonts(fig)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # letters that only another font has are no lines on the console
        fig.savefig(content, dpi=150, format="png")
    src = "data:image/png;base64," + base64.b64encode(content.getvalue()).decode("ascii")
    return Picture(src, clean(alt), fig.get_size_inches()[0])


def render(template: Path, view: Mapping[str, Any]) -> str:
    """The HTML of a Jinja template that extends shell.html.jinja and may import macros.jinja; every text is escaped."""
    folders = [template.parent, Path(__file__).parent]
    templates = Environment(
        loader=FileSystemLoader(folders),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return templates.get_template(template.name).render(view)
