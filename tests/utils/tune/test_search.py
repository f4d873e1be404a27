"""tune.py search: trials on record, runs ended early, the winner on fresh seeds. Needs Optuna, an extra."""

import importlib.util
import json
import logging
import sqlite3

import pytest
import yaml

from utils.compare.launch.local import Child, Job, run_all
from utils.compare.record import ArmVerdict
from utils.config.files import load_hyp_file
from utils.config.schema import Command, Hyp
from utils.errors import SomeFailed, UserError
from utils.tune.search.asked import read_search
from utils.tune.search.main import answering, search
from utils.tune.search.page import look, write_search
from utils.tune.search.space import parse_axis
from utils.tune.search.study import Study, Told, best_first
from utils.tune.search.trials import Trials
from utils.tune.search.verify import Verified, sentence, winner, write_tuned

optuna = pytest.importorskip("optuna")
pytestmark = pytest.mark.extra
AXES = [parse_axis("lr0=log:1e-4:1e-1"), parse_axis("optimizer=sgd|adamw"), parse_axis("close_mosaic=0:5")]


def opened(tmp_path, sampler="random", pruner="none", promise="p"):
    study = Study(tmp_path, None, "s", promise)
    study.sample_by(sampler, 0, AXES, pruner, 10)
    return study


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_values_lie_in_the_space_and_the_settings_come_first(tmp_path, sampler):
    study = opened(tmp_path, sampler)
    study.try_early({"lr0": 0.01, "optimizer": "sgd", "close_mosaic": 3}, default=True)
    for k in range(12):
        trial = study.ask(AXES)
        assert all(axis.holds(trial.params[axis.key]) for axis in AXES)
        study.tell(trial, "complete", k / 10)
    told = study.told()
    assert told[0].default and told[0].params == {"lr0": 0.01, "optimizer": "sgd", "close_mosaic": 3}
    assert [t.number for t in best_first(told)] == list(range(11, -1, -1)) and study.taken() == 12


def test_a_search_goes_on_where_it_was_killed_without_drawing_the_same_again(tmp_path):
    first = opened(tmp_path)
    done, lost = first.ask(AXES), None
    first.tell(done, "complete", 0.5)
    lost = first.ask(AXES)
    place = first.place(lost)  # and here the program is killed
    study = opened(tmp_path)
    assert study.take_up() == 1
    again = study.ask(AXES)
    assert again.params == lost.params and study.place(again) == place
    study.tell(again, "complete", 0.7)
    fresh = study.ask(AXES)
    assert fresh.params not in (done.params, lost.params)
    assert [t.state for t in study.told()] == ["complete", "complete", "running"] and study.taken() == 3


def test_another_space_and_a_database_that_does_not_answer_are_refused(tmp_path):
    opened(tmp_path)
    with pytest.raises(UserError, match="another --name"):
        opened(tmp_path, promise="q")
    for url in (
        "sqlite:////no/such/folder/t.db",
        "postgresql://me:secret@nowhere.invalid/db",
        "nonsense://x",
        "no url",
    ):
        with pytest.raises(UserError, match="cannot be opened") as told:
            Study(tmp_path, url, "s", "p")
        assert "secret" not in str(told.value)


def test_a_database_that_is_lost_meanwhile_is_one_message(tmp_path):
    study = opened(tmp_path)
    with sqlite3.connect(tmp_path / "trials.db") as database:
        database.execute("DROP TABLE trials")
    with pytest.raises(UserError, match="does not answer any more.*Finished trials are kept") as told, answering():
        study.ask(AXES)
    assert "\n" not in str(told.value)


def test_a_grid_is_made_once_and_whole(tmp_path):
    axes = [parse_axis("lr0=log:1e-4:1e-2:3"), parse_axis("optimizer=sgd|adamw")]
    seen = []
    for _ in range(2):  # opened again in between
        study = Study(tmp_path, None, "g", "p")
        study.sample_by("grid", 0, axes, "none", 3)
        for _ in range(3):
            trial = study.ask(axes)
            seen.append(tuple(sorted(trial.params.items())))
            study.tell(trial, "complete", 0.1)
    assert len(set(seen)) == 6


class Ended:
    """A process that notes that it was told to end."""

    told = False

    def terminate(self):
        self.told = True


def test_a_run_that_falls_behind_is_ended_and_one_that_leads_is_not(tmp_path):
    study = opened(tmp_path, pruner="median")
    trials = Trials(study, AXES, {}, Command(), "val/mAP50-95", 99, 1)

    def run(scores):
        trial = study.ask(AXES)
        folder = study.place(trial)
        folder.mkdir(parents=True)
        trials.under_way[folder] = trial
        child = Child(Job("t", 0, folder, []), "cpu", Ended())
        for n in range(1, len(scores) + 1):
            rows = "".join(f"{epoch},{score}\n" for epoch, score in enumerate(scores[:n], 1))
            (folder / "metrics.csv").write_text("epoch,val/mAP50-95\n" + rows)
            trials.watch([child])
        if not child.process.told:
            study.tell(trial, "complete", scores[-1])
            del trials.under_way[folder]
        return child.process.told

    assert not any(run([0.1 * k, 0.2 * k, 0.3 * k]) for k in (1.0, 1.1, 1.2, 0.9))
    assert run([0.01, 0.02, 0.03]) and not run([0.2, 0.4, 0.6])
    assert study.told()[0].curve == pytest.approx({1: 0.1, 2: 0.2, 3: 0.3})


def test_a_run_that_diverged_counts_as_0_and_three_failures_in_a_row_end_the_search(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    study = opened(tmp_path)
    trials = Trials(study, AXES, {}, Command(), "val/mAP50-95", 99, 1)

    def end(code):
        trial = study.ask(AXES)
        folder = study.place(trial)
        folder.mkdir(parents=True)
        (folder / "console.txt").write_text("error: no room\n")
        trials.under_way[folder] = trial
        trials.ended(Child(Job("t", 0, folder, []), "cpu"), code)

    end(3)
    assert [(t.state, t.value) for t in study.told()] == [("complete", 0.0)] and "counts as 0" in caplog.text
    end(2), end(2), end(3), end(2), end(2)  # never three in a row
    with pytest.raises(SomeFailed, match="3 trials in a row(?s:.*)no room(?s:.*)Finished trials are kept"):
        end(2)
    assert study.taken() == 2  # what failed is made again


def verdict(kind, mean):
    return ArmVerdict(kind=kind, sentence="s", pairs=6, mean=mean, low=mean - 0.01, high=mean + 0.01)


def told(number, value, default=False, **params):
    return Told(number, params, "complete", value, {1: value}, "f", default)


def test_luck_is_what_fresh_seeds_do_not_confirm_and_only_a_sure_winner_is_written(tmp_path):
    a = Verified(told(7, 0.55, lr0=0.003), verdict("helps", 0.012), 0.05)
    b = Verified(told(3, 0.56, lr0=0.03), verdict("undecided", 0.02), 0.06)
    assert winner([b]) is None and winner([b, a]) is a
    assert a.luck == pytest.approx(0.038) and "+3.80 were luck" in sentence(a, 24, 0)
    unlucky = sentence(Verified(a.trial, a.verdict, 0.002), 24, 0)
    assert "luck" not in unlucky and "the search, on seed 0, had found 1.00 less" in unlucky
    place = tmp_path / "tuned.yaml"
    hyp = Hyp(weights="w.pt", data="d.yaml", epochs=20, lr0=0.01)
    written = [write_tuned(place, {}, hyp, a, "val/mAP50-95", tmp_path) for _ in range(2)]
    assert [p.name for p in written] == ["tuned.yaml", "tuned2.yaml"]
    kept = yaml.safe_load(place.read_text())
    assert kept == {"epochs": 20, "lr0": 0.003} and "+1.20 points" in place.read_text()
    assert load_hyp_file(str(place))[0]["lr0"] == 0.003


def test_the_page_tells_the_gain_and_the_luck(tmp_path):
    trials = [told(0, 0.5, True, lr0=0.01, optimizer="sgd"), told(1, 0.55, lr0=0.02, optimizer="a<b>")]
    found = [Verified(trials[1], verdict("no difference", 0.001), 0.05)]
    axes = AXES[:1]
    view = look("<name>", trials, axes, "val/mAP50-95", found, "Nothing is written.", "python tune.py search", 0)
    text = write_search(tmp_path, view, trials, axes).read_text()
    assert "+4.90" in text and "No trial is certainly better" in text and "<name>" not in text and "<script" not in text
    told_again = (tmp_path / "search.md").read_text()
    assert "+4.90" in told_again and "No trial is certainly better" in told_again and r"\<name>" in told_again
    assert told_again.count("| trial |") == 1 and "python tune.py search" in told_again
    assert (tmp_path / "trials.csv").read_text().splitlines()[1] == "0,complete,0.5,1,0.01,f"


def test_the_demo_where_nothing_is_said_and_what_cannot_be_searched():
    asked = read_search([])
    assert asked.hyp.epochs == 4 and [a.key for a in asked.axes] == ["lr0", "warmup_epochs", "weight_decay"]
    assert read_search(["--sampler", "grid", "lr0=1e-3|1e-2", "mosaic=0:1:3"]).options.trials == 6
    for words, said in (
        (["device=cpu|cuda"], "nothing to search"),
        (["seed=0:5"], "nothing to search"),
        (["lro=3"], "lr0"),
    ):
        with pytest.raises(UserError, match=said):
            read_search(["--hyp", "demo", *words])


def test_jobs_are_asked_for_when_a_slot_is_free(tmp_path):
    order = []

    def jobs():
        for k in range(3):
            order.append(f"asked {k}")
            yield Job("a", k, tmp_path / str(k), ["--no-such-option"])

    for child, _ in run_all(jobs(), ["cpu"], 1, lambda: None, lambda running: None):
        order.append(f"ended {child.job.seed}")
    assert order == ["asked 0", "ended 0", "asked 1", "ended 1", "asked 2", "ended 2"]


@pytest.mark.slow
def test_trials_that_all_fail_end_the_search_with_what_they_said(toy, tmp_path):
    picture = next((toy.parent / "images").rglob("*.*"))
    broken = tmp_path / "broken.pt"
    broken.write_bytes(picture.read_bytes()[:100])
    words = ["--weights", broken, "--data", toy, "--epochs", 1, "--imgsz", 32, "lr0=1e-3:1e-2", "--project", tmp_path]
    words = [str(word) for word in [*words, "--jobs", 1]]
    with pytest.raises(SomeFailed, match="3 trials in a row.*(?s:.*)broken.pt"):
        search(read_search(words), words)


@pytest.mark.slow
def test_a_whole_search(toy, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    words = ["--weights", "models/demo.yaml", "--data", toy, "--epochs", 1, "--imgsz", 32, "--batch", 8, "--workers", 0]
    words += ["lr0=log:1e-4:1e-2", "optimizer=sgd|adamw", "--trials", 3, "--best", 1, "--project", tmp_path / "a b"]
    words = [str(word) for word in [*words, "--out", tmp_path / "tuned.yaml", "--val-every", 1, "--seeds", 6]]
    result = search(read_search(words), words)
    page = tmp_path / "a b/search/search.html"
    assert page.is_file() and len(result["verified"]) == 1
    assert json.loads((tmp_path / "a b/search/search.json").read_text())["best"]["trial"] == result["best"]["trial"]
    rows = (tmp_path / "a b/search/trials.csv").read_text().splitlines()
    assert len(rows) == 4
    caplog.clear()
    assert search(read_search(words), words)["verified"] == result["verified"]  # nothing is made again
    assert "0 to make" in caplog.text


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is an extra")
def test_trials_on_a_ray_cluster_score_what_they_score_here(toy, tmp_path):
    words = ["--weights", "models/demo.pt", "--data", toy, "--epochs", 1, "--imgsz", 64, "--batch", 8, "--workers", 0]
    words += ["--sampler", "grid", "lr0=1e-3|1e-2", "--best", 0, "--threads", 1, "--jobs", 2]
    found = []
    for engine in ("local", "ray"):
        own = [str(word) for word in [*words, "--project", tmp_path / engine, "--engine", engine]]
        search(read_search(own), own)
        rows = (tmp_path / engine / "search/trials.csv").read_text().splitlines()[1:]
        found.append([row.split(",")[1:5] for row in rows])
    assert found[0] == found[1] and len(found[0]) == 2 and all(row[0] == "complete" for row in found[0])
