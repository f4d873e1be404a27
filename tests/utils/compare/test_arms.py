"""The command line of compare.py: arms, what differs between them, and every way to get it wrong."""

import pytest

from utils.compare.arms import cautions, read_command, split_arms, split_settings
from utils.errors import UserError

RUN = ["--data", "d.yaml", "--weights", "w.pt"]
PAIR = ["--arm", "warm", "finetune", "warmup_epochs=1", "--arm", "cold", "finetune"]


def test_arms_are_a_hyp_file_and_overrides():
    options, _, arms, _, given = read_command([*RUN, "--epochs", "30", "--seeds", "8", *PAIR, "--jobs", "2"])
    assert (options.seeds, options.jobs, options.max_seeds) == (8, 2, None)
    assert given == {"seeds", "jobs"}
    assert [arm.name for arm in arms] == ["warm", "cold"]
    assert [arm.hyp.optimizer for arm in arms] == ["adamw", "adamw"]
    assert [arm.hyp.warmup_epochs for arm in arms] == [1.0, 0.0]
    assert all(arm.hyp.epochs == 30 and arm.hyp.data == "d.yaml" and arm.hyp.noplots for arm in arms)
    differs, shared = split_settings(arms)
    assert differs.keys() <= {"warmup", "warmup_epochs"} and differs["warmup_epochs"] == {"warm": 1.0, "cold": 0.0}
    assert shared["lr0"] == 0.001 and not shared.keys() & differs.keys()


def test_an_arms_own_words_count_more_than_shared_ones_and_those_more_than_the_file():
    _, _, arms, _, _ = read_command(
        [*RUN, "--hyp", "no-warmup", "lr0=0.004", "--arm", "a", "--arm", "b", "finetune", "lr0=0.002"]
    )
    assert [arm.hyp.lr0 for arm in arms] == [0.004, 0.002]
    assert [arm.hyp.optimizer for arm in arms] == ["sgd", "adamw"]


@pytest.mark.parametrize("words", [["--warmup"], []])
def test_warmup_is_short_for_the_pair(words):
    _, _, arms, notes, _ = read_command([*words, *RUN, "--hyp", "finetune"])
    assert [arm.name for arm in arms] == ["warm", "cold"]
    assert [arm.hyp.warmup for arm in arms] == ["linear", "none"]
    assert arms[0].hyp.warmup_epochs == 1 and "warm: these settings have no warm-up" in " ".join(notes)
    _, _, arms, notes, _ = read_command([*words, *RUN, "--hyp", "finetune", "warmup_epochs=2"])
    assert arms[0].hyp.warmup_epochs == 2 and "these settings" not in " ".join(notes)
    assert bool(words) != any("--warmup" in note for note in notes)
    assert split_settings(arms)[0].keys() == {"warmup", "warmup_epochs"}


def test_warmup_with_a_value_is_the_key():
    _, _, arms, _, _ = read_command([*RUN, "--warmup", "cosine", "--arm", "a", "--arm", "b", "lr0=0.02"])
    assert [arm.hyp.warmup for arm in arms] == ["cosine", "cosine"]


def test_nothing_named_is_the_demo():
    options, _, arms, notes, _ = read_command(["--warmup"])
    assert options.seeds == 6 and arms[0].hyp.data == "data/toy/toy-target.yaml" and "demo" in notes[0]
    assert read_command(["--warmup", "--seeds", "9"])[0].seeds == 9
    assert read_command([*RUN, "--warmup"])[0].seeds == 8


def test_metric_and_devices_as_people_write_them():
    options = read_command([*RUN, "--warmup", "--metric", "mAP50", "--devices", "0"])[0]
    assert (options.metric, options.devices) == ("val/mAP50", "0")
    assert read_command([*RUN, "--warmup", "--devices", "0,1,2"])[0].devices == "0,1,2"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--arm", "a", "finetune", "--arm", "b", "finetune"], "'a' and 'b' are identical.*--aa"),
        (["--arm", "a", "finetune"], "needs two arms, and has 1"),
        (["--arm", "a", "--arm", "A", "lr0=0.1"], "two arms are named 'a'"),
        (["--arm", "lr0=0.1", "--arm", "b"], "--arm needs a name"),
        (["--arm"], "--arm needs a name"),
        (["--arm", "../x", "--arm", "b", "lr0=0.1"], "arm '../x': a name is made of"),
        (["--arm", "a", "--arm", "b", "warmup_epoch=0"], "unknown option 'warmup_epoch'.*'warmup_epochs'"),
        (["--arm", "a", "--arm", "b", "lr0=fast"], "arm 'b': lr0: 'fast' is not possible"),
        (["--arm", "a", "nofile", "--arm", "b"], "arm 'a': no hyp file 'nofile'"),
        (["--arm", "a", "finetune", "yolov5", "--arm", "b"], "one hyp file, then key=value words; 'yolov5'"),
        (["--arm", "a", "--arm", "b", "device=1"], "arm 'b': device says where"),
        (["--warmup", *PAIR], "give it or --arm, not both"),
        (["--warmup", "--no-warmup"], "these settings have no warm-up"),
        (["--warmup", "--hyp", "yolov5"], "arm 'cold'.*recipe"),
        (["--warmup", "--seeds", "1"], "one pair has no spread"),
        (["--warmup", "--seeds", "8", "--max-seeds", "6"], "--max-seeds 6 is below --seeds 8"),
        (["--warmup", "--metric", "val/mAP"], "metric: 'val/mAP' is not possible"),
        (["--warmup", "--margin", "0"], "margin: 0 is not possible"),
        (["--warmup", "--batch", "-1"], "name the batch"),
        (["--warmup", "--resume"], "--resume belongs to a single run"),
        (["--warmup", "--sedes", "8"], "unknown option 'sedes'.*'seeds'"),
    ],
)
def test_mistakes_are_named(words, message):
    with pytest.raises(UserError, match=f"(?s){message}"):
        read_command([*RUN, *words])


def test_weights_without_data():
    with pytest.raises(UserError, match="--data is missing"):
        read_command(["--weights", "w.pt", "--warmup"])


def test_identical_arms_run_as_an_a_a_test():
    _, _, arms, _, _ = read_command([*RUN, "--aa", "--arm", "a", "--arm", "b"])
    assert arms[0].settings() == arms[1].settings()
    assert read_command([*RUN, "--arm", "a", "--arm", "b", "seed=100"])[2][1].hyp.seed == 100  # they differ in seed


def test_arms_that_differ_in_data_or_weights_are_named():
    arms = read_command([*RUN, "--arm", "a", "--arm", "b", "weights=v.pt", "data=e.yaml", "conf=0.01"])[2]
    notes = " ".join(cautions(split_settings(arms)[0]))
    assert "differ in data" in notes and "differ in weights" in notes and "scored differently (conf)" in notes
    assert cautions({"lr0": {}}) == []


def test_words_are_told_apart():
    groups, rest, warmup = split_arms("--arm a f.yaml x=1 --jobs 2 --arm=b y=2 --warmup --seeds 3".split())
    assert groups == [("a", ["f.yaml", "x=1"]), ("b", ["y=2"])]
    assert rest == ["--jobs", "2", "--seeds", "3"] and warmup
