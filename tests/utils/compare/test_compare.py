"""Whole comparisons at toy size: every run is a process of train.py."""

import json
import os
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import yaml

import compare
import train
from data.definition.dataset_yaml import load_dataset_yaml
from data.index.folds import count_training
from data.index.identity import identify
from data.index.index import build_index
from data.loading.loader import build_train_loader
from tests.helpers import forked
from tests.helpers.runs import assert_same, guesser, replaced
from utils.compare.arms import read_command
from utils.compare.cells.declare import read_asked
from utils.compare.conclude import conclude
from utils.compare.fingerprint import Fingerprint, code_hash, reached
from utils.compare.folder import Place, read_record
from utils.compare.launch.local import Job, _kill, device_slots, run_all
from utils.compare.record import Record, Run, new_record
from utils.compare.runs import list_jobs
from utils.compare.scores import final_score
from utils.config.schema import Command, Hyp
from utils.env import REPO
from utils.errors import SomeFailed, UserError
from utils.run.log import read_metrics

TOY = [
    *("--imgsz", "64", "--epochs", "2", "--val-every", "2", "--batch", "8", "--hyp", "demo", "--jobs", "2"),
    *("--workers", "0", "--noplots"),
]


def words(toy: Path, project: Path) -> list[str]:
    return [*TOY, "--data", str(toy), "--weights", str(guesser()), "--project", str(project)]


def opened(line: list[str], folder: Path) -> tuple[Place, dict]:
    """A comparison before its first run, and the identities of its data."""
    asked = read_asked(line)[0]
    fresh, identities = compare.examine(asked, ["cpu"], 1, line)
    return compare.open_cell(asked, asked.cells[0], folder, fresh[""]), identities


def run_of(record: Record, arm: str, seed: int) -> Run:
    return next(run for run in record.runs if (run.arm, run.seed) == (arm, seed))


@pytest.mark.slow
def test_two_equal_arms_from_the_first_run_to_the_third_pair(toy, tmp_path, forked_runs):
    """One comparison, looked at in three ways: its runs are the expensive part."""
    line = [*words(toy, tmp_path), "--aa", "--seeds", "2", "--arm", "a", "--arm", "b", "seed=0"]
    record = compare.main(line)
    equal_arms_on_equal_seeds_differ_by_exactly_zero(tmp_path / "exp", record)
    what_a_comparison_leaves(tmp_path / "exp", record)
    repeated_it_makes_only_what_is_missing(line, tmp_path / "exp", record)


def equal_arms_on_equal_seeds_differ_by_exactly_zero(folder: Path, record: Record) -> None:
    verdict = record.verdicts["b"]
    assert (verdict.mean, verdict.sd, verdict.low, verdict.high) == (0, 0, 0, 0)
    assert (verdict.low_pictures, verdict.high_pictures) == (0, 0), "on whatever pictures"
    assert verdict.kind == "undecided" and "exactly the same score" in verdict.sentence  # two pairs claim nothing
    assert max(run.score for run in record.runs) > 0  # equal because they are, not because nothing was learned
    for seed in range(2):
        a, b = (read_metrics(folder / f"runs/{arm}/seed{seed}/metrics.csv")[-1] for arm in "ab")
        assert_same(*({k: v for k, v in row.items() if "time/" not in k} for row in (a, b)))


@pytest.mark.slow
def test_equal_arms_on_other_seeds_make_no_claim(toy, tmp_path):
    """The runs in this process, for they are many; the rest is the comparison's own way to a verdict."""
    short = replaced(replaced(words(toy, tmp_path), "--epochs", 1), "--val-every", 1)
    line = [*short, "--seeds", "6", "--arm", "a", "--arm", "b", "seed=1000"]
    folder = tmp_path / "exp"
    cell, _ = opened(line, folder)
    record = cell.record
    for run, job in zip(record.runs, list_jobs([cell], 0, Command()), strict=True):
        train.main(job.words)
        run.status, run.score = "done", final_score(folder / run.folder, "val/mAP50-95")
    conclude(folder, record)
    verdict = record.verdicts["b"]
    assert verdict.low_pictures < verdict.mean < verdict.high_pictures
    assert verdict.pairs == 6 and verdict.sd > 0 and verdict.kind not in ("helps", "hurts")
    assert "share neither head nor order" in " ".join(record.notes)


def what_a_comparison_leaves(folder: Path, record: Record) -> None:
    stored = read_record(folder)
    assert stored.state == "complete" and stored.verdicts == record.verdicts
    assert [(look.pairs, look.verdicts) for look in stored.looks] == [(2, {"b": "undecided"})]
    assert stored.fingerprint.threads == max(len(os.sched_getaffinity(0)) // 2, 1)
    for run in stored.runs:
        place = folder / run.folder
        assert run.status == "done" and (place / "weights/best.pt").exists() and (place / "console.txt").exists()
        assert not (place / "weights/last.pt").exists()
        assert json.loads((place / "run.json").read_text())["threads"] == stored.fingerprint.threads
        assert run.score == read_metrics(place / "metrics.csv")[-1]["val/mAP50-95"]
    assert yaml.safe_load((folder / "runs/b/seed1/hyp.yaml").read_text())["seed"] == 1
    for name in ("report.html", "report.md", "results.csv"):
        assert (folder / name).stat().st_size > 500
    assert len((folder / "results.csv").read_text().splitlines()) == 1 + 4


def repeated_it_makes_only_what_is_missing(line: list[str], folder: Path, record: Record) -> None:
    made = {run.folder: (folder / run.folder / "hyp.yaml").stat().st_mtime_ns for run in record.runs}
    (folder / "runs/b/seed1/metrics.csv").unlink()  # a broken run
    interrupted = ["--hyp", folder / "arms/b.yaml", "--seed", 2, "--project", folder / "runs/b", "--name", "seed2"]
    train.main([*map(str, interrupted), "--stop-after", "1"])
    again = compare.main(
        [("3" if word == "2" and before == "--seeds" else word) for before, word in pairwise(["", *line])]
    )
    assert again.seeds == [0, 1, 2] and len(again.runs) == 6
    assert "going on after epoch 1" in (folder / "runs/b/seed2/console.txt").read_text()
    changed = {
        run.folder
        for run in again.runs
        if made.get(run.folder) != (folder / run.folder / "hyp.yaml").stat().st_mtime_ns
    }
    assert changed == {"runs/b/seed1", "runs/a/seed2", "runs/b/seed2"}
    assert run_of(again, "b", 1).score == run_of(record, "b", 1).score  # a run is repeatable
    assert [look.pairs for look in again.looks] == [2, 3]
    assert again.verdicts["b"].mean == again.verdicts["b"].sd == 0  # the interrupted run, too


@pytest.mark.slow
def test_a_crash_and_a_divergence_are_kept_and_said(toy, tmp_path, capsys, forked_runs):
    (tmp_path / "broken.pt").write_bytes(b"no weights")
    line = [*words(toy, tmp_path), "--seeds", "2", "--arm", "broken", f"weights={tmp_path}/broken.pt"]
    line += ["--arm", "wild", "optimizer=sgd", "lr0=10", "clip_norm=null", "warmup=none", "nbs=8", "box=1e14"]
    with pytest.raises(SomeFailed, match=r"2 runs \(broken seed 0, broken seed 1\)"):
        compare.main(line)
    out = capsys.readouterr().out
    assert "broken seed 0: failed (exit code 2), its last lines:" in out and "broken.pt" in out
    record = read_record(tmp_path / "exp")
    assert [run_of(record, "broken", seed).status for seed in (0, 1)] == ["failed", "failed"]  # the others go on
    assert [run_of(record, "wild", seed).status for seed in (0, 1)] == ["diverged", "diverged"]
    assert record.state == "incomplete" and record.verdicts == {} and record.looks == []
    assert "no verdict: 0 whole pairs" in out
    page = (tmp_path / "exp/report.html").read_text()
    assert "broken" in page and "diverged" in page


@pytest.mark.slow
def test_ctrl_c_stops_every_run_and_keeps_what_is_finished(toy, tmp_path, forked_runs):
    line = [*words(toy, tmp_path), "--seeds", "4", "--warmup", "--epochs", "60", "--workers", "1"]
    process = forked.Popen(  # its runs are forks of that fork
        [sys.executable, REPO / "compare.py", *line], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and len(list(tmp_path.glob("exp/runs/*/seed0/metrics.csv"))) < 2:
        time.sleep(0.2)
    children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130 and "Repeat the command to go on." in out
    assert len(children) == 2 and not any(Path(f"/proc/{pid}").exists() for pid in children)
    record = read_record(tmp_path / "exp")
    assert len(record.runs) == 8 and record.looks == []


def test_a_run_is_a_start_of_train_py(tmp_path):
    """A real one, which a mistyped option ends before it has imported much."""
    job = Job("warm", 0, tmp_path / "run", ["--epocs", "3"])
    ((child, code),) = run_all([job], ["cpu"], 1, lambda: None, lambda running: None)
    assert child.job is job and code == 2
    assert "Did you mean 'epochs'?" in (tmp_path / "run/console.txt").read_text()


def test_both_arms_see_the_same_batches(toy):
    """While arms share data, imgsz, batch and augmentation, their pictures and boxes are equal bit for bit."""
    argv = ["--data", str(toy), "--weights", "w.pt", "--imgsz", "64", "--batch", "8", "mixup=0.5", "--seed", "3"]
    arms = read_command([*argv, "--arm", "a", "--arm", "b", "warmup_epochs=0", "lr0=0.1", "optimizer=adamw"])[2]
    index = build_index(load_dataset_yaml(toy), "train")
    loaders = [build_train_loader(index, arm.hyp, batch=8, workers=0) for arm in arms]
    for epoch in (0, 1):
        for one, other in zip(loaders[0].epoch(epoch), loaders[1].epoch(epoch), strict=True):
            assert one.keys() == other.keys()
            for key, value in one.items():
                assert np.array_equal(np.asarray(value), np.asarray(other[key])), key


@pytest.fixture
def copied(toy, tmp_path) -> Path:
    """A dataset of its own, to be changed."""
    import shutil

    shutil.copytree(toy.parent, tmp_path / "data")
    return tmp_path / "data/toy.yaml"


def test_identity_is_that_of_the_content(toy, copied):
    here, there = identify(load_dataset_yaml(toy)), identify(load_dataset_yaml(copied))
    assert here.content == there.content and there.unchanged()
    picture = next((copied.parent / "images/train").iterdir())
    os.utime(picture)
    assert not there.unchanged()  # touched: looked at again
    touched = identify(load_dataset_yaml(copied), {"state": there.state, "content": there.content})
    assert touched.content == there.content and touched.state != there.state
    known = {"state": touched.state, "content": "believed"}
    assert identify(load_dataset_yaml(copied), known).content == "believed"


@pytest.mark.parametrize("what", ["label", "picture", "new", "renamed", "names"])
def test_every_change_of_the_data_is_noticed(copied, what):
    before = identify(load_dataset_yaml(copied))
    picture = min((copied.parent / "images/val").iterdir())
    label = copied.parent / "labels/val" / f"{picture.stem}.txt"
    if what == "label":
        label.write_text("0 0.5 0.5 0.25 0.25\n")
    elif what == "picture":
        picture.write_bytes(max((copied.parent / "images/val").iterdir()).read_bytes())
    elif what == "new":
        (picture.parent / "zz.jpg").write_bytes(picture.read_bytes())
    elif what == "renamed":
        picture.rename(picture.with_stem("zz"))
    else:
        copied.write_text(copied.read_text().replace("mug", "cup"))
    assert identify(load_dataset_yaml(copied)).content != before.content
    assert not before.unchanged() or what == "names"


def test_a_dataset_that_changes_meanwhile_stops_the_comparison(copied, tmp_path, monkeypatch):
    cell, identities = opened([*words(copied, tmp_path), "--warmup", "--seeds", "2"], tmp_path / "exp")
    next((copied.parent / "labels/train").iterdir()).write_text("1 0.5 0.5 0.2 0.2\n")
    with pytest.raises(UserError, match="has changed since this comparison began"):
        compare.make_runs([cell], Command(), ["cpu"], 1, identities, run_all)
    assert not (tmp_path / "exp/runs").exists()


@pytest.mark.skipif(os.name != "posix", reason="needs sleep")
@pytest.mark.parametrize("groups", [True, False])
def test_a_run_that_does_not_end_is_killed_also_where_processes_have_no_groups(monkeypatch, groups):
    if not groups:  # as on Windows
        monkeypatch.delattr(os, "killpg")
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as process:
        _kill(process)
        assert process.wait(10) == -signal.SIGKILL


def test_no_space_left_is_said_before_a_run_begins(toy, tmp_path, monkeypatch):
    cell, identities = opened([*words(toy, tmp_path), "--warmup", "--seeds", "2"], tmp_path / "exp")
    full = compare.shutil.disk_usage(tmp_path)._replace(free=10**6)
    monkeypatch.setattr(compare.shutil, "disk_usage", lambda path: full)
    with pytest.raises(UserError, match="only 1 MB are free.*finished runs are kept"):
        compare.make_runs([cell], Command(), ["cpu"], 1, identities, run_all)


def test_two_at_once_in_one_folder_are_refused(toy, tmp_path):
    from utils.files import locked

    (tmp_path / "exp").mkdir()
    with locked(tmp_path / "exp/.lock") as held, pytest.raises(UserError, match="another compare.py is at work"):
        assert held
        compare.main([*words(toy, tmp_path), "--warmup", "--seeds", "2"])


def test_the_code_hash_covers_what_train_imports_and_nothing_of_the_comparison():
    names = {path.relative_to(REPO).as_posix() for path in reached(REPO / "train.py")}
    assert {
        "train.py",
        "utils/schedule/rates.py",
        "data/loading/mosaic.py",
        "models/loss/detection.py",
        "utils/env.py",
    } <= names
    assert not {"compare.py", "val.py", "utils/compare/arms.py", "utils/compare/report/page.py"} & names
    assert code_hash() != code_hash("val.py")


def test_plan_shows_every_arm_and_the_cost_of_all_runs(tmp_path, toy, capsys):
    """Of 20 pictures; the numbers are those of the schedules that the runs would have."""
    words = ["--plan", "--data", str(toy), "--weights", "nowhere.pt", "--project", str(tmp_path), "--seeds", "3"]
    words += [
        "--epochs",
        "5",
        "--max-seeds",
        "7",
        "--arm",
        "whole",
        "batch=900",
        "--arm",
        "small",
        "batch=8",
        "noval=1",
    ]
    assert compare.answered(words)
    lines = capsys.readouterr().out.splitlines()
    assert any("5 epochs x 1 batches of 20" in line for line in lines), "the batch of all pictures"
    assert any("5 epochs x 3 batches of 8" in line for line in lines)
    assert "each run  whole 5 batches and 7 evaluations, small 15 batches and 3 evaluations" in lines
    costs = [line for line in lines if line.startswith("cost ")][:2]
    assert "6 runs (2 arms x 3 seeds): 60 batches and 30 evaluations" in costs[0]
    assert "14 runs (2 arms x 7 seeds): 140 batches and 70 evaluations" in costs[1]
    assert {p.name for p in tmp_path.iterdir()} == {"plan.png"}
    with pytest.raises(UserError, match="arm 'b': plan"):
        read_command(["--arm", "a", "--arm", "b", "plan=true"])


def test_a_plan_of_folds_counts_what_a_fold_leaves_to_train_on(tmp_path, toy, capsys):
    config = yaml.safe_load(toy.read_text())
    alone = tmp_path / "alone.yaml"  # without val: folds are dealt from train
    alone.write_text(yaml.safe_dump({k: v for k, v in config.items() if k != "val"} | {"path": str(toy.parent)}))
    words = ["--plan", "--data", str(alone), "--weights", "nowhere.pt", "--project", str(tmp_path), "--warmup"]
    assert compare.answered([*words, "--folds", "6", "--epochs", "2", "--batch", "4"])
    trained = count_training(Hyp(data=str(alone), fold="1/6"))[0]
    told = capsys.readouterr().out
    assert trained < 20 and f"2 epochs x {-(-trained // 4)} batches of 4" in told
    assert "12 runs (2 arms x 6 folds)" in told


def test_a_record_plans_with_the_batch_that_a_run_really_has(toy):
    _, _, arms, _, _ = read_command(["--data", str(toy), "--weights", "w.pt", "--epochs", "4", "--batch", "900"])
    record = new_record(arms, {arm.name: 20 for arm in arms}, Fingerprint(), ["cpu"], [])
    assert [(plan.nb, plan.total, plan.nw) for plan in record.arms] == [(1, 4, 1), (1, 4, 0)]
    assert sum("batch 900 is more than there are training pictures" in note for note in record.notes) == 2


def test_devices_are_spread_over_slots():
    assert device_slots("cpu", 3) == ["cpu"] * 3
    with pytest.raises(UserError, match="device"):
        device_slots("cuda:77", None)


def test_help_names_every_option(capsys):
    compare.main(["--help"])
    out = capsys.readouterr().out
    for word in (
        "--arm NAME",
        "--warmup ",
        "--seeds",
        "--max-seeds",
        "--metric",
        "--margin",
        "--jobs",
        "--aa",
        "--lr0",
    ):
        assert word in out
    options = [line.split()[0] for line in out.splitlines() if line.startswith("  --")]
    assert (
        options.count("--name") == options.count("--project") == 1 and "--resume" not in options and "--plan" in options
    )
