"""What a run tells TensorBoard beside its curves, and what it tells Weights & Biases."""

import importlib.util

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import train
from utils.config.schema import Hyp
from utils.drawing.figure import new_figure, save
from utils.errors import UserError
from utils.run.log import RunLog, open_wandb

missing = importlib.util.find_spec("wandb") is None


def a_run(folder, mirror=None) -> None:
    """Two batches and an epoch, with all that stands around them."""
    save(new_figure(2, 1), folder / "plan.png")
    runlog = RunLog(folder, mirror=mirror)
    runlog.begin(Hyp(lr0=0.25).model_dump())
    for ni in range(2):
        runlog.batch(ni, {"lr/weight": 0.1 + ni}, {"train/box": torch.tensor(2.0 + ni)})
    runlog.epoch(1, 2, {"train/box": 2.5, "val/mAP50-95": 0.5})
    runlog.result(Hyp(lr0=0.25).model_dump(), {"val/mAP50-95": 0.5, "best/mAP50-95": 0.75})
    runlog.close()


def test_tensorboard_has_the_hyp_as_text_and_for_comparing_and_the_plan(tmp_path):
    a_run(tmp_path)
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    (text,) = events.Tensors("hyp/text_summary")
    assert b"lr0: 0.25" in text.tensor_proto.string_val[0] and b"```yaml" in text.tensor_proto.string_val[0]
    (plan,) = events.Images("plan")
    assert plan.width > 100 and plan.encoded_image_string == (tmp_path / "plan.png").read_bytes()
    told = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    assert b"lr0" in told and b"optimizer" in told
    assert b"best/mAP50-95" in events.summary_metadata["_hparams_/experiment"].plugin_data.content


@pytest.mark.skipif(not missing, reason="wandb is installed")
def test_without_wandb_the_command_that_installs_it_is_named(tmp_path):
    with pytest.raises(UserError, match="pip install -r requirements-extra.txt"):
        open_wandb(tmp_path, {})


@pytest.mark.extra
@pytest.mark.skipif(missing, reason="wandb is an extra")
def test_wandb_is_told_the_same_offline(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    mirror = open_wandb(tmp_path, {"lr0": 0.25})
    a_run(tmp_path, mirror)
    (stored,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    content = stored.read_bytes()
    assert all(tag in content for tag in (b"lr/weight", b"train/box", b"val/mAP50-95", b"best/mAP50-95", b"lr0"))


@pytest.mark.slow
def test_a_whole_run_tells_its_hyp_and_its_final_metrics(toy, tmp_path):
    words = ["--hyp", "demo", "--data", str(toy), "--imgsz", "32", "--epochs", "1", "--batch", "8", "--workers", "0"]
    metrics = train.main([*words, "--project", str(tmp_path), "--noplots"])
    events = EventAccumulator(str(tmp_path / "exp"))
    events.Reload()
    assert events.Tensors("hyp/text_summary")
    assert b"lr0" in events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    assert "best/mAP50-95" in metrics
