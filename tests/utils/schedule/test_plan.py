"""What the plan says before a run: its table, its warnings, its picture; and `train.py --plan` as a whole."""

import json
import math
import os
import shutil
import time
from pathlib import Path

import pytest
import torch

from data.definition.dataset_yaml import load_dataset_yaml
from data.index.index import build_index, count_pictures
from tests.helpers import forked
from tests.utils.evaluation.test_plots import is_picture
from utils.config.schema import Hyp
from utils.env import REPO
from utils.schedule.describe import describe, moments, table
from utils.schedule.draw import Drawn, plot_plan
from utils.schedule.gallery import OF_DECAY, OF_WARMUP, plot_kinds
from utils.schedule.past import stable_part
from utils.schedule.plan import grid, group_names, make_plan
from utils.schedule.preview import announce, split_variants
from utils.schedule.rates import build_schedule, fitting_batch, scaled_weight_decay, steps, within_pictures
from utils.schedule.warn import of_batch, warnings

CALM = {  # a run about which there is nothing to say
    "epochs": 50, "batch": 16, "nbs": 64, "weights": "yolo11n.pt", "warmup_epochs": 2.0, "warmup_bias_lr": None,
    "ema_tau": "auto", "close_mosaic": 10,
}  # fmt: skip


def said(nb: int = 20, **keys) -> list[str]:
    hyp = Hyp(**(CALM | keys))
    schedule = build_schedule(hyp, nb, hyp.batch, group_names(hyp))
    return warnings(make_plan(schedule, hyp), schedule, hyp)


def cells(schedule, nb: int) -> dict[str, dict[str, str]]:
    """The table by row label and column."""
    head, *rows = [line.split("  ") for line in table(schedule)]
    head, rows = [c.strip() for c in head if c.strip()], [[c.strip() for c in row if c.strip()] for row in rows]
    return {row[0]: dict(zip(head, row, strict=True)) for row in rows}


def test_table_of_a_known_run():
    """Linear to lr0 over 20 of 200 batches, cosine to lr0 / 100 at the last, by the formula of design.md."""
    hyp = Hyp(epochs=20, batch=16, nbs=64, lr0=0.01, lrf=0.01, warmup_epochs=2, warmup_bias_lr=0.1, warmup_max=0.5)
    found = cells(build_schedule(hyp, 10, 16), 10)
    assert list(found) == ["start", "nw/2", "nw", "25 %", "50 %", "75 %", "100 %"]
    for label, ni in {"start": 0, "nw/2": 10, "nw": 20, "25 %": 50, "50 %": 100, "75 %": 149, "100 %": 199}.items():
        target = 0.0001 + 0.0099 * (1 + math.cos(math.pi * ni / 199)) / 2
        t = min(ni / 20, 1)
        row = found[label]
        assert (row["ni"], row["epoch"]) == (str(ni), f"{ni / 10:.2f}")
        assert float(row["lr/weight"]) == float(row["lr/norm"]) == pytest.approx(t * target, rel=1e-3)
        assert float(row["lr/bias"]) == pytest.approx(0.1 + t * (target - 0.1), rel=1e-3)
        assert float(row["momentum"]) == pytest.approx(0.8 + t * 0.137, rel=1e-3)
        assert int(row["accumulate"]) == {0: 1, 0.5: 2, 1: 4}[t]


def test_table_without_warmup_and_of_one_batch():
    assert list(cells(build_schedule(Hyp(epochs=4, warmup="none"), 10, 16), 10))[:2] == ["start", "25 %"]
    assert {row["ni"] for row in cells(build_schedule(Hyp(epochs=1, warmup="none"), 1, 64), 1).values()} == {"0"}


def test_a_warmup_beyond_the_run_has_no_row_for_its_end():
    hyp = Hyp(recipe="yolov5", epochs=6, batch=16)  # at least 100 batches of warm-up in a run of 60
    schedule = build_schedule(hyp, 10, 16)
    assert [label for label, _ in moments(schedule)] == ["start", "25 %", "50 %", "75 %", "nw/2", "100 %"]
    assert all(ni < 60 for _, ni in moments(schedule))


def test_description_counts_the_steps():
    hyp = Hyp(epochs=20, batch=16, warmup_epochs=2)
    schedule = build_schedule(hyp, 10, 16)
    plan = make_plan(schedule, hyp)
    windows = list(steps(schedule))
    text = "\n".join(describe(plan, schedule, hyp))
    assert "20 batches (2.00 epochs, 10% of the run)" in text
    assert f"{len(windows)} optimizer steps of 1 to 4 batches" in text
    for size in {n for _, n in windows}:
        assert f"{sum(n == size for _, n in windows)} of {size}" in text
    assert plan.dropped == 0 and sum(n for _, n in windows) == 200


def test_peaks_are_those_of_every_batch():
    """Found on a grid and refined; here against all batches, in a run too long for the grid to hold them all."""
    for keys in ({}, {"decay": "one_cycle_torch"}, {"decay": "cosine_restarts", "T_0": 30}, {"warmup_epochs": 7.3}):
        hyp = Hyp(**({"epochs": 120, "warmup_bias_lr": None} | keys))
        schedule = build_schedule(hyp, 61, 16)
        assert len(grid(schedule)) < schedule.total
        plan = make_plan(schedule, hyp)
        lr = [schedule(ni).lr["weight"] for ni in range(schedule.total)]
        assert plan.peak_lr["weight"] == max(lr)
        assert plan.peak_ni["weight"] == lr.index(max(lr))


def test_nothing_to_say():
    assert said() == []


FIRES = {  # words of the warning: settings that call for it, settings that just do not
    "warm-up is cut": ({"warmup_epochs": 20}, {"warmup_epochs": 15}),
    "of the run; a third is much": ({"warmup_epochs": 20, "warmup_max": 0.5}, {"warmup_epochs": 16, "warmup_max": 0.5}),
    "biases of pretrained": ({"warmup_bias_lr": 0.1}, {"warmup_bias_lr": 0.099}),
    "never gets beyond": ({"warmup_epochs": 15, "lr0": 0.02}, {"warmup_epochs": 9}),
    "fewer than one step an epoch": ({"nbs": 16 * 21}, {"nbs": 16 * 20}),
    "averages nothing": ({"ema_tau": 2000}, {"ema_tau": 100}),
    "early weights": ({"ema_tau": 10}, {"ema_tau": 100}),
    "patience": ({"patience": 1}, {"patience": 2}),
    "close_mosaic": ({"close_mosaic": 49}, {"close_mosaic": 48}),
    "nbs 64: the summed loss": ({"batch": 128}, {"batch": 64}),
}


@pytest.mark.parametrize("words", FIRES)
def test_warning_fires_and_does_not_fire(words):
    yes, no = FIRES[words]
    assert [w for w in said(**yes) if words in w], said(**yes)
    assert not [w for w in said(**no) if words in w], said(**no)


def test_warnings_know_what_they_do_not_concern():
    assert not said(weights="yolo11n.yaml", warmup_bias_lr=0.1), "random weights: YOLO's 0.1 is meant for them"
    assert not said(close_mosaic=49, mosaic=0.0), "no mosaic to close"
    assert not said(patience=0), "never stops early"
    assert not [w for w in said(warmup="none", warmup_bias_lr=0.1) if "biases" in w], "they start at lr0"
    assert not said(ema_decay=0.0), "an average that is switched off"


def test_yolov5_warns_of_its_minimum_and_of_what_it_drops():
    text = " ".join(said(nb=3, recipe="yolov5", epochs=60, batch=4, warmup_epochs=1))
    assert "warm-up takes 100 batches and not 3: recipe yolov5" in text
    assert "are in no step" in text
    text = " ".join(said(nb=3, recipe="yolov5", epochs=20))
    assert "the run ends after 60 batches, before its warm-up of 100" in text


def test_a_batch_beyond_the_data_is_planned_with_the_pictures_there_are():
    hyp = Hyp(**(CALM | {"batch": 100_000}))
    used = fitting_batch(hyp, 111)
    assert used == 111 and scaled_weight_decay(hyp, used) == pytest.approx(hyp.weight_decay * 111 / 64)
    assert fitting_batch(Hyp(), 111) == Hyp().batch and of_batch(16, 16) == []
    assert fitting_batch(Hyp(recipe="yolov5", batch=100_000), 111) == 100_000, "as the original computes"
    assert "111" in of_batch(hyp.batch, used)[0]


def test_pictures_batch_and_batches_of_a_run_belong_together():
    for hyp, of in ((Hyp(batch=16), 111), (Hyp(batch=500, fraction=0.5), 111), (Hyp(batch=7, fraction=0.001), 20)):
        used, n, nb = within_pictures(of, hyp)
        assert n == max(round(of * hyp.fraction), 1) and used.batch == fitting_batch(hyp, n)
        assert (nb - 1) * used.batch < n <= nb * used.batch
        assert used.model_copy(update={"batch": hyp.batch}) == hyp


def test_short_runs_are_told_what_can_be_acted_on():
    assert not [w for w in said(nb=2, epochs=3) if "EMA" in w], "auto is the best that there is"
    text = " ".join(said(nb=1, epochs=2, warmup_epochs=1))
    assert "no warm-up" in text and "more epochs" in text and "to 0 batches" not in text
    for batch in (64, 63, 65):
        hyp = Hyp(**(CALM | {"batch": batch}))
        schedule = build_schedule(hyp, 20, batch)
        assert "makes lr 1 times" not in " ".join(describe(make_plan(schedule, hyp), schedule, hyp))


def test_parts_have_rates_of_their_own():
    hyp = Hyp(**(CALM | {"lr_backbone": 0.1}))
    schedule = build_schedule(hyp, 20, 16, group_names(hyp))
    row = cells(schedule, 20)["nw"]
    assert float(row["lr/backbone.weight"]) == pytest.approx(0.1 * float(row["lr/head.weight"]), rel=1e-3)
    assert said(lr_backbone=0.1) == [], "a tenth of lr0 is what was asked for"


def test_parts_may_have_warmups_of_their_own():
    hyp = Hyp(**(CALM | {"warmup_epochs_head": 0.5}))
    schedule = build_schedule(hyp, 20, 16, group_names(hyp))
    text = describe(make_plan(schedule, hyp), schedule, hyp)[1]
    assert "backbone 40 batches (2.00 epochs, 4% of the run), head 10 batches (0.50 epochs, 1% of the run)" in text
    rows = cells(schedule, 20)
    assert [rows[k]["ni"] for k in ("head nw/2", "head nw", "backbone nw/2", "backbone nw")] == ["5", "10", "20", "40"]


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"batch": 128}, "the summed loss makes lr 2 times"),
        ({"batch": 128, "optimizer": "adamw", "scale_lr": "sqrt"}, "scale_lr sqrt makes lr 1.41 times"),
        ({"batch": 128, "optimizer": "adamw"}, "lr stays as it is given"),
        ({"batch": 64}, ""),
    ],
)
def test_effective_factor_of_lr(keys, words):
    hyp = Hyp(**(CALM | keys))
    schedule = build_schedule(hyp, 20, hyp.batch)
    lines = describe(make_plan(schedule, hyp), schedule, hyp)
    assert [line for line in lines if line.startswith("scale") and words in line] if words else len(lines) == 6


def test_groups_are_those_of_the_optimizer():
    from models.detector import build_detector
    from models.training.optim import parameter_groups

    model = build_detector(str(REPO / "models/demo.yaml"), ["a"], "keep", 64, False)[0]
    for keys in ({}, {"lr_head": 2.0}, {"warmup_epochs_backbone": 0.0}):
        hyp = Hyp(**keys)
        assert group_names(hyp) == tuple(parameter_groups(model, hyp))


@pytest.mark.parametrize(("nb", "epochs", "batch"), [(1, 1, 64), (10, 20, 16), (5000, 300, 4)])
def test_picture_of_a_plan(tmp_path, nb, epochs, batch):
    hyp = Hyp(epochs=epochs, batch=batch)
    schedule = build_schedule(hyp, nb, batch)
    plot_plan([Drawn("x", schedule, make_plan(schedule, hyp), hyp)], tmp_path / "plan.png")
    assert is_picture(tmp_path / "plan.png")


def test_a_long_run_is_planned_in_seconds():
    """COCO for 100 epochs in batches of 16: 740,000 batches."""
    hyp = Hyp(epochs=100)
    began = time.perf_counter()
    make_plan(build_schedule(hyp, 7393, 16), hyp)
    assert time.perf_counter() - began < 10


def test_picture_of_all_kinds(tmp_path):
    plot_kinds(tmp_path / "kinds.png")
    assert is_picture(tmp_path / "kinds.png")
    for key, kinds in {"warmup": OF_WARMUP, "decay": OF_DECAY}.items():
        choices = Hyp.model_fields[key].annotation.__args__
        assert {c for c in choices if any(v.get(key) == c for v in kinds.values())} == set(choices), "a kind is missing"


def test_every_hyp_is_a_variant():
    for words in (["--hyp", "demo", "--hyp", "finetune"], ["--hyp", "demo", "finetune", "imgsz=160"]):
        variants = split_variants(["--plan", *words, "--epochs", "7"])
        assert [v.name for v in variants] == ["demo", "finetune"]
        assert [v.hyp.epochs for v in variants] == [7, 7]
        assert [v.hyp.lr0 for v in variants] == [0.002, 0.001]
    assert [v.name for v in split_variants(["--plan", "--epochs", "3"])] == ["run"]


def test_pictures_are_counted_without_an_index_and_taken_from_one(tmp_path):
    from data.toy.draw import draw

    draw("target", tmp_path / "set", {"train": 6, "val": 2})
    (tmp_path / "set/images/train/broken.jpg").write_bytes(b"no picture")
    file = tmp_path / "set/toy.yaml"
    file.write_text("train: images/train\nval: images/val\nnames: [mug, key, leaf, bolt]\n")
    assert count_pictures(str(file)) == (7, False), "files"
    build_index(load_dataset_yaml(str(file)), "train")
    assert count_pictures(str(file)) == (6, True), "pictures that can be used"
    (tmp_path / "set/images/train/broken.jpg").unlink()
    assert count_pictures(str(file)) == (6, True), "as kept"
    (tmp_path / "set/images/train/new.jpg").write_bytes(b"no picture")
    assert count_pictures(str(file)) == (7, False), "the kept index knows nothing of it"


def test_a_large_json_is_counted_from_its_index(tmp_path):
    from PIL import Image

    (tmp_path / "images").mkdir()
    images = [{"id": i, "file_name": f"{i}.png", "width": 32, "height": 32} for i in range(3)]
    for picture in images:
        Image.new("RGB", (32, 32)).save(tmp_path / "images" / picture["file_name"])
    boxes = [{"id": 1, "image_id": 0, "category_id": 1, "bbox": [1, 1, 9, 9], "area": 81, "iscrowd": 0}]
    content = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "a"}]}
    (tmp_path / "train.json").write_text(json.dumps(content))
    file = tmp_path / "data.yaml"
    file.write_text("train: train.json\nval: train.json\nnames: [a]\n")
    assert count_pictures(str(file)) == (3, False)
    build_index(load_dataset_yaml(str(file)), "train")
    os.utime(tmp_path / "train.json", (1, 1))  # older than the index: not read again
    assert count_pictures(str(file)) == (3, True)
    os.utime(tmp_path / "train.json")
    (tmp_path / "train.json").write_text(json.dumps(content | {"images": images[:2]}))
    os.utime(tmp_path / "train.json", (4e9, 4e9))
    assert count_pictures(str(file)) == (2, False)


def test_a_run_keeps_its_plan(tmp_path):
    for name, noplots in (("with", False), ("without", True)):
        hyp = Hyp(epochs=3, batch=16, noplots=noplots)
        (tmp_path / name).mkdir()
        schedule = build_schedule(hyp, 10, 16)
        announce(make_plan(schedule, hyp), schedule, hyp, tmp_path / name, stable_part(schedule, hyp))
        assert (tmp_path / name / "plan.png").exists() != noplots


@pytest.mark.slow
def test_plan_loads_no_model_and_starts_no_run(tmp_path, toy):
    """Weights that do not exist are never asked for, and runs/train stays free for the run itself."""
    words = ("--plan", "--weights", "nowhere/at-all.pt", "--data", toy, "--epochs", 5, "--batch", 4)
    code, out, err = forked.run("train.py", *words, cwd=tmp_path)
    assert code == 0, err
    assert "5 epochs x 5 batches of 4 = 25 batches" in out
    assert "100 %" in out and "warning: biases of pretrained weights" in out
    assert "note: weights nowhere/at-all.pt are not here" in out
    assert is_picture(tmp_path / "runs/plan/plan.png")
    assert not (tmp_path / "runs/train").exists()


@pytest.mark.slow
def test_plan_overlays_several_files(tmp_path, toy):
    (tmp_path / "slow.yaml").write_text("warmup_epochs: 4\nwarmup_max: 0.9\nbatch: 4\n")
    words = ("--plan", "--hyp", "slow.yaml", "--hyp", "finetune", "--weights", "no.pt", "--data", toy, "--epochs", 6)
    code, out, err = forked.run("train.py", *words, "--project", tmp_path / "here", cwd=tmp_path)
    assert code == 0, err
    assert out.count("100 %") == 2 and "\nslow\n" in out and "\nfinetune\n" in out
    assert is_picture(tmp_path / "here/plan.png")


@pytest.mark.parametrize(
    "words",
    [
        ("--imgsz", "100"),
        ("--freeze", "bakbone"),
        ("--batch", "19", "--imgsz", "32"),
        ("--weights", "yolov5n.pt"),
        ("--classes", "mugg"),
        ("--data", "no-val.yaml"),
        ("albumentations=[{name: Bluur}]",),
    ],
    ids=lambda words: words[-1].strip("[]{}"),
)
def test_a_plan_refuses_what_training_refuses(words, toy_args, tmp_path, monkeypatch):
    """With the same message."""
    import train
    from utils.errors import UserError

    monkeypatch.chdir(tmp_path)
    (tmp_path / "no-val.yaml").write_text(Path(toy_args[3]).read_text().replace("val:", "# val:"))
    shutil.copytree(Path(toy_args[3]).parent, tmp_path, dirs_exist_ok=True)
    torch.save({"model": "no network"}, tmp_path / "yolov5n.pt")
    said = []
    for more in ((), ("--plan",)):
        with pytest.raises(UserError) as caught:
            train.main([*toy_args, *words, *more])
        said.append(str(caught.value))
    assert said[0] == said[1]


def test_a_plan_says_the_device_and_what_precision_was_chosen_and_why(toy_args, tmp_path, capsys):
    import train
    from utils.device.ranks import amp_words

    words = [*toy_args, "--plan", "--project", str(tmp_path), "amp=auto"]
    train.main(words)
    assert f"device    cpu, amp {amp_words('auto', torch.device('cpu'))}\n" in capsys.readouterr().out
    train.main([*words, "--device", "77"])
    assert "note: not on this machine: device 77" in capsys.readouterr().out, "a plan may be made elsewhere"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--plan", "batch=-1"], "batch -1"),
        (["--plan", "--resume", "last.pt"], "new run"),
        (["--plan", "--weights", "x.pt"], "--data is missing.*--hyp demo"),
        (["--hyp", "demo", "--hyp", "finetune"], "given twice"),
        (["--plan", "--hyp"], "--hyp needs a value"),
    ],
)
def test_what_a_plan_refuses(words, message):
    import train
    from utils.errors import UserError

    with pytest.raises(UserError, match=message):
        train.main(words)
