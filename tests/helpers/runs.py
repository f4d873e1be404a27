"""Runs of train.py that several tests start and look at."""

from pathlib import Path

import torch

import train


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


def replaced(words: list[str], option: str, value: object) -> list[str]:
    i = words.index(option)
    return [*words[: i + 1], str(value), *words[i + 2 :]]
