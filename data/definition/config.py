"""What a dataset yaml says, as a value."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from utils.env import REPO

SPLITS = ("train", "val", "test")
OWN = (REPO / "data", REPO / "data/toy")  # yamls of this repo: these are found by name


@dataclass(frozen=True)
class DatasetConfig:
    """A dataset yaml, paths resolved; a split is None, or a list.

    Its entries are folders, .txt lists, COCO jsons, VOC folders, and other data sets, whose classes are joined by name.
    """

    path: Path  # the yaml
    root: Path
    train: "list[Path | Listed] | None"
    val: "list[Path | Listed] | None"
    test: "list[Path | Listed] | None"
    names: list[str]

    def own(self, split: str) -> list[Path]:
        """Folders, lists and jsons of a split that the yaml itself names."""
        return [place for place in getattr(self, split) or [] if isinstance(place, Path)]

    def listed(self, split: str) -> "list[Listed]":
        """The data sets that a split names."""
        return [place for place in getattr(self, split) or [] if isinstance(place, Listed)]

    def places(self, split: str) -> list[Path]:
        """Folders, lists and jsons of a split, with those of the data sets that it names."""
        return self.own(split) + [path for place in self.listed(split) for path in place.config.places(split)]

    def roots(self) -> Iterator[Path]:
        """The folder of the data set, then those of the data sets that it names."""
        yield self.root
        for split in SPLITS:
            for place in self.listed(split):
                yield from place.config.roots()


@dataclass(frozen=True)
class Listed:
    """Another data set that a split names: its split of that name, of which an epoch has a part (2: each twice)."""

    config: DatasetConfig
    part: float = 1.0

    def __str__(self) -> str:
        return f"{self.config.path}, part {self.part:g}"

    @property
    def whole(self) -> bool:
        """Whether an epoch has every picture once."""
        return self.part == 1 and all(place.whole for place in self.config.listed("train"))
