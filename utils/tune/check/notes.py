"""What a check has found so far: check.json in its folder, so that the same command goes on where it stopped."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from utils.compare.folder import write_text
from utils.run.folder import make_run_folder
from utils.tune.check.lecture import Finding

FILE = "check.json"


@dataclass
class Notes:
    """Findings by step, and the numbers that later steps and the page need."""

    folder: Path
    settings: dict[str, Any]  # of the run and of the check: others begin a new folder
    findings: dict[int, Finding]
    numbers: dict[str, Any]
    seconds: float  # that were spent on all of it by earlier commands

    @classmethod
    def of(cls, project: Path, name: str, settings: dict[str, Any]) -> "Notes":
        """Those of the first folder project/name, name2 ... that holds a check of the same settings, or new ones."""
        settings, number = json.loads(json.dumps(settings)), 1
        while (folder := project / (name if number == 1 else f"{name}{number}")).exists():
            try:
                content = json.loads((folder / FILE).read_bytes())
            except (OSError, ValueError):
                content = {}
            if content.get("settings") == settings:
                found = {int(k): Finding(**v) for k, v in content["findings"].items()}
                return cls(folder, settings, found, content["numbers"], content["seconds"])
            number += 1
        notes = cls(make_run_folder(str(project), name, False), settings, {}, {}, 0.0)
        notes.write(0.0)
        return notes

    @property
    def listed(self) -> list[Finding]:
        """In the order of the steps."""
        return [self.findings[k] for k in sorted(self.findings)]

    def write(self, seconds: float) -> None:
        """Write check.json; seconds: that this command has spent so far."""
        found = {k: asdict(v) for k, v in self.findings.items()}
        content = {"settings": self.settings, "findings": found, "numbers": self.numbers}
        text = json.dumps(content | {"seconds": self.seconds + seconds}, indent=1, allow_nan=False)
        write_text(self.folder / FILE, text)
