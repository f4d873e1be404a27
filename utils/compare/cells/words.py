"""What an answer over all cells is called, on the console, on the page and in the overview."""

from utils.compare.cells.family import Answer
from utils.compare.report.words import kind_words

RANGES = {"helps": "a wider range", "hurts": "a narrower range"}


def answer_words(told: Answer, margin: float) -> str:
    """The kind of an answer in words; one that claims nothing in general is told from one that is undecided."""
    if told.kind == "none":
        return "no general answer"
    words = RANGES.get(told.kind) if told.question == "range" else None
    return words or kind_words(told.kind, margin)
