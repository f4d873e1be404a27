"""What only a GPU can show: mixed precision, the scaler, pinned batches, batch -1. Skipped without one."""

import pytest
import torch

import train
from data.definition.dataset_yaml import load_dataset_yaml
from data.index.index import build_index
from data.loading.loader import build_train_loader
from models.detector import build_detector
from models.fit import largest_batch
from tests.helpers.runs import replaced, run_train, state_of
from utils.config.schema import Hyp
from utils.evaluation.evaluate import preprocess
from utils.run.log import read_metrics

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


@pytest.mark.parametrize("workers", [0, 2])
def test_pinned_batches_arrive_as_they_were_made(workers):
    """While the GPU is busy and the loop runs ahead of it, no buffer is written over before its copy has been made."""
    index = build_index(load_dataset_yaml("toy-target"), "train")
    hyp, device = Hyp(imgsz=320, epochs=2), torch.device("cuda")
    oracle = build_train_loader(index, hyp.model_copy(update={"loader": "torch"}), batch=16, workers=0)
    load, arrived = torch.rand(4096, 4096, device=device), []
    for batch in build_train_loader(index, hyp, batch=16, workers=workers, pin=True).epoch(0):
        for _ in range(20):
            load = (load @ load).clamp(0, 1)
        arrived.append(preprocess(batch["img"], device))
    for got, batch in zip(arrived, oracle.epoch(0), strict=True):
        torch.testing.assert_close(got.cpu(), preprocess(batch["img"], torch.device("cpu")))
