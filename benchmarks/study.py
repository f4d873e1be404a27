"""What docs/study and the tables of docs/warmup.md are made from: python benchmarks/study.py runs/study

Reads the comparisons that `python compare.py docs/study/declaration.yaml` made; a part without an answer is left out.
Writes results.csv (a row for every run), PART.html and PART.png, and prints the tables as Markdown.
"""

import argparse
import base64
import csv
import hashlib
import json
import math
import statistics
import sys
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from utils.compare.cells.family import FAMILY, Family, read_family
from utils.compare.cells.page import write_family_report
from utils.compare.cells.pictures import draw_forest, draw_sweep
from utils.compare.report.facts import Facts, read_facts
from utils.compare.report.tables import RUN_COLUMNS, run_row
from utils.drawing.figure import new_figure, panel, save
from utils.drawing.page import Picture

MEASURES = ("grad_norm", "loss_spike", "epochs_to_90", "best_epoch")
Rows = list[dict[str, Any]]


def main() -> None:
    """Write the files and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of the project: runs/study")
    parser.add_argument("--out", type=Path, default=Path("docs/study"))
    parser.add_argument("--machine", default="", help="in words, for results.csv")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    rows: Rows = []
    chances: list[float] = []
    for part, folder in newest(args.folder).items():
        family = read_family(folder)
        assert family is not None
        facts = {cell.name: read_facts(folder / cell.name) for cell in family.cells}
        rows += [row for name, its in facts.items() for row in run_rows(part, name, its, args.machine)]
        (args.out / f"{part}.html").write_bytes(write_family_report(folder).read_bytes())
        for name, picture in pictures(family, facts).items():
            (args.out / f"{part}{name}.png").write_bytes(base64.b64decode(picture.src.partition(",")[2]))
        print(f"\n## {part}: {len(facts)} cells\n")
        print(cells_table(facts))
        for told in family.answers:
            print(f"\n{told.question}: {told.sentence}")
        if part.startswith("trust"):
            chances += [p for its in facts.values() for p in shuffled(its)]
    with open(args.out / "results.csv", "w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    if chances:
        histogram(chances, args.out / "trust.png")
    once = {(row["settings_sha256"], row["seed"]): float(row["seconds"] or 0) for row in rows}
    print(f"\n{len(rows)} rows, {len(once)} runs, {sum(once.values()) / 3600:.1f} hours of run time")


def newest(project: Path) -> dict[str, Path]:
    """Part -> its folder: the one that was answered last where the part has several (core-sgd, core-sgd2)."""
    found: dict[str, tuple[str, Path]] = {}
    for file in sorted(project.glob(f"*/{FAMILY}")):
        family = read_family(file.parent)
        if family and family.answered:
            part = file.parent.name.rstrip("0123456789")
            found[part] = max(found.get(part, ("", file.parent)), (family.answered, file.parent))
    if not found:
        sys.exit(f"{project} holds no comparison over several cells that has been answered")
    return {part: folder for part, (_, folder) in found.items()}


def run_rows(part: str, cell: str, facts: Facts, machine: str) -> Rows:
    """Every run of a cell with what it was made by."""
    record = facts.record
    made = record.fingerprint.model_dump()
    by = {
        "commit": str(made["git"]).partition("+")[0][:7],
        "torch": made["versions"].get("torch"),
        "ultralytics": made["versions"].get("ultralytics"),
        "python": made["python"],
        "machine": machine or made["platform"],
    }
    rows = []
    for run in facts.runs:
        words = json.dumps(record.settings[run.arm], sort_keys=True)
        sha256 = hashlib.sha256(words.encode()).hexdigest()[:16]
        told = dict(zip(RUN_COLUMNS, run_row(run), strict=True))
        told.pop("folder")
        rows.append({"part": part, "cell": cell, **told, "settings_sha256": sha256, **by})
    return rows


def cells_table(facts: dict[str, Facts]) -> str:
    """A row for every arm of every cell: means, the difference from the reference, and the undeclared measures."""
    lines = ["| cell | arm | mean | minus reference, points | verdict of the cell | diverged | " + " | ".join(MEASURES)]
    lines = [lines[0] + " |", "| --- " * (6 + len(MEASURES)) + "|"]
    for name, its in facts.items():
        for arm in its.arms:
            verdict = its.record.verdicts.get(arm)
            told = ("", "reference")
            if verdict and verdict.mean is not None:
                told = (interval(verdict.mean, verdict.low, verdict.high), verdict.kind)
            runs = its.of(arm)
            values = [run.line.secondary or {} for run in runs]
            lost = sum(run.status == "diverged" for run in runs)
            means = [mean_of([value.get(key) for value in values]) for key in MEASURES]
            score = statistics.mean(run.counted or 0.0 for run in runs)
            lines.append(f"| {name} | {arm} | {score:.3f} | {told[0]} | {told[1]} | {lost} | {' | '.join(means)} |")
    return "\n".join(lines)


def interval(mean: float, low: float | None, high: float | None) -> str:
    """Points with their 95 % interval."""
    ends = "" if low is None or high is None else f" ({100 * low:+.2f} to {100 * high:+.2f})"
    return f"{100 * mean:+.2f}{ends}"


def mean_of(values: list[Any]) -> str:
    """The mean of what is known."""
    known = [float(v) for v in values if v is not None and math.isfinite(float(v))]
    return f"{statistics.mean(known):.3g}" if known else "-"


def pictures(family: Family, facts: dict[str, Facts]) -> dict[str, Picture]:
    """What leads the page: the curve of every data set in a sweep, else the forest plots; by the end of its name."""
    if family.key:
        drawn = {f"-{group}": draw_sweep(family, facts, group) for group in family.groups}
    else:
        arms = next(iter(facts.values())).arms
        several = len(family.answers) > 1
        forests = [(told.arm, draw_forest(family, told, arms.index(told.arm))) for told in family.answers]
        drawn = {f"-{arm}" if several else "": picture for arm, picture in forests}
    return {name: picture for name, picture in drawn.items() if picture}


def shuffled(facts: Facts, times: int = 500) -> list[float]:
    """p values of paired t tests when the runs of two equal arms are dealt into pairs at random, again and again."""
    scores = np.array([run.counted for run in facts.runs if run.counted is not None])  # (2 n,)
    rng = np.random.default_rng(0)
    dealt = [rng.permutation(scores).reshape(2, -1) for _ in range(times)]
    return [float(stats.ttest_rel(a, b).pvalue) for a, b in dealt]


def histogram(chances: list[float], path: Path) -> None:
    """Of p values without any effect: flat where the test keeps what it promises."""
    fig = new_figure(6.4, 3.2)
    ax = panel(fig.subplots(), "", "p of two arms that are equal", "share")
    share = np.full(len(chances), 1 / len(chances))
    ax.hist(chances, bins=20, range=(0, 1), weights=share)
    ax.axhline(0.05, color="black", linewidth=0.9, linestyle=":")
    save(fig, path)
    print(f"\nshare of p below 0.05: {np.mean(np.array(chances) < 0.05):.3f}")


if __name__ == "__main__":
    main()
