"""train.py as a user runs it, at toy size."""

import csv
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

import train
import val
from models.detector import load_for_eval
from models.weights.load import load_weights
from tests.helpers import forked
from tests.helpers.runs import TINY, assert_same, replaced, run_train, state_of
from utils.config.schema import Hyp
from utils.env import REPO
from utils.errors import Diverged, UserError
from utils.run.console import epoch_line, signs_of_life
from utils.run.log import RunLog, read_metrics, read_scalars
from utils.run.meter import Meter
from utils.run.state.progress import SCORES, Progress, judged
from utils.schedule.plan import group_names, make_plan
from utils.schedule.rates import build_schedule, steps

LOSSES = {"val/box", "val/cls", "val/dfl"}


WHOLE = [
    *("--weights", TINY, "--imgsz", 64, "--epochs", 3, "--batch", 8, "--workers", 1),
    *("nbs=32", "warmup_epochs=1", "ema_tau=5", "close_mosaic=1", "--save-period", 2),
]


@pytest.fixture(scope="module")
def finished(toy, tmp_path_factory) -> Path:
    """One whole run, looked at by several tests."""
    return run_train(*WHOLE, "--data", toy, "--noplots", project=tmp_path_factory.mktemp("runs"))


def test_a_run_leaves_what_the_design_promises(toy, tmp_path):
    finished = run_train(*WHOLE, "--data", toy, project=tmp_path)
    names = {p.name for p in finished.iterdir()}
    assert {"hyp.yaml", "run.json", "metrics.csv", "weights"} <= names
    assert {"rates.png", "losses.png", "mAP.png", "PR_curve.png", "confusion.png", "labels.png"} <= names
    assert {"train_batch.jpg", "val_predictions.jpg"} <= names
    assert {p.name for p in (finished / "weights").iterdir()} == {"best.pt", "last.pt", "last-older.pt", "epoch2.pt"}
    about = json.loads((finished / "run.json").read_text())
    assert about["versions"]["torch"] == torch.__version__.split("+")[0] or about["versions"]["torch"]
    assert about["threads"] == torch.get_num_threads()


def test_metrics_csv_has_a_row_an_epoch(finished):
    with open(finished / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"], "epoch 0 is not evaluated: the head is fresh"
    assert rows[-1]["raw/mAP50-95"] != "" and rows[0]["raw/mAP50-95"] == ""
    for key in ("train/box", "train/cls", "train/dfl", "train/grad_norm", "val/mAP50-95", "lr/bias", "time/data"):
        assert float(rows[-1][key]) >= 0, key


def assert_as_planned(folder: Path, nb: int = 3) -> dict[str, list[float]]:
    """What the optimizer held, batch by batch, is the schedule that is drawn before a run; returns what it held."""
    hyp = Hyp(**yaml.safe_load((folder / "hyp.yaml").read_text()))
    schedule = build_schedule(hyp, nb, hyp.batch, group_names(hyp))
    history = state_of(folder)["progress"]["history"]
    logged = read_scalars(folder, ("lr/", "momentum", "accumulate"))
    assert logged["ni"] == list(range(schedule.total))
    for ni in range(schedule.total):
        rates = schedule(ni, history[: ni // nb])
        meant = {f"lr/{name}": lr for name, lr in rates.lr.items()}
        meant |= {"ni": ni, "momentum": rates.momentum, "accumulate": rates.accumulate}
        held = {tag: values[ni] for tag, values in logged.items()}
        assert held == pytest.approx(meant, rel=1e-6, abs=1e-12), f"batch {ni}"
    norms = read_scalars(folder, ("train/grad_norm",))
    assert norms["ni"] == [ni for ni, _ in steps(schedule)], "a step where the plan says, and nowhere else"
    return logged


def test_tensorboard_holds_the_plan_at_every_batch(finished):
    assert_as_planned(finished)


def test_every_score_of_an_evaluation_can_decide_a_plateau(finished):
    with open(finished / "metrics.csv", newline="") as file:
        names = {name for name in next(csv.reader(file)) if name.startswith("val/")}
    assert names == {*SCORES, "val/box", "val/cls", "val/dfl"}, "but for the losses, of which less is better"


def test_a_run_of_a_version_without_validation_losses_goes_on_with_them(toy_args, tmp_path):
    run_train(*toy_args, "--stop-after", 1, project=tmp_path)
    with open(tmp_path / "exp/metrics.csv", newline="") as file:
        old = [{k: v for k, v in row.items() if k not in LOSSES} for row in csv.DictReader(file)]
    with open(tmp_path / "exp/metrics.csv", "w", newline="") as file:
        table = csv.DictWriter(file, list(old[0]))
        table.writeheader()
        table.writerows(old)
    train.main(["--resume", str(tmp_path / "exp")])
    rows = read_metrics(tmp_path / "exp/metrics.csv")
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert [LOSSES <= row.keys() for row in rows] == [False, True, True]
    assert all(0 <= row[key] < 100 for row in rows[1:] for key in LOSSES)
    assert rows[0] == pytest.approx({k: float(v) for k, v in old[0].items() if v}, nan_ok=True), "stays"


def test_best_opens_in_ultralytics_and_scores_what_was_reported(finished):
    from ultralytics import YOLO

    model = YOLO(finished / "weights/best.pt")
    assert list(model.names.values()) == ["mug", "key", "leaf", "bolt"]
    ours = load_for_eval(str(finished / "weights/best.pt"))
    image = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(model.model.float().eval()(image)[0], ours(image)[0], rtol=1e-3, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("amp", ["off", "bf16"])
def test_an_epoch_has_one_score(toy_args, tmp_path, amp):
    """In its row, at the end, and by val.py, in full precision; best.pt is rounded to fp16, the EMA is not."""
    words = [*toy_args, "--weights", REPO / "models/demo.pt", "lr0=0.01", "best_metric=val_loss", f"amp={amp}"]
    words += ["--project", tmp_path]
    closing = train.main(list(map(str, words)))
    rows = read_metrics(tmp_path / "exp/metrics.csv")
    best = state_of(tmp_path / "exp")["progress"]["best_epoch"]
    row = next(row for row in rows if row["epoch"] == best)
    assert row["val/mAP50-95"] > 0
    for key in (key for key in row if key.startswith("val/")):
        assert closing[key.replace("val/", "best/")] == pytest.approx(row[key], rel=1e-12, nan_ok=True), key
    weights = tmp_path / "exp/weights/best.pt"
    words = ["--weights", weights, "--data", words[3], "--device", "cpu", "--noplots", "--project", tmp_path / "val"]
    scores = val.main(list(map(str, words)))
    assert scores == {key: pytest.approx(row[key], rel=1e-12, nan_ok=True) for key in scores}
    state = state_of(tmp_path / "exp")["ema"]["model"]
    assert any((t.half().float() != t).any() for t in state.values() if t.is_floating_point()), "it rounds something"


def test_a_finished_run_is_not_resumed(finished, capsys):
    metrics = train.main(["--resume", str(finished / "weights/last.pt")])
    assert "finished run" in capsys.readouterr().out
    assert metrics["val/mAP50-95"] == read_metrics(finished / "metrics.csv")[-1]["val/mAP50-95"]


SCHEDULES = {
    "sgd": [],
    "bf16": ["amp=bf16"],
    "adamw": ["optimizer=adamw"],
    "musgd": ["optimizer=musgd", "freeze=2"],
    "yolov5": ["recipe=yolov5", "decay=linear", "nbs=320"],  # loses windows, although it never leaves warm-up
    "ultralytics": ["recipe=ultralytics", "decay=linear"],
    "ultralytics-8.3": ["recipe=ultralytics-8.3", "nbs=320"],
    "yolov3-spp": ["recipe=yolov3-spp"],
    "plateau": ["decay=plateau", "plateau_patience=0", "gamma=0.5"],
    "one_cycle_torch": ["decay=one_cycle_torch", "warmup=none", "warmup_epochs=0", "optimizer=adamw"],
    "parts": ["lr_backbone=0.1", "lr_head=2", "warmup_epochs_backbone=0.5", "warmup_epochs_head=0.9", "warmup_max=1"],
}
TWICE = ("sgd", "bf16", "plateau")  # evaluated every epoch, and resumed twice; sgd: the demo's network


@pytest.mark.slow
@pytest.mark.parametrize("kind", SCHEDULES)
def test_every_schedule_runs_as_planned_and_resumes_exactly(toy_args, tmp_path, kind):
    words = [*toy_args, "lr0=0.002", *SCHEDULES[kind], "--noval"]
    if kind in TWICE:
        words.remove("--noval")
    if kind == "sgd":
        words = replaced(words, "--weights", REPO / "models/demo.yaml")
    whole = run_train(*words, project=tmp_path, name="whole")
    logged = assert_as_planned(whole)
    halves = run_train(*words, "--stop-after", 1, project=tmp_path, name="halves")
    assert state_of(halves)["gradients"] or kind == "yolov3-spp", "the test must stop inside an accumulation window"
    if kind in TWICE:
        train.main(["--resume", str(halves / "weights/last.pt"), "--stop-after", "1"])
    train.main(["--resume", str(halves / "weights/last.pt")])
    about = json.loads((halves / "run.json").read_text())
    times = 2 if kind in TWICE else 1
    assert not about["resumed"] and len(about["resumes"]) == times, "the first start stays, the others are listed"
    a, b = state_of(whole), state_of(halves)
    for key in ("model", "ema", "optimizer", "loss", "random", "gradients"):
        assert_same(a[key], b[key], key)
    assert a["progress"]["last_step"] == b["progress"]["last_step"]
    assert_same(a["progress"]["history"], b["progress"]["history"])
    if kind == "plateau":
        assert len(a["progress"]["history"]) == 3
        assert logged["lr/weight"][-1] < 0.6 * max(logged["lr/weight"]), "the test must reduce the rate"
    rows = [read_metrics(folder / "metrics.csv") for folder in (whole, halves)]
    timeless = [[{k: v for k, v in row.items() if "time/" not in k} for row in run] for run in rows]
    assert_same(*timeless)
    logged = [read_scalars(folder, ("lr/", "train/")) for folder in (whole, halves)]
    assert_same(*logged)


def test_the_epoch_line_names_the_parts_that_have_rates_of_their_own():
    row = {"lr/backbone.bias": 0.1, "lr/backbone.weight": 1e-3, "lr/head.norm": 0.2, "lr/head.weight": 1e-2}
    assert epoch_line(1, 3, row) == "epoch 1/3  lr backbone 1.00e-03 head 1.00e-02"
    assert epoch_line(1, 3, {"lr/bias": 0.1, "lr/weight": 1e-3}) == "epoch 1/3  lr 1.00e-03"


def test_scale_lr_reaches_the_optimizer(toy_args, tmp_path):
    """Two batches of 8 a step where nbs says 12."""
    words = [*replaced(toy_args, "--epochs", 1), "--noval", "nbs=12", "optimizer=adamw", "warmup_bias_lr=null"]
    logged = assert_as_planned(run_train(*words, "scale_lr=sqrt", project=tmp_path))
    plain = build_schedule(Hyp(epochs=1, nbs=12, warmup_epochs=1, optimizer="adamw", warmup_bias_lr=None), 3, 8)
    assert logged["lr/weight"] == pytest.approx([(16 / 12) ** 0.5 * plain(ni).lr["weight"] for ni in range(3)])


def test_same_run_for_any_number_of_workers_and_from_its_hyp_yaml(toy_args, tmp_path):
    first = run_train(*toy_args, "--epochs", 1, project=tmp_path, name="first")
    again = run_train("--hyp", first / "hyp.yaml", "--workers", 2, project=tmp_path, name="again")
    for key in ("model", "ema", "optimizer"):
        assert_same(state_of(first)[key], state_of(again)[key], key)


def test_what_auto_chose_is_in_the_plan_and_in_the_run(toy_args, tmp_path, capsys):
    words = [*toy_args, "--epochs", "1", "recipe=ultralytics", "optimizer=auto", "--noval"]
    folder = run_train(*words, project=tmp_path)
    hyp = yaml.safe_load((folder / "hyp.yaml").read_text())
    assert (hyp["optimizer"], hyp["lr0"], hyp["momentum"], hyp["warmup_bias_lr"]) == ("adamw", 0.00125, 0.9, 0.0)
    assert train.main([*words, "--plan", "--project", str(tmp_path)]) == {}
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("optimizer auto chose")]
    assert len(said) == 2 and said[0] == said[1]


def test_seed_changes_the_run(toy_args, tmp_path):
    a = run_train(*toy_args, "--epochs", 1, project=tmp_path, name="a")
    b = run_train(*toy_args, "--epochs", 1, "--seed", 1, project=tmp_path, name="b")
    assert not torch.equal(*(state_of(f)["model"]["model.0.conv.weight"] for f in (a, b)))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_keeps_the_last_epoch(toy_args, tmp_path, number):
    words = [*replaced(toy_args, "--epochs", 500), "--workers", "1", "--project", str(tmp_path)]
    process = forked.start("train.py", *words, folder=tmp_path)
    out, deadline = tmp_path / "out.txt", time.monotonic() + 60
    while "\nepoch 2/" not in out.read_text() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(number)
    assert process.wait(60) == 128 + number
    out, err = out.read_text(), (tmp_path / "err.txt").read_text()
    assert "--resume" in out and "Traceback" not in err
    assert state_of(tmp_path / "exp")["progress"]["epoch"] >= 2


def test_statistics_that_an_infinite_activation_spoilt_are_named_and_not_saved(toy_args, tmp_path):
    """Once, in the second epoch: the losses after it are numbers, for training does not use the statistics."""
    seen = []

    def overflow(module: torch.nn.Module, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor] | None:
        if not (isinstance(module, torch.nn.BatchNorm2d) and module.training):
            return None
        seen.append(id(module))
        return (inputs[0] * math.inf,) if seen[0] == id(module) and seen.count(id(module)) == 4 else None

    with torch.nn.modules.module.register_module_forward_pre_hook(overflow):
        with pytest.raises(Diverged, match=r"a BatchNorm statistic .*running_mean.*overflowed.* at batch 5, epoch 2"):
            run_train(*toy_args, project=tmp_path)
    state = state_of(tmp_path / "exp")
    assert state["progress"]["epoch"] == 1
    for part in (state["model"], state["ema"]["model"], load_weights(tmp_path / "exp/weights/best.pt").state):
        assert all(bool(tensor.isfinite().all()) for tensor in part.values())


@pytest.mark.parametrize("words", [["--epochs", "1"], ["--epochs", "100", "--patience", "1"], ["--time", "1e-9"]])
def test_a_run_that_took_no_step_at_all_has_diverged(toy_args, tmp_path, words):
    """Gradients of 1e30 are numbers, their norm is none: every step is skipped, and nothing was learned."""
    with pytest.raises(Diverged, match="no step was taken: the gradient of all 3|steps in a row"):
        run_train(*toy_args, "box=1e30", "nbs=8", *words, project=tmp_path)
    state = state_of(tmp_path / "exp")
    assert not state["progress"]["finished"]


@pytest.mark.slow
def test_a_run_that_still_trains_is_not_resumed_until_its_process_is_dead(toy_args, tmp_path):
    """Killed without a word, with worker processes that outlive it for a moment: the next one is let in at once."""
    words = [*replaced(toy_args, "--epochs", 300), "--noval", "--project", tmp_path]
    process = forked.start("train.py", *replaced(words, "--workers", 1), folder=tmp_path)
    resume = ["--resume", str(tmp_path / "exp/weights/last.pt"), "--stop-after", "1", "--workers", "0"]
    deadline = time.monotonic() + 60
    while "\nepoch 1/" not in (tmp_path / "out.txt").read_text() and time.monotonic() < deadline:
        time.sleep(0.02)
    before = json.loads((tmp_path / "exp/run.json").read_text())
    bad(resume, f"another process .{process.pid}.")
    bad([*map(str, words), "--exist-ok"], "another process")
    assert json.loads((tmp_path / "exp/run.json").read_text()) == before
    process.kill()
    process.wait(60)
    epoch = state_of(tmp_path / "exp")["progress"]["epoch"]
    train.main(resume)
    assert state_of(tmp_path / "exp")["progress"]["epoch"] == epoch + 1
    assert not (tmp_path / "exp/.lock").exists()


@pytest.mark.slow
def test_a_nan_loss_stops_with_3_and_keeps_the_last_good_state(toy_args, tmp_path):
    words = [
        *toy_args,
        "lr0=10",
        "warmup_bias_lr=10",
        "clip_norm=null",
        "warmup=none",
        "nbs=8",
        "--epochs",
        "9",
        "box=1e30",
    ]
    with pytest.raises(Diverged, match="NaN or infinite at batch"):
        run_train(*words, project=tmp_path)
    state = state_of(tmp_path / "exp")
    assert all(bool(v.isfinite().all()) for v in state["model"].values())
    code, _, err = forked.run("train.py", *words, "--project", tmp_path, "--name", "again")
    assert code == 3 and "diverged" in err and "Traceback" not in err


def bad(words: list[str], match: str) -> None:
    with pytest.raises(UserError, match=match):
        train.main(words)


def test_bad_input_gets_one_message(toy_args, tmp_path, toy):
    words = [*toy_args, "--project", str(tmp_path / "runs")]
    bad(replaced(words, "--data", "nowhere.yaml"), "nowhere.yaml")
    bad(replaced(words, "--weights", "nowhere.pt"), "nowhere.pt.*Looked for")
    bad(replaced(words, "--imgsz", 70), "multiple of .*32")
    bad(replaced(words, "--batch", 0), "at least 1")
    bad(replaced(words, "--batch", -1), "needs a GPU")
    bad([*words, "amp=fp16"], "needs a GPU")
    bad([*words, "--freeze", "bakbone"], "backbone")
    bad([*words, "decay=plateau", "--noval"], "noval: True contradicts decay: plateau")
    bad([*words, "decay=plateau", "val_every=2"], "val_every: 2 contradicts decay: plateau")
    bad([*words, "decay=plateau", "plateau_metric=val/mAP"], "val/mAP50-95")
    bad([*words, "scale_lr=sqrt"], "sum")
    bad(["--data", str(toy)], "--weights is missing.*--hyp demo")
    bad(["--weights", "x.pt"], "--data is missing.*--hyp demo")
    bad(["--resume", str(tmp_path / "last.pt")], "no checkpoint")
    bad(["--resume", "--project", str(tmp_path)], "no run")
    bad(["--resume", str(toy)], "cannot be resumed")
    assert not (tmp_path / "runs").exists(), "refused before anything was written"


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks for a GPU that is not there")
def test_a_gpu_that_is_not_there(toy_args):
    bad(replaced(toy_args, "--device", "0"), "sees no GPU")


def test_an_output_folder_that_cannot_be_written(toy_args, tmp_path):
    (tmp_path / "file").write_text("")
    bad([*toy_args, "--project", str(tmp_path / "file")], "cannot write to")


def test_a_cache_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    environment = {k: v for k, v in os.environ.items() if k != "YOLO_CONFIG_DIR"}
    environment["PREHEAT_CACHE"] = str(tmp_path / "file" / "cache")
    done = subprocess.run(
        [sys.executable, REPO / "train.py"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and "PREHEAT_CACHE" in done.stderr and "Traceback" not in done.stderr


def test_resume_refuses_other_settings(finished):
    bad(["--resume", str(finished / "weights/last.pt"), "lr0=0.5"], "lr0 cannot change")
    bad(["--resume", str(finished), "--epochs", "100"], "epochs cannot change")  # though 100 is the default


@pytest.mark.slow
def test_exit_code_and_message_of_the_script(tmp_path):
    done = subprocess.run(
        [sys.executable, REPO / "train.py", "--epocs", "3"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: unknown option 'epocs'. Did you mean 'epochs'?")
    assert len(done.stderr.splitlines()) == 1


def test_early_stopping_waits_for_the_warmup():
    progress = Progress(epoch=5, best=0.5, best_epoch=1)
    assert progress.out_of_patience(patience=4, nw=0, nb=10)
    assert not progress.out_of_patience(patience=4, nw=20, nb=10), "counted from the end of the warm-up, epoch 2"
    assert not progress.out_of_patience(patience=0, nw=0, nb=10)


def test_the_first_epochs_neither_count_nor_can_be_the_best():
    progress = Progress()
    for progress.epoch, value in enumerate([0.9, 0.8, 0.3, 0.2], 1):
        assert progress.is_best(value, patience_from=2) == (progress.epoch <= 3)
    assert (progress.best, progress.best_epoch) == (0.3, 3)
    assert not progress.out_of_patience(2, nw=0, nb=10, patience_from=2)
    assert not Progress(epoch=5, best_epoch=2).out_of_patience(3, nw=0, nb=10, patience_from=3)


def test_best_metric_decides_which_epoch_is_kept(toy_args, tmp_path):
    words = [*toy_args, "lr0=0.01", "best_metric=recall", "patience_from=1"]
    folder = run_train(*words, project=tmp_path)
    recall = [row["val/recall"] for row in read_metrics(folder / "metrics.csv")][1:]
    assert state_of(folder)["progress"]["best_epoch"] == 2 + recall.index(max(recall))
    assert judged({"val/precision": 0.5, "val/recall": 1.0}, "F1") == pytest.approx(2 / 3)


def test_the_smallest_validation_loss_can_be_the_best(toy_args, tmp_path):
    folder = run_train(*toy_args, "lr0=0.01", "best_metric=val_loss", project=tmp_path)
    losses = [sum(row[key] for key in LOSSES) for row in read_metrics(folder / "metrics.csv")]
    progress = state_of(folder)["progress"]
    assert progress["best_epoch"] == 1 + losses.index(min(losses))
    assert progress["best"] == pytest.approx(-min(losses))
    low, high = Progress(epoch=1), {"val/box": 3.0, "val/cls": 4.0, "val/dfl": 5.0}
    assert low.is_best(judged(high, "val_loss")), "a loss above 1 is a score, too"
    low.epoch = 2
    assert not low.is_best(judged(high | {"val/cls": 4.5}, "val_loss"))
    assert not low.is_best(judged(high | {"val/cls": float("nan")}, "val_loss"))


def test_patience_stops_a_run_and_finishes_it(toy_args, tmp_path):
    folder = run_train(*toy_args, "--epochs", 30, "lr0=1e-9", "warmup_bias_lr=null", "--patience", 3, project=tmp_path)
    state = state_of(folder)
    assert state["progress"]["finished"] and state["progress"]["epoch"] < 30
    assert state["progress"]["last_step"] < state["progress"]["ni"] - 1 and state["gradients"], "nothing is flushed"


def test_noval_evaluates_once(toy_args, tmp_path):
    folder = run_train(*toy_args, "--noval", project=tmp_path)
    assert ["val/mAP50-95" in row for row in read_metrics(folder / "metrics.csv")] == [False, False, True]


def test_a_frozen_backbone_stays_bit_for_bit(toy_args, tmp_path):
    folder = run_train(*toy_args, "--epochs", 1, "--freeze", "backbone", project=tmp_path)
    train_state = state_of(folder)
    torch.manual_seed(0)
    weights = toy_args[toy_args.index("--weights") + 1]
    fresh = train.open_model(Hyp(weights=weights), ["mug", "key", "leaf", "bolt"], None, False)[0]
    moved = {k.split(".")[1] for k, v in fresh.state_dict().items() if not torch.equal(v, train_state["model"][k])}
    assert moved and min(map(int, moved)) >= len(fresh.yaml["backbone"]), "statistics included"


def test_multi_scale_bf16_and_albumentations_run(toy_args, tmp_path):
    extra = ["multi_scale=0.5", "amp=bf16", "mixup=1.0", "degrees=10", "albumentations=[{name: Blur, p: 1.0}]"]
    words = replaced(toy_args, "--imgsz", 128)  # the smallest scale must have ten anchors to choose from
    folder = run_train(*words, "--epochs", 1, *extra, project=tmp_path)
    assert state_of(folder)["progress"]["finished"]


def test_run_folders_are_numbered(toy_args, tmp_path):
    for _ in range(2):
        run_train(*toy_args, "--epochs", 1, "--noval", project=tmp_path)
    assert (tmp_path / "exp2/weights/best.pt").exists()


def test_ema_tau_auto_is_used_and_stored(toy_args, tmp_path):
    words = [w for w in toy_args if not w.startswith("ema_tau")]
    folder = run_train(*words, "ema_tau=auto", "--epochs", 1, project=tmp_path)
    hyp = Hyp(epochs=1, nbs=32, warmup_epochs=1, ema_tau="auto")
    assert state_of(folder)["ema"]["tau"] == make_plan(build_schedule(hyp, 3, 8), hyp).ema_tau


OFFLINE = """
import socket, sys, runpy
def refuse(*a, **k): raise SystemExit("network use")
socket.socket.connect = refuse
socket.create_connection = socket.getaddrinfo = refuse
sys.argv = ["train.py", *sys.argv[1:]]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.slow
def test_no_network_and_no_writes_elsewhere(toy_args, tmp_path):
    """A whole run with sockets blocked and a home of its own: only the run and the cache folder change."""
    home, cache, runs = tmp_path / "home", tmp_path / "cache", tmp_path / "runs"
    home.mkdir()
    short = replaced(toy_args, "--epochs", 1)
    dataset = Path(toy_args[toy_args.index("--data") + 1]).parent
    kept = {k: v for k, v in os.environ.items() if k not in ("YOLO_CONFIG_DIR", "MPLCONFIGDIR")}
    environment = kept | {"HOME": str(home), "PREHEAT_CACHE": str(cache), "PYTHONDONTWRITEBYTECODE": "1"}
    since = time.time() - 1
    done = subprocess.run(
        [sys.executable, "-c", OFFLINE, *[w for w in short if w != "--noplots"], "--project", runs],
        cwd=REPO, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert list(home.rglob("*")) == []
    assert (runs / "exp/weights/best.pt").exists() and any(cache.iterdir())
    newer = [p for p in (*dataset.rglob("*"), *REPO.rglob("*")) if p.is_file() and p.stat().st_mtime > since]
    assert not [p for p in newer if not {".git", ".hypothesis", ".pytest_cache", "__pycache__"} & set(p.parts)]


TORCHRUN = """
import os, runpy, sys
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

def rank(*words):
    own = [word.partition(":")[2] for word in words if word.startswith("rank" + os.environ["RANK"])]
    sys.argv = [word for word in words if not word.startswith("rank")] + own
    runpy.run_path(words[0], run_name="__main__")

same = {"min_nodes": 1, "max_nodes": 1, "rdzv_backend": "c10d", "rdzv_endpoint": "localhost:0", "run_id": "test"}
same["max_restarts"] = 0
elastic_launch(LaunchConfig(nproc_per_node=2, start_method="fork", **same), rank)(*sys.argv[1:])
"""


@pytest.mark.slow
def test_two_ranks_train_as_torchrun_starts_them(toy_args, tmp_path, forked_runs):
    """By torchrun's own launcher, but that it forks: two more interpreters would each import torch."""
    words = [*replaced(toy_args, "--epochs", 2), "decay=plateau", "--project", tmp_path]
    done = subprocess.run(
        [sys.executable, "-c", TORCHRUN, REPO / "train.py", *words],
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert [p.name for p in tmp_path.iterdir()] == ["exp"], "rank 0 alone writes"
    assert done.stdout.count("epoch 2/2") == 1
    assert len(read_metrics(tmp_path / "exp/metrics.csv")) == 2


@pytest.mark.slow
@pytest.mark.parametrize("word", ["imgsz=100", "rank1:imgsz=100"])
def test_an_error_of_the_ranks_is_said_last_and_once(word, toy_args, tmp_path, forked_runs, monkeypatch):
    """Be it of all ranks or of one: torchrun's report, which follows everything else, ends with it."""
    if word.startswith("rank1"):
        monkeypatch.setattr("utils.errors.PATIENCE", 1.0)  # no other rank will meet it
    words = [sys.executable, "-c", TORCHRUN, REPO / "train.py", *toy_args, "--project", tmp_path, word]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 1
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip("= ")]
    assert "error: imgsz 100 is not a multiple" in lines[-1], done.stderr[-3000:]
    assert (done.stdout + done.stderr).count("imgsz 100 is not a multiple") == 1


def steps_of(folder: Path) -> dict[str, list[int]]:
    """The steps of every scalar in the event files of a run, in the order in which TensorBoard reads them."""
    from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={SCALARS: 0})
    events.Reload()
    return {tag: [event.step for event in events.Scalars(tag)] for tag in events.Tags()[SCALARS]}


@pytest.mark.parametrize(("epoch", "nb", "back"), [(0, 4, 0), (1, 1, 0), (2, 1, 3600), (1, 4, 3600), (2, 4, 0)])
def test_a_log_that_goes_on_has_every_step_once(tmp_path, monkeypatch, epoch, nb, back):
    """After a kill in the middle of a write, two epochs and a batch beyond the state that the run goes on from.

    Within a second, or with a clock that was set back by `back` seconds meanwhile.
    """

    def write(runlog: RunLog, first: int, end: int) -> None:
        for e in range(first, end):
            for ni in range(e * nb, (e + 1) * nb):
                runlog.batch(ni, {"lr/bias": 1.0, "accumulate": 1}, {"train/box": torch.tensor(0.5)})
            runlog.epoch(e + 1, (e + 1) * nb, {"val/mAP50": 0.1, "train/box": 0.5, "train/skipped": 0})

    runlog = RunLog(tmp_path)
    runlog.epoch(0, 0, {"val/mAP50": 0.0})
    write(runlog, 0, epoch + 2)
    runlog.batch((epoch + 2) * nb, {"lr/bias": 1.0}, {})
    runlog.close()
    file = next(tmp_path.glob("events.*"))
    file.write_bytes(file.read_bytes()[:-5])
    now = time.time
    for k in range(2):  # a second time with a file of the first time
        monkeypatch.setattr(time, "time", lambda k=k: now() - (k + 1) * back)
        runlog = RunLog(tmp_path, epoch, epoch * nb, resumed=True)
        write(runlog, epoch, epoch + 3)
        runlog.close()
    batches, epochs = list(range((epoch + 3) * nb)), list(range(1, epoch + 4))
    steps = {"lr/bias": batches, "accumulate": batches, "train/box": batches}
    assert steps_of(tmp_path) == steps | {"val/mAP50": [0, *epochs], "train/skipped": epochs}
    assert [row["epoch"] for row in read_metrics(tmp_path / "metrics.csv")] == [0, *epochs]


def test_after_a_resume_tensorboard_has_no_batch_twice(toy_args, tmp_path):
    folder, last = tmp_path / "exp", tmp_path / "exp/weights/last.pt"
    run_train(*toy_args, "--stop-after", 1, project=tmp_path)
    kept = last.read_bytes()
    train.main(["--resume", str(folder), "--stop-after", "1"])
    last.write_bytes(kept)  # as if killed before the second epoch was kept
    train.main(["--resume", str(folder)])
    steps = steps_of(folder)
    assert steps["accumulate"] == steps["lr/bias"] == steps["train/box"] == list(range(9))
    assert steps["val/mAP50"] == steps["val/box"] == steps["time/epoch"] == [1, 2, 3]
    assert all(len(set(numbers)) == len(numbers) for numbers in steps.values())


def test_a_run_knows_its_data(toy, toy_args, tmp_path):
    """Other data are refused, the same in another place are not; what goes on all the same ends with its schedule."""
    words = [*replaced(toy_args, "--epochs", 2), "--noval"]
    shutil.copytree(toy.parent, tmp_path / "here")
    data = tmp_path / "here/toy.yaml"
    folder = run_train(*replaced(words, "--data", data), "--stop-after", 1, project=tmp_path, name="run")
    resume = ["--resume", str(folder / "weights/last.pt")]
    names = data.read_text()
    data.write_text(names.replace("[mug, key", "[key, mug"))
    bad(resume, "names: mug, key, leaf, bolt at the start, key, mug, leaf, bolt now.*--resume-anyway")
    data.write_text(names.replace("bolt]", "bolt, nut]"))
    bad([*resume, "--resume-anyway"], "cannot change its number of classes")
    data.write_text(names)
    label = sorted((tmp_path / "here/labels/train").glob("*.txt"))[0]
    rows = label.read_text()
    label.write_text(rows + "0 0.5 0.5 0.1 0.1\n")
    bad(resume, "train boxes")
    label.write_text(rows)
    shutil.move(tmp_path / "here", tmp_path / "there")
    copy = shutil.copytree(folder, tmp_path / "copy")
    train.main([*resume, "--data", str(tmp_path / "there/toy.yaml")])
    assert state_of(folder)["progress"]["finished"]
    for picture in sorted((tmp_path / "there/images/train").iterdir())[:9]:
        picture.unlink()
    again = ["--resume", str(copy), "--data", str(tmp_path / "there/toy.yaml")]
    bad(again, "train pictures: 20 at the start, 11 now")
    train.main([*again, "--resume-anyway"])
    state = state_of(copy)
    assert state["progress"]["ni"] == 4, "two epochs of two batches, as the schedule has them"
    assert json.loads((copy / "run.json").read_text())["resumes"][-1]["data_changed"]


def test_a_last_pt_outside_a_run_folder_goes_on_in_a_new_one(toy_args, tmp_path):
    words = [*replaced(toy_args, "--epochs", 2), "--noval"]
    folder = run_train(*words, "--stop-after", 1, project=tmp_path / "runs", name="run")
    lone = tmp_path / "elsewhere/deep/last.pt"
    lone.parent.mkdir(parents=True)
    shutil.copy(folder / "weights/last.pt", lone)
    train.main(["--resume", str(lone), "--project", str(tmp_path / "new")])
    assert [p.name for p in (tmp_path / "elsewhere").rglob("*")] == ["deep", "last.pt"]
    train.main(["--resume", str(folder / "weights/last.pt")])
    for key in ("model", "ema", "optimizer"):
        assert_same(state_of(folder)[key], state_of(tmp_path / "new/run")[key], key)


def test_scores_of_each_class_stay_in_the_run_folder(finished):
    with open(finished / "per_class.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["mug", "key", "leaf", "bolt"]
    model = load_for_eval(str(finished / "weights/best.pt"))
    assert list(model.names.values()) == [row["name"] for row in rows]
    scores = [float(row["mAP50-95"]) for row in rows if row["mAP50-95"]]
    assert scores and all(0 <= score <= 1 for score in scores)


def test_a_log_shows_that_a_run_is_alive(caplog):
    caplog.set_level("INFO")
    assert list(signs_of_life(range(4), 4, "epoch 1/1", every=0)) == [0, 1, 2, 3]
    assert [r.message for r in caplog.records] == [f"epoch 1/1: {k} of 4" for k in (1, 2, 3)], (
        "the end is said elsewhere"
    )
    caplog.clear()
    assert list(signs_of_life(range(4), 4, "epoch 1/1")) == [0, 1, 2, 3] and not caplog.records


def test_a_loss_that_is_not_finite_is_in_no_sum_and_twenty_skipped_steps_in_a_row_are_the_end():
    nan, fine = torch.tensor([1.0, float("nan"), 2.0]), torch.tensor([1.0, 3.0, 2.0])
    meter = Meter(torch.device("cpu"), ("box", "cls", "dfl"), in_row=18)
    meter.add(nan, 4)
    meter.step(torch.tensor(float("inf")))
    assert meter.ends_lost() and not meter.hopeless(0), "nothing but lost batches; 19 steps"
    meter.add(fine, 4)
    meter.step(torch.tensor(2.0))
    assert not meter.ends_lost()
    means = meter.means(1.0)
    assert [means[f"train/{name}"] for name in ("box", "cls", "dfl")] == fine.tolist()
    assert means["train/skipped"] == 1 and means["train/grad_norm"] == 2.0
    meter.add(nan, 4)
    assert not meter.ends_lost(), "one is an accident"
    meter.add(nan, 4)
    assert meter.ends_lost()
    looks = []
    for ni in range(20):
        meter.step(torch.tensor(float("nan")))
        looks.append(meter.hopeless(ni))
    assert looks == [False] * 19 + [True]
