"""Several data sets, weights or values of a key in one comparison: declared, answered, shown."""

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

import compare
from tests.helpers.runs import guesser
from tests.utils.compare.compared import make_comparison
from utils.compare.cells.answer import answer
from utils.compare.cells.declare import Asked, declaration, read_asked
from utils.compare.cells.family import Family, choose_root, new_family, open_family, read_family, write_family
from utils.compare.cells.page import write_family_report
from utils.compare.conclude import conclude
from utils.compare.folder import Place, read_record, write_record
from utils.compare.record import Record, Run
from utils.compare.report.page import write_report
from utils.compare.report.words import expected_words
from utils.compare.runs import list_runs, run_words, take_over
from utils.compare.scores import expected_scores
from utils.compare.statistics.folds import expected, folded
from utils.errors import UserError

PAIR = ["--arm", "warm", "finetune", "warmup_epochs=1", "--arm", "cold", "finetune"]
RUN = ["--data", "d.yaml", "--weights", "w.pt"]


def asked(*words: str) -> Asked:
    (one,) = read_asked([*words])
    return one


def names(one: Asked) -> list[str]:
    return [cell.name for cell in one.cells]


def test_one_data_set_is_one_cell_without_a_name():
    one = asked(*RUN, *PAIR)
    assert names(one) == [""] and one.key is None and one.cells[0].arms[0].hyp.data == "d.yaml"


def test_every_data_set_meets_every_weights_file():
    one = asked("--warmup", "--data", "x/a.yaml", "b.yaml", "--weights", "v.pt", "w.pt", "epochs=3")
    assert names(one) == ["a-v", "a-w", "b-v", "b-w"]
    assert [(arm.hyp.data, arm.hyp.weights, arm.hyp.epochs) for cell, arm in one.all][::2] == [
        ("x/a.yaml", "v.pt", 3), ("x/a.yaml", "w.pt", 3), ("b.yaml", "v.pt", 3), ("b.yaml", "w.pt", 3)
    ]  # fmt: skip


def test_the_command_line_replaces_the_weights_of_listed_cells(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("cells: [{data: a.yaml, weights: v.pt, imgsz: 64}, {data: b.yaml, weights: v.pt}]")
    one = asked(str(path), "--warmup", "--weights", "w.pt")
    assert [(arm.hyp.data, arm.hyp.weights, arm.hyp.imgsz) for _, arm in one.all][::2] == [
        ("a.yaml", "w.pt", 64), ("b.yaml", "w.pt", 640)
    ]  # fmt: skip
    assert names(asked(str(path), "--warmup", "--weights", "w.pt", "x.pt")) == ["a-w", "a-x", "b-w", "b-x"]


def test_a_sweep_is_a_cell_for_each_value():
    one = asked(*RUN, *PAIR, "--sweep", "lr0=1e-4,0.001,0.01")
    assert names(one) == ["lr0=0.0001", "lr0=0.001", "lr0=0.01"] and one.key == "lr0"
    assert [[arm.hyp.lr0 for arm in cell.arms] for cell in one.cells] == [[1e-4] * 2, [1e-3] * 2, [1e-2] * 2]
    several = asked("--data", "a.yaml", "b.yaml", "--weights", "w.pt", *PAIR, "--sweep", "optimizer=sgd,adamw")
    assert names(several) == ["a-optimizer=sgd", "a-optimizer=adamw", "b-optimizer=sgd", "b-optimizer=adamw"]
    assert [cell.group for cell in several.cells] == ["a", "a", "b", "b"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--sweep", "lr0=0.1"], "at least two values"),
        (["--sweep", "lr0=0.1,0.1"], "at least two values"),
        (["--sweep", "lro=0.1,0.2"], "no key 'lro'.*lr0"),
        (["--sweep", "data=a.yaml,b.yaml"], "--data A B C"),
        (["--sweep", "warmup_epochs=0,1"], "warmup_epochs is swept, and warm gives it"),
        (["--sweep", "lr0=0.1,99"], "lr0: 99"),
        (["--data", "x/a.yaml", "y/a.yaml"], "two cells are named 'a'"),
        (["--data", "a.yaml", "b.yaml", "--seeds", "6", "--max-seeds", "9"], "number of seeds is fixed"),
        (["--folds", "4", "--sweep", "fold_seed=1,2"], "fold_seed does not go with --folds 4"),
        (["--repeats", "2"], "--repeats goes with --folds"),
    ],
)
def test_what_cannot_be_declared_is_refused(words, message):
    with pytest.raises(UserError, match=message):
        read_asked([*RUN, *PAIR, *words] if "--data" not in words else ["--weights", "w.pt", *PAIR, *words])


def test_a_declaration_file_says_what_the_command_line_said(tmp_path):
    line = ["--data", "a.yaml", "b.yaml", "--weights", "w.pt", *PAIR, "--sweep", "lr0=0.001,0.01", "--seeds", "6"]
    first = asked(*line, "--margin", "0.5", "--within", "2", "epochs=3", "--name", "x")
    path = tmp_path / "declaration.yaml"
    path.write_text(declaration(first, tmp_path))
    again = asked(str(path))
    assert [(c.name, c.group, c.value) for c in again.cells] == [(c.name, c.group, c.value) for c in first.cells]
    assert [arm.settings() for _, arm in again.all] == [arm.settings() for _, arm in first.all]
    own = ("seeds", "margin", "within", "metric", "pool")
    assert [getattr(again.options, k) for k in own] == [getattr(first.options, k) for k in own]
    assert (again.options.project, again.options.name) == (str(tmp_path.parent), tmp_path.name)
    assert asked(str(path), "--seeds", "9").options.seeds == 9  # the command line counts more


def test_parts_of_a_file_share_settings_and_are_comparisons_of_their_own(tmp_path):
    path = tmp_path / "study.yaml"
    content = {
        "name": "study", "seeds": 6, "settings": {"hyp": "finetune", "weights": "w.pt", "epochs": 3},
        "arms": {"none": {"warmup_epochs": 0}, "warm": "warmup_epochs=1"},
        "parts": {
            "core": {"cells": [{"data": "a.yaml", "imgsz": 64}, {"data": "b.yaml", "imgsz": 96, "name": "bee"}]},
            "sgd": {"data": "a.yaml", "settings": {"optimizer": "sgd"}, "seeds": 8},
        },
    }  # fmt: skip
    path.write_text(yaml.safe_dump(content))
    core, sgd = read_asked([str(path)])
    assert names(core) == ["a", "bee"] and [arm.hyp.imgsz for _, arm in core.all] == [64, 64, 96, 96]
    assert [arm.hyp.warmup_epochs for _, arm in core.all] == [0, 1, 0, 1]
    assert names(sgd) == [""] and {arm.hyp.optimizer for _, arm in sgd.all} == {"sgd"}
    assert (core.options.seeds, sgd.options.seeds) == (6, 8)
    assert (core.options.project, core.options.name) == ("runs/compare/study", "core")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("names: [a]\ntrain: x", "declares no comparison.*Did you mean --data"),
        ("arms: {a: {}, b: {lr0: 0.1}}\nepochs: 3", "unknown key 'epochs'.*under settings"),
        ("arms: {a: {}, b: {lr0: 0.1}}\nseds: 3", "unknown key 'seds'.*seeds"),
        ("arms: [a, b]", "arms: is a list"),
        ("cells: {a: b}\narms: {a: {}, b: {lr0: 0.1}}", "cells: is a list"),
        ("cells: [{data: d.yaml, imgz: 3}, {data: e.yaml}]\narms: {a: {}, b: {lr0: 0.1}}", "unknown key 'imgz'"),
        ("parts: [a]", "parts: is a list"),
    ],
)
def test_a_file_that_declares_nonsense_is_named(tmp_path, content, message):
    path = tmp_path / "x.yaml"
    path.write_text(content)
    with pytest.raises(UserError, match=message):
        read_asked([str(path), "--weights", "w.pt"])


def make_family(folder: Path, effects: dict[str, float], key=None, seeds: int = 6, folds=None, **ended) -> Family:
    """A family as compare.py leaves it: {cell: effect of cold in points}; `a=1` is a cell of group a at value 1."""
    cells = []
    for name, effect in effects.items():
        make_comparison(folder / name, {"warm": 0.0, "cold": effect}, seeds, ended.get(name))
        record = read_record(folder / name)
        record.folds = folds
        shift = 7 * len(cells)  # other seeds in every cell, or all cells would hold the same numbers
        for run in record.runs:
            run.score = None if run.score is None else run.score + 0.001 * math.sin(shift + run.seed + len(run.arm))
        write_record(folder / name, record)
        group, _, value = name.partition("-v=")
        cells.append({"name": name, "group": group, "value": float(value) if key else None})
    promise = {"metric": "val/mAP50-95", "margin": 0.01, "seeds": seeds, "reference": "warm", "within": 0.01}
    family = Family(promise=promise | {"folds": folds}, key=key, cells=cells)
    answer(family, [read_record(folder / cell["name"]) for cell in cells])
    write_family(folder, family)
    return family


def test_over_data_sets_the_mean_of_their_differences_is_answered(tmp_path):
    effects = {"a": 2.0, "b": 2.5, "c": 1.5, "d": 2.2, "e": 1.8}
    (told,) = make_family(tmp_path, effects).answers
    records = {name: read_record(tmp_path / name) for name in effects}
    means = [
        np.mean([r.run_of("cold", s).score - r.run_of("warm", s).score for s in range(6)]) for r in records.values()
    ]
    assert told.kind == "helps" and told.question == "score" and [e.group for e in told.effects] == list(effects)
    assert told.pooled.mean == pytest.approx(np.mean(means)) and told.pooled.better == 1
    assert told.pooled.new_low < told.pooled.low < told.pooled.mean < told.pooled.high < told.pooled.new_high
    assert "over 5 data sets and weights" in told.sentence and "a new data set would show" in told.sentence


def test_under_four_data_sets_nothing_is_claimed_in_general(tmp_path):
    (told,) = make_family(tmp_path, {"a": 5.0, "b": 5.0, "c": 5.0}).answers
    assert told.kind == "none" and "under 4 of them nothing is claimed in general" in told.sentence


def test_no_answer_before_every_run_has_ended(tmp_path, undrawn):
    family = make_family(tmp_path, {"a": 2.0, "b": 2.0, "c": 2.0, "d": 2.0}, c={("cold", 3): "missing"})
    assert family.answers == [] and family.answered is None and family.state == "incomplete"
    write_family_report(tmp_path)
    assert "no answer yet" in (tmp_path / "report.html").read_text()


def test_a_sweep_asks_for_the_best_value_and_for_the_width(tmp_path):
    family = make_family(tmp_path, {"-v=0.001": 1.0, "-v=0.01": 2.0, "-v=0.1": 3.0}, key="v")
    best, width = family.answers
    assert (best.question, width.question, width.unit) == ("best", "range", "decades")
    assert (
        best.kind == "helps" and best.effects[0].low < best.effects[0].mean and "cold is best at 0.1" in best.sentence
    )
    assert 0 <= abs(width.effects[0].mean) <= 2 and "reaches an end of the sweep" in width.sentence


def test_a_sweep_over_words_has_no_width(tmp_path):
    family = make_family(tmp_path, {"-v=1": 1.0, "-v=2": 2.0}, key="v")
    for cell, word in zip(family.cells, ("sgd", "adamw"), strict=True):
        cell.value = word
    family.key = "optimizer"
    answer(family, [read_record(tmp_path / cell.name) for cell in family.cells])
    assert [a.kind for a in family.answers] == ["helps", "none"] and "no positive numbers" in family.answers[1].sentence


def test_the_report_tells_every_answer_and_every_cell(tmp_path, undrawn):
    effects = {f"{group}-v={value}": 1.0 for group in "abcd" for value in (0.001, 0.01)}
    family = make_family(tmp_path, effects, key="v")
    page = write_family_report(tmp_path).read_text()
    for told in family.answers:
        assert told.sentence.replace("'", "&#39;") in page
    assert page.count("<details>") == 8 and page.count("data:image/png") >= 4 + 2
    assert "<script" not in page and "prefers-color-scheme: dark" in page
    text = (tmp_path / "report.md").read_text()
    assert all(name in text for name in effects)
    rows = (tmp_path / "results.csv").read_text().splitlines()
    assert len(rows) == 1 + 8 * 12 and rows[0].startswith("cell,group,value,arm,seed")


def test_after_an_answer_nothing_declared_can_change(tmp_path):
    one = asked("--data", "a.yaml", "b.yaml", "c.yaml", "d.yaml", "--weights", "w.pt", "--seeds", "6", *PAIR)
    fresh = new_family(one, [])
    open_family(tmp_path, fresh, set())
    more = asked("--data", "a.yaml", "b.yaml", "--weights", "w.pt", "--seeds", "9", *PAIR)
    assert open_family(tmp_path, new_family(more, []), {"seeds"}).promise.seeds == 9  # before it, everything may
    family = read_family(tmp_path)
    family.answered = "2026-01-01 10:00:00"
    write_family(tmp_path, family)
    with pytest.raises(UserError, match="--seeds was declared as 9"):
        open_family(tmp_path, fresh, {"seeds"})
    assert open_family(tmp_path, fresh, set()).promise.seeds == 9


def test_other_cells_after_an_answer_begin_a_new_folder(tmp_path):
    folder = tmp_path / "exp"
    family = make_family(folder, {"a": 1.0, "b": 1.0, "c": 1.0, "d": 1.0})
    records = {cell.name: read_record(folder / cell.name) for cell in family.cells}
    assert choose_root(str(tmp_path), "exp", family, records) == folder
    assert choose_root(str(tmp_path), "exp", family, records | {"e": records["a"]}) == tmp_path / "exp2"
    swept = family.model_copy(update={"key": "lr0"})
    assert choose_root(str(tmp_path), "exp", swept, records) == tmp_path / "exp2"
    alone = tmp_path / "alone"
    shutil.copytree(folder / "a", alone)
    assert choose_root(str(tmp_path), "alone", family, records) == tmp_path / "alone2"


@pytest.mark.slow
def test_a_whole_comparison_over_two_data_sets(toy, tmp_path, forked_runs, undrawn):
    """From the command line to the page; then one run is lost, and only that one is made again."""
    other = tmp_path / "other.yaml"
    other.write_text(f"path: {toy.parent}\n{toy.read_text()}")
    line = ["--imgsz", "64", "--epochs", "1", "--batch", "8", "--hyp", "demo", "--jobs", "2", "--workers", "0"]
    line += ["--weights", str(guesser()), "--project", str(tmp_path / "runs"), "--seeds", "2"]
    line += ["--data", str(toy), str(other), "--arm", "a", "--arm", "b", "lr0=0.003"]
    family = compare.main(line)
    folder = tmp_path / "runs/exp"
    assert isinstance(family, Family) and family.state == "complete" and [a.kind for a in family.answers] == ["none"]
    cells = [cell.name for cell in family.cells]
    scores = {cell: [run.score for run in read_record(folder / cell).runs] for cell in cells}
    assert len(cells) == 2 and scores[cells[0]] == scores[cells[1]]  # the same pictures under two names
    lost = folder / cells[1] / "runs/b/seed1"
    made = (folder / cells[0] / "runs/a/seed0/metrics.csv").stat().st_mtime_ns
    shutil.rmtree(lost)
    again = compare.main([str(folder / "declaration.yaml"), "--jobs", "2"])
    assert (lost / "metrics.csv").is_file() and again.state == "complete"
    assert (folder / cells[0] / "runs/a/seed0/metrics.csv").stat().st_mtime_ns == made
    assert [run.score for run in read_record(folder / cells[1]).runs] == scores[cells[1]]


def test_folds_are_pairs_of_their_own_split(toy):
    one = asked("--data", str(toy), "--weights", "w.pt", "--folds", "3", "--repeats", "2", *PAIR)
    assert one.options.seeds == 6
    arm = one.cells[0].arms[0]
    words = [run_words(Path("x"), Run(arm="warm", seed=k, folder="r"), arm, 1, one.command, 3) for k in range(6)]
    told = [w[w.index("--fold") + 1] + " " + w[w.index("--fold-seed") + 1] for w in words]
    assert told == ["1/3 0", "2/3 0", "3/3 0", "1/3 1", "2/3 1", "3/3 1"]
    assert [Record(folds=3, repeats=2).pair(k) for k in (0, 5)] == ["fold 1/3 of deal 1", "fold 3/3 of deal 2"]


@pytest.mark.parametrize(
    "words", [["--seeds", "4"], ["--max-seeds", "9"], ["--fold", "1/3"], ["--arm", "c", "fold=2/3"]], ids=str
)
def test_what_does_not_go_with_folds_is_refused(words):
    with pytest.raises(UserError, match="does not go with --folds 3"):
        read_asked([*RUN, *PAIR, "--folds", "3", *words])


def test_the_verdict_over_folds_is_the_corrected_one_and_waits_for_all(tmp_path, undrawn):
    make_comparison(tmp_path, {"warm": 0.0, "cold": 1.0}, 6, folds=6, verdicts={}, looks=[])
    record = read_record(tmp_path)
    conclude(tmp_path, record)
    verdict, d = record.verdicts["cold"], scores_of(record, "cold") - scores_of(record, "warm")
    expected = folded(d, 1 / 5, 0.01)
    assert (verdict.low, verdict.high, verdict.p) == pytest.approx((expected.low, expected.high, expected.p))
    assert verdict.p_sign_flip is None and "6 folds, corrected" in verdict.sentence
    write_record(tmp_path, record)
    assert (
        "Nadeau and Bengio" in write_report(tmp_path).read_text()
        and "fold 6/6" in (tmp_path / "report.html").read_text()
    )
    record.runs[3].status, record.looks = "missing", []
    conclude(tmp_path, record)
    assert record.verdicts == {}


def test_the_expected_score_of_one_model_is_told_over_folds_alone(tmp_path, undrawn):
    make_comparison(tmp_path / "folds", {"warm": 0.0, "cold": 1.0}, 6, folds=6)
    make_comparison(tmp_path / "seeds", {"warm": 0.0, "cold": 1.0}, 6)
    record = read_record(tmp_path / "folds")
    assert expected_scores(record)["cold"] == expected(scores_of(record, "cold"), 1 / 5)
    page = write_report(tmp_path / "folds").read_text()
    assert expected_words(expected_scores(record)["cold"]) in page and "expected on new pictures" in page
    assert expected_scores(read_record(tmp_path / "seeds")) == {}
    record.runs[3].status = "missing"
    assert expected_scores(record) == {}


def test_folds_of_several_data_sets_are_pooled_and_inside_a_cell_corrected(tmp_path, undrawn):
    """Over cells the test is that over their means, for folds as for seeds; tau and the intervals know of the folds."""
    effects = {"a": 2.0, "b": 2.5, "c": 1.5, "d": 2.2}
    seeds = make_family(tmp_path / "seeds", effects)
    folds = make_family(tmp_path / "folds", effects, folds=6)
    for mine, other in zip(folds.answers[0].effects, seeds.answers[0].effects, strict=True):
        record = read_record(tmp_path / "folds" / mine.group)
        expected = folded(scores_of(record, "cold") - scores_of(record, "warm"), 1 / 5, 0.01)
        assert (mine.mean, mine.low, mine.high) == pytest.approx((expected.mean, expected.low, expected.high))
        assert mine.variance == pytest.approx(other.sd**2 * (1 / 6 + 1 / 5))
    one, two = folds.answers[0].pooled, seeds.answers[0].pooled
    assert (one.mean, one.low, one.p) == (two.mean, two.low, two.p) and one.tau <= two.tau
    assert "Nadeau and Bengio" in write_family_report(tmp_path / "folds").read_text()


def test_a_sweep_over_folds_is_corrected(tmp_path):
    effects = {"-v=0.001": 0.1, "-v=0.01": 0.2, "-v=0.1": 0.3}
    (seeds, *_), (folds, *_) = (make_family(tmp_path / str(k), effects, key="v", folds=k).answers for k in (None, 6))
    one, two = folds.effects[0], seeds.effects[0]
    assert one.mean == two.mean and one.low <= two.low and one.high > two.high and one.variance > two.variance
    assert "6 folds" in folds.sentence and "other half of the folds" in folds.sentence


def test_every_cell_has_its_own_folds(toy):
    one = asked("--data", str(toy), "b.yaml", "--weights", "w.pt", "--folds", "3", *PAIR, "--sweep", "lr0=0.01,0.02")
    assert len(one.cells) == 4 and one.options.seeds == 3 and new_family(one, []).promise.folds == 3
    arm = one.cells[2].arms[0]
    words = run_words(Path("x"), Run(arm="warm", seed=1, folder="r"), arm, 1, one.command, 3)
    assert words[words.index("--fold") + 1] == "2/3" and arm.hyp.data == "b.yaml"


def scores_of(record: Record, arm: str) -> np.ndarray:
    return np.array([record.run_of(arm, seed).score for seed in record.seeds])


def test_what_another_comparison_has_made_is_taken_over(tmp_path):
    settings = {"warm": {"lr0": 0.1, "seed": 0}, "cold": {"lr0": 0.2, "seed": 0}}
    make_comparison(tmp_path / "one", seeds=3, settings=settings)
    names = {"runs": [], "looks": [], "verdicts": {}, "secondary": {}}
    make_comparison(tmp_path / "two", {"a": 0.0, "b": 0.0}, 4, settings={}, **names)
    record = read_record(tmp_path / "two")
    record.settings = {"a": settings["cold"] | {"seed": 1}, "b": settings["warm"] | {"lr0": 0.3}}
    shutil.rmtree(tmp_path / "two/runs")
    list_runs(record, 4, tmp_path / "two")
    take_over([Place("", tmp_path / "two", record, [])], str(tmp_path))
    one = read_record(tmp_path / "one")
    got = {(run.arm, run.seed): run.score for run in record.runs if run.ended}
    assert got == {("a", 0): one.run_of("cold", 1).score, ("a", 1): one.run_of("cold", 2).score}
    record.fingerprint.code, record.runs = "other", []
    shutil.rmtree(tmp_path / "two/runs")
    list_runs(record, 4, tmp_path / "two")
    take_over([Place("", tmp_path / "two", record, [])], str(tmp_path))
    assert not any(run.ended for run in record.runs)


@pytest.mark.slow
def test_all_comparisons_of_a_project_are_listed_and_drawn_again(tmp_path, undrawn, capsys):
    make_family(tmp_path / "many", {"a": 2.0, "b": 2.0, "c": 2.0, "d": 2.1})
    make_comparison(tmp_path / "one")
    assert compare.answered(["--list", "--project", str(tmp_path)])
    lines = capsys.readouterr().out.splitlines()
    assert [Path(line.split()[0]).name for line in lines] == ["many", "a", "b", "c", "d", "one"]
    assert "cold, score: helps" in lines[0] and "12/12 runs" in lines[-1]
    for folder in (tmp_path / "many", tmp_path / "one"):
        (folder / "report.html").unlink(missing_ok=True)
    assert compare.answered(["--report-only", str(tmp_path / "many"), str(tmp_path / "one")])
    assert all(
        (folder / "report.html").is_file() for folder in (tmp_path / "many", tmp_path / "one", tmp_path / "many/a")
    )
    for words in (["--report-only"], ["--report-only", str(tmp_path)], ["--list", "--project", str(tmp_path / "no")]):
        with pytest.raises(UserError):
            compare.answered(words)
