"""Figures of a run, from plain data to PNG; matplotlib's global state is not touched and no display is needed."""

from functools import cache
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager, get_font
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.text import Text

# Okabe and Ito's colours, told apart by colour-blind readers too
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
GREY = "#B5B5B5"
DASHES = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (5, 1.5, 1, 1.5)))
FEW = len(COLOURS)  # up to here every class has a colour of its own; beyond, classes are thin grey lines


FALLBACKS = (  # fonts with other scripts than DejaVu Sans has, as systems install them; the first that is there serves
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans CJK KR", "Source Han Sans SC", "WenQuanYi Zen Hei",
    "WenQuanYi Micro Hei", "Droid Sans Fallback", "Microsoft YaHei", "SimHei", "Yu Gothic", "Malgun Gothic",
    "PingFang SC", "Hiragino Sans", "Arial Unicode MS", "Noto Sans Arabic", "Noto Sans Hebrew", "Noto Sans Devanagari",
    "Noto Sans Thai", "Tahoma", "Segoe UI", "Nirmala UI", "Unifont",
)  # fmt: skip


@cache
def fonts() -> dict[str, str]:
    """Family and file of the fonts that texts are drawn with: DejaVu Sans, then what is installed of FALLBACKS."""
    files = {font.name: font.fname for font in reversed(fontManager.ttflist) if font.style == "normal"}
    dejavu = next(f.fname for f in fontManager.ttflist if Path(f.fname).name == "DejaVuSans.ttf")
    return {"DejaVu Sans": dejavu} | {name: files[name] for name in FALLBACKS if name in files}


@cache
def font_of(letter: str) -> str | None:
    """The file of the first font that has a letter; None where none has."""
    return next((file for file in fonts().values() if get_font(file).get_char_index(ord(letter))), None)


def readable(text: str) -> str:
    """A text in which a letter that no font has is written as its code, \\u4e2d, and not as an empty box."""
    codes = (letter.encode("ascii", "backslashreplace").decode() for letter in text)
    return "".join(a if a.isspace() or font_of(a) else b for a, b in zip(text, codes, strict=True))


def plain(text: str) -> str:
    """A user's text such that matplotlib draws it as written: `$` begins no formula, a first `_` hides no entry."""
    text = readable(text).replace("$", r"\$")
    return f"\u2009{text}" if text.startswith("_") else text  # a thin space


def use_fonts(fig: Figure) -> None:
    """Let every text of a figure fall back on the other fonts where DejaVu Sans lacks a letter."""
    if len(fonts()) > 1:
        for text in fig.findobj(Text):
            text.set_fontfamily(list(fonts()))


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of that many inches."""
    return Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1))


def panel(ax: Axes, title: str, xlabel: str, ylabel: str) -> Axes:
    """The common look of a panel of lines."""
    ax.set_title(title, loc="left", fontsize=11)
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis="y", color="#E5E5E5", linewidth=0.8)
    ax.set_axisbelow(True)
    return ax


def save(fig: Figure, path: Path) -> None:
    """Write the figure as PNG."""
    use_fonts(fig)
    fig.savefig(path, dpi=130)


def _nothing(ax: Axes, why: str) -> None:
    """Say in an empty panel why it is empty."""
    ax.text(0.5, 0.5, why, ha="center", va="center", color="#606060", transform=ax.transAxes)


SHADE = "#F1EBDD"  # behind a warm-up, and within the margin of a comparison
