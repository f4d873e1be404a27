"""What only a GPU can show: mixed precision, the scaler, pinned batches, batch -1. Skipped without one."""

import pytest
import torch

import train
from models.detector import build_detector
from models.fit import largest_batch
from tests.runs import replaced, run_train, state_of
from utils.runlog import read_metrics

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.parametrize("amp", ["fp16", "bf16", "off"])
def test_every_precision_trains_and_resumes(toy_args, tmp_path, amp):
    words = [*replaced(toy_args, "--device", "cuda"), f"amp={amp}", "lr0=0.002"]
    folder = run_train(*words, "--stop-after", 1, project=tmp_path)
    train.main(["--resume", str(folder / "weights/last.pt"), "--device", "cuda"])
    state = state_of(folder)
    assert state["progress"]["finished"] and state["hyp"]["amp"] == amp
    assert all(bool(v.isfinite().all()) for v in state["ema"]["model"].values())
    assert len(read_metrics(folder / "metrics.csv")) == 3
    if amp == "fp16":
        assert state["scaler"]["scale"] > 0


def test_the_largest_batch_is_a_power_of_two_that_fits():
    model, _ = build_detector("yolov8n.yaml", ["a", "b"])
    batch = largest_batch(model.cuda(), 64, torch.float16, most=64)
    assert batch in {1, 2, 4, 8, 16, 32, 64}
