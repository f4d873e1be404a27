"""A dataset of any size for the benchmarks: small JPEGs, most of them links, and a label file of its own for each."""

import os
import random
from pathlib import Path

import numpy as np
from PIL import Image

ORIGINALS = 300  # different pictures; the others are hard links to them
PER_FOLDER = 10_000
NAMES = ["mug", "key", "leaf", "bolt"]


def make_dataset(folder: Path, n: int) -> Path:
    """The yaml of a dataset of n pictures in `folder`, made where it is not there yet."""
    root = folder / f"index-{n}"
    yaml = root / "data.yaml"
    if yaml.exists():  # written last: what was interrupted is made again
        return yaml
    originals = _originals(root / "originals")
    for split, count in (("val", 20), ("train", n)):
        for start in range(0, count, PER_FOLDER):
            _fill(root, f"{split}/{start // PER_FOLDER:03d}", range(start, min(start + PER_FOLDER, count)), originals)
    yaml.write_text(f"train: images/train\nval: images/val\nnames: {NAMES}\n")
    return yaml


def _originals(folder: Path) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{k}.jpg" for k in range(ORIGINALS)]
    for k, path in enumerate(paths):
        pixels = np.random.default_rng(k).integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(pixels).resize((64, 64)).save(path)
    return paths


def _fill(root: Path, part: str, numbers: range, originals: list[Path]) -> None:
    """One folder of pictures and one of labels, one to three boxes each."""
    images, labels = root / "images" / part, root / "labels" / part
    images.mkdir(parents=True, exist_ok=True)
    labels.mkdir(parents=True, exist_ok=True)
    rng = random.Random(numbers.start)
    for i in numbers:
        picture = images / f"{i:07d}.jpg"
        if not picture.exists():
            os.link(originals[i % ORIGINALS], picture)
        rows = [
            f"{rng.randrange(len(NAMES))} {rng.uniform(0.3, 0.7):.6f} {rng.uniform(0.3, 0.7):.6f} "
            f"{rng.uniform(0.1, 0.5):.6f} {rng.uniform(0.1, 0.5):.6f}\n"
            for _ in range(rng.randint(1, 3))
        ]
        (labels / f"{i:07d}.txt").write_text("".join(rows))
