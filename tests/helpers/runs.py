"""Runs of train.py that several tests start and look at."""

from functools import cache
from pathlib import Path

import torch

import train
from models.detector import build_detector
from models.weights.save import save_weights
from tests.helpers.folders import lasting_folder
from utils.env import REPO
from utils.run.log import read_metrics, read_scalars

TINY = REPO / "tests/helpers/tiny.yaml"
TOY_NAMES = ["mug", "key", "leaf", "bolt"]
BITS = ("model", "ema", "optimizer", "loss", "random", "gradients")  # of a state


def run_train(*words: object, project: Path, name: str = "exp") -> Path:
    """Run train.py's main; returns the run folder."""
    train.main([*map(str, words), "--project", str(project), "--name", name])
    return project / name


def state_of(folder: Path) -> dict:
    return torch.load(folder / "weights/last.pt", weights_only=True)


def assert_same(a: object, b: object, where: str = "state") -> None:
    """Equal bit for bit, through nested dictionaries and lists."""
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list | tuple):
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{where}[{i}]")
    else:
        assert a == b or a != a, f"{where}: {a} and {b}"


def assert_equal_runs(whole: Path, other: Path) -> None:
    """Weights, average, optimizer, open window, scores, the table and the curves."""
    a, b = state_of(whole), state_of(other)
    for key in BITS:
        assert_same(a[key], b[key], key)
    timeless = [{k: v for k, v in state["progress"].items() if k != "hours"} for state in (a, b)]
    assert_same(*timeless)
    rows = [read_metrics(folder / "metrics.csv") for folder in (whole, other)]
    assert_same(*[[{k: v for k, v in row.items() if "time/" not in k} for row in run] for run in rows])
    assert_same(*[read_scalars(folder, ("lr/", "momentum", "accumulate", "train/box")) for folder in (whole, other)])
    assert_same(*[points(folder) for folder in (whole, other)])


def points(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Every scalar of the event files, but for times, as it is drawn: nothing twice, in order."""
    from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={SCALARS: 0})
    events.Reload()
    tags = [tag for tag in events.Tags()[SCALARS] if "time/" not in tag]
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in sorted(tags)}


def replaced(words: list[str], option: str, value: object) -> list[str]:
    i = words.index(option)
    return [*words[: i + 1], str(value), *words[i + 2 :]]


@cache
def guesser() -> Path:
    """Weights of the tiny network that score above 0 on the toy unseen: every cell answers with a box of 32 or 64
    pixels around it, the class by chance."""
    torch.manual_seed(0)
    model, _ = build_detector(str(TINY), TOY_NAMES)
    head = model.model[-1]
    with torch.no_grad():
        for box, cls in zip(head.cv2, head.cv3, strict=True):
            bins = box[-1].bias.view(4, -1)  # (side, bin): how many strides it is to a side
            bins.fill_(-4.0)
            bins[:, 1] = 4.0
            cls[-1].bias.fill_(-3.0)
    path = lasting_folder("weights") / "guesser.pt"
    save_weights(path, model, TOY_NAMES, {}, 0, {})
    return path
