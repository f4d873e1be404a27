"""A few pictures of the kind that models/demo.pt was pretrained on."""

from data.toy.draw import draw
from utils.env import cache_dir

PICTURES = 24


def demo_pictures() -> str:
    """Their folder, drawn on first use: the first of toy-source's val."""
    root = cache_dir() / "toy/demo-v1"
    draw("source", root, {"val": PICTURES})
    return str(root / "images/val")
