"""What the pictures of a comparison have in common: names, legends, PNG inside the page."""

import base64
import io
import warnings
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from utils.plots import COLOURS, DASHES
from utils.report_text import clean

SHADE = "#F1EBDD"  # within the margin
DARK = "#404040"
LETTERS = 24  # of an arm's name in a picture


@dataclass(frozen=True)
class Picture:
    """A PNG as data URI; `alt` says in words what it shows."""

    src: str
    alt: str
    width: float  # inches it was drawn for


def colour(k: int) -> str:
    """Of the arm number k."""
    return COLOURS[k % len(COLOURS)]


def dashes(k: int) -> object:
    """Line style of the arm number k."""
    return DASHES[k % len(DASHES)]


def short(name: str) -> str:
    """An arm's name on one line of a picture."""
    name = clean(name).replace("\n", " ")
    return name if len(name) <= LETTERS else f"{name[: LETTERS - 9]}…{name[-8:]}"


def to_picture(fig: Figure, alt: str) -> Picture:
    """The figure as PNG in a data URI."""
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # letters that the font lacks are boxes, not lines on the console
        fig.savefig(content, dpi=150, format="png")
    src = "data:image/png;base64," + base64.b64encode(content.getvalue()).decode("ascii")
    return Picture(src, clean(alt), fig.get_size_inches()[0])


def add_legend(ax: Axes) -> None:
    """Names above the panel; a name is text, never a formula."""
    for text in ax.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=2, fontsize=9).get_texts():
        text.set_parse_math(False)
