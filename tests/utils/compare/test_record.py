"""What a comparison remembers: which runs may stand beside each other, what was declared, what was claimed when."""

import copy
import logging
import re
from types import SimpleNamespace

import numpy as np
import pytest

from utils.compare.conclude import conclude
from utils.compare.fingerprint import DataMark
from utils.compare.folder import choose_folder, declare, known_data, read_record, unlike, write_record
from utils.compare.record import ArmPlan, Look, Record, Run
from utils.compare.scores import final_score, mean_differences, secondary
from utils.compare.statistics.looks import effect_level
from utils.errors import UserError
from utils.run.log import RunLog

FINGERPRINT = {
    "code": "c", "git": "g", "threads": 1, "device": "cpu", "python": "3", "platform": "p", "versions": {"torch": "2"},
    "data": {"d.yaml": {"content": "x", "state": ["s"], "pictures": 9}}, "weights": {"w.pt": "y"},
}  # fmt: skip


def a_record(**changes) -> Record:
    record = {
        "format": 1, "settings": {"warm": {"lr0": 0.1}, "cold": {"lr0": 0.2}},
        "fingerprint": copy.deepcopy(FINGERPRINT),
        "runs": [], "looks": [], "seeds": [], "arms": [{"name": "warm"}, {"name": "cold"}], "window": 4,
        "declared": {"metric": "val/mAP50-95", "margin": 0.01, "max_seeds": 8, "reference": "warm"},
    }  # fmt: skip
    return Record(**record | changes)


def with_fingerprint(**changes) -> Record:
    return a_record(fingerprint=FINGERPRINT | changes)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (with_fingerprint(code="d"), "the code of train.py has changed"),
        (with_fingerprint(threads=2), r"threads of a run has changed from 1 to 2 \(--threads 1 goes on with it\)"),
        (with_fingerprint(device="A100"), "the device has changed from cpu to A100"),
        (with_fingerprint(versions={"torch": "3"}), "the installed libraries have changed"),
        (with_fingerprint(data={"d.yaml": {"content": "z"}}), "the content of the data has changed"),
        (with_fingerprint(weights={"w.pt": "z"}), "the content of the weights has changed"),
        (a_record(settings={"warm": {"lr0": 0.1}, "cold": {"lr0": 0.3}}), r"other settings \(lr0\)"),
        (a_record(settings={"cold": {"lr0": 0.2}, "warm": {"lr0": 0.1}}), "its arms are warm, cold"),
    ],
)
def test_other_runs_are_not_reused_and_stay(tmp_path, caplog, other, words):
    caplog.set_level(logging.INFO)
    done = {"arm": "warm", "seed": 0, "status": "done"}
    (tmp_path / "exp").mkdir()
    write_record(tmp_path / "exp", a_record(runs=[done]))
    assert choose_folder(str(tmp_path), "exp", a_record()) == tmp_path / "exp"
    assert choose_folder(str(tmp_path), "exp", other) == tmp_path / "exp2"
    assert re.search(words, caplog.text) and "1 finished runs" in caplog.text
    assert read_record(tmp_path / "exp").runs == [Run(**done)]


def test_what_is_no_part_of_a_result_changes_nothing():
    same = with_fingerprint(git="h", platform="q", data={"d.yaml": {"content": "x", "state": ["t"]}})
    assert unlike(a_record(), same) == ""


def test_a_folder_of_something_else_is_left_alone(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    (tmp_path / "exp").mkdir()
    assert choose_folder(str(tmp_path), "exp", a_record()) == tmp_path / "exp"  # an empty one is free
    (tmp_path / "exp/notes.txt").touch()
    assert choose_folder(str(tmp_path), "exp", a_record()) == tmp_path / "exp2"
    assert "it holds no comparison" in caplog.text


def test_what_is_known_of_the_data_is_what_the_last_folder_recorded(tmp_path):
    assert known_data(str(tmp_path), "exp") == {}
    for folder, content in (("exp", "x"), ("exp2", "z"), ("other", "w")):
        (tmp_path / folder).mkdir()
        write_record(tmp_path / folder, with_fingerprint(data={"d.yaml": {"content": content, "state": [content]}}))
    assert known_data(str(tmp_path), "exp") == {"d.yaml": DataMark(content="z", state=["z"])}


def test_half_a_record_is_none(tmp_path):
    write_record(tmp_path, a_record())
    text = (tmp_path / "comparison.json").read_text()
    (tmp_path / "comparison.json").write_text(text[: len(text) // 2])
    assert read_record(tmp_path) is None


def options(seeds=8, max_seeds=None, metric="val/mAP50-95", margin=1.0):
    return SimpleNamespace(seeds=seeds, max_seeds=max_seeds, metric=metric, margin=margin)


def test_declared_before_the_first_look_and_not_after(caplog):
    caplog.set_level(logging.INFO)
    record = Record()
    declare(record, {"metric"}, options(metric="val/mAP50"), "warm")
    assert record.declared.model_dump() == {"metric": "val/mAP50", "margin": 0.01, "max_seeds": 8, "reference": "warm"}
    declare(record, {"margin", "max_seeds"}, options(margin=0.5, max_seeds=12), "warm")  # not looked yet: free
    assert record.declared.model_dump() == {
        "metric": "val/mAP50",
        "margin": 0.005,
        "max_seeds": 12,
        "reference": "warm",
    }
    declare(record, set(), options(seeds=10), "warm")
    assert record.declared.max_seeds == 12

    record.looks = [Look(pairs=8)]
    before = copy.deepcopy(record)
    declare(record, set(), options(seeds=12), "warm")
    declare(record, {"metric"}, options(metric="val/mAP50"), "warm")  # said again
    assert record == before and "5 % are spent" not in caplog.text
    for given, changed in [("metric", options()), ("margin", options(margin=2)), ("max_seeds", options(max_seeds=20))]:
        with pytest.raises(UserError, match="8 pairs have been looked at"):
            declare(record, {given}, changed, "warm")
    declare(record, set(), options(seeds=14), "warm")
    assert "5 % are spent" in caplog.text


def test_a_look_that_could_claim_nothing_costs_nothing(tmp_path, caplog):
    """Three pairs, then six: as honest as six at once, and said so."""
    caplog.set_level(logging.INFO)
    record = Record()
    declare(record, set(), options(seeds=3), "warm")
    assert "3 pairs will claim nothing" in caplog.text
    record.looks = [Look(pairs=3, verdicts={"cold": "undecided"})]
    declare(record, set(), options(seeds=6), "warm")
    assert record.declared.max_seeds == 6 and "5 % are spent" not in caplog.text
    assert "nothing of the 5 % is spent" in caplog.text and effect_level((3, 6), 6) > 0
    record.looks.append(Look(pairs=6, verdicts={"cold": "undecided"}))
    declare(record, set(), options(seeds=12), "warm")
    assert record.declared.max_seeds == 6 and "5 % are spent" in caplog.text


def test_that_arms_are_too_many_for_the_pairs_is_said_before_the_runs(caplog):
    """The number it names is the smallest whose best possible p, 2 / 2**n, is one that claims."""
    caplog.set_level(logging.INFO)
    for arms in range(2, 12):
        caplog.clear()
        declare(Record(arms=[ArmPlan(name=str(k)) for k in range(arms)]), set(), options(seeds=6), "0")
        least = next(n for n in range(6, 99) if (arms - 1) * 2 / 2**n <= 0.05)
        warned = f"6 pairs cannot show that an arm helps or hurts, whatever they are: of the 5 %, shared by {arms - 1}"
        assert (warned in caplog.text and f"--seeds {least} can" in caplog.text) == (least > 6)
    caplog.clear()
    declare(Record(), set(), options(seeds=6, max_seeds=12), "0")
    assert "kept for later looks" in caplog.text


def make_run(folder, scores, losses=(3.0, 2.0, 1.0, 1.0), norms=(5.0, 9.0, 2.0, 50.0)):
    """A run folder as train.py leaves it: an epoch for every score, a batch for every loss."""
    import torch

    folder.mkdir(parents=True)
    books = RunLog(folder)
    for ni, (loss, norm) in enumerate(zip(losses, norms, strict=True)):
        values = {"train/box": torch.tensor(loss), "train/cls": torch.tensor(0.0), "train/dfl": torch.tensor(0.0)}
        books.batch(ni, {"lr/bias": 0.1}, values | ({"train/grad_norm": torch.tensor(norm)} if ni % 2 else {}))
    for epoch, score in enumerate(scores, 1):
        books.epoch(epoch, 4 * epoch, {"val/mAP50-95": score, "val/mAP50": score + 0.1})
    books.close()


def test_secondary_measures(tmp_path):
    make_run(tmp_path / "run", [0.2, 0.5, 0.4], losses=(2.0, 3.0, 1.0, 9.0))
    found = secondary(tmp_path / "run", window=3, target=0.5)
    assert found["best"] == 0.5 and found["best_epoch"] == 2 and found["mAP50"] == 0.5
    assert found["area"] == pytest.approx((0.1 + 0.35 + 0.45) / 3)  # trapezoids of 0, 0.2, 0.5, 0.4
    assert found["epochs_to_90"] == 2
    assert found["loss_spike"] == 1.5 and found["grad_norm"] == 9.0  # batch 3 is past the window
    assert secondary(tmp_path / "run", window=4, target=0.6)["epochs_to_90"] is None
    assert secondary(tmp_path / "run", window=4, target=0.6)["loss_spike"] == 4.5
    assert final_score(tmp_path / "run", "val/mAP50") == 0.5
    assert final_score(tmp_path / "gone", "val/mAP50") is None
    assert set(secondary(tmp_path / "gone", 3, None).values()) == {None}


def test_differences_leave_out_pairs_that_lack_a_measure():
    arm = [{"best": 0.5}, {"best": 0.7}, {"best": None}]
    reference = [{"best": 0.4}, {"best": 0.5}, {"best": 0.5}]
    blank = dict.fromkeys(("best_epoch", "mAP50", "area", "epochs_to_90", "loss_spike", "grad_norm"))
    found = mean_differences([blank | a for a in arm], [blank | r for r in reference])
    assert found.keys() == {"best"} and found["best"].pairs == 2
    assert found["best"].mean == pytest.approx(0.15) and found["best"].low < 0.15 < found["best"].high


def compared(folder, differences, status=None, **changes) -> Record:
    """A record whose runs have these paired differences."""
    record = a_record(seeds=list(range(len(differences))), **changes)
    for seed, d in enumerate(differences):
        for arm, score in (("warm", 0.5), ("cold", 0.5 + d)):
            run = {"arm": arm, "seed": seed, "status": "done", "folder": f"runs/{arm}/seed{seed}", "score": score}
            record.runs.append(Run(**run | (status or {}).get((arm, seed), {})))
    conclude(folder, record)
    return record


NOISE = np.array([1, -1, 2, -2, 0.5, -0.5, 1.5, -1.5]) / 1000


def test_a_look_is_recorded_with_its_verdict(tmp_path):
    record = compared(tmp_path, 0.03 + NOISE)
    assert record.state == "complete" and record.verdicts["cold"].kind == "helps"
    assert [(look.pairs, look.verdicts) for look in record.looks] == [(8, {"cold": "helps"})]
    conclude(tmp_path, record)
    assert len(record.looks) == 1  # the same look again


def test_a_diverged_run_counts_and_a_failed_one_makes_its_pair_incomplete(tmp_path):
    lost = {"status": "diverged", "score": None}
    record = compared(tmp_path, 0.03 + NOISE, {("cold", 2): lost})
    entry = record.verdicts["cold"]
    assert entry.diverged == [0, 1] and entry.pairs == 8 and entry.kind == "undecided"
    assert "Diverged and counted as score 0" in entry.sentence
    record = compared(tmp_path, 0.03 + NOISE, {("cold", 2): {"status": "failed", "score": None}})
    assert record.state == "incomplete" and record.verdicts["cold"].pairs == 7


def test_a_claim_is_not_taken_back_by_more_pairs(tmp_path):
    looks = [{"pairs": 6, "verdicts": {"cold": "helps"}}]
    entry = compared(tmp_path, 30 * NOISE, looks=looks).verdicts["cold"]
    assert entry.kind == "helps" and entry.seeds_more == 0
    assert "found at the look at 6 pairs" in entry.sentence and "undecided" in entry.sentence
    looks = [{"pairs": 6, "verdicts": {"cold": "undecided"}}]
    assert compared(tmp_path, 30 * NOISE, looks=looks).verdicts["cold"].kind == "undecided"


def test_fewer_pairs_than_were_looked_at_give_no_verdict(tmp_path):
    record = compared(tmp_path, 0.03 + NOISE, looks=[{"pairs": 9, "verdicts": {"cold": "helps"}}])
    assert record.verdicts == {} and len(record.looks) == 1
    assert compared(tmp_path, [0.1]).verdicts == {}
