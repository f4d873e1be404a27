"""CPU seconds until a script has answered what needs no training: python benchmarks/startup.py --other FOLDER

`--other` is a checkout of another version, measured in turns with this one; the last column is the share of its time.
"""

import argparse
import os
import statistics
import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
CASES = (
    *(f"{script}.py --help" for script in ("train", "val", "compare", "detect", "export")),
    *("tune.py --help", "tune.py search --help", "-m data.index --help"),
    *("train.py --epohcs 3", "val.py --wieghts w.pt", "compare.py --sedes 3", "detect.py --confd 0.3"),
    *("export.py --formta onnx", "tune.py lr --sedes 3"),
    *("train.py --plan --hyp demo", "compare.py --plan --hyp demo --warmup"),
)


def cpu_seconds(case: str, repo: Path) -> float:
    """User and system seconds of `python case`, its children included."""
    before = os.times()
    subprocess.run([sys.executable, *case.split()], cwd=repo, capture_output=True, check=False)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def main() -> None:
    """Print a table: the median of every case, for each version."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--other", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    repos = [REPO] + ([options.other] if options.other else [])
    for case in CASES:
        times = {repo: [] for repo in repos}
        for k in range(options.rounds + 1):
            for repo in repos:
                seconds = cpu_seconds(case, repo)
                if k:  # the first round warms the files
                    times[repo].append(seconds)
        medians = [statistics.median(times[repo]) for repo in repos]
        share = f"  ({medians[0] / medians[1]:.2f} of it)" if len(medians) > 1 else ""
        print(f"{case:<28}" + "  ".join(f"{m:6.2f} s" for m in medians) + share)


if __name__ == "__main__":
    main()
