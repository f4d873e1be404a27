"""The first steps of a run in fp16, on a CPU: none is thrown away, and one that is gets counted."""

from pathlib import Path

import numpy as np
import torch

import train
from data.definition.dataset_yaml import load_dataset_yaml
from data.index.index import build_index
from data.loading.loader import build_train_loader
from models.detector import build_detector
from models.training.state import build_training
from tests.helpers.runs import TINY, TOY_NAMES
from utils.config.schema import Hyp
from utils.device.ranks import Ranks

CPU = torch.device("cpu")


def steps_of(toy: Path, folder: Path, scale: float | None) -> tuple[float, float]:
    """Skipped steps of an epoch in which each batch is a step, and its last scale; scale: of the loss at first."""
    torch.manual_seed(0)
    index = build_index(load_dataset_yaml(toy), "train")
    hyp = Hyp(imgsz=64, epochs=2, batch=8, nbs=8, warmup_epochs=0, lr0=0.001)
    model, _ = build_detector(str(TINY), TOY_NAMES)
    loader = build_train_loader(index, hyp, batch=8, workers=0)
    training, _ = build_training(model, hyp, len(loader), np.ones(4), Ranks(0, 1, CPU), torch.float16, None)
    if scale:
        training.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    run = train.Run(hyp, Ranks(0, 1, CPU), folder, 32, {}, False, dtype=torch.float16)
    means = train.train_one_epoch(training, model, loader.epoch(0), run, None)
    return means["train/skipped"], training.scaler.get_scale()


def test_no_step_is_lost_at_the_scale_that_a_run_begins_with(toy, tmp_path):
    skipped, scale = steps_of(toy, tmp_path, None)
    assert skipped == 0 and scale == 2.0**10
    skipped, scale = steps_of(toy, tmp_path, 2.0**20)  # the loss is a sum: what it gives is too large for fp16
    assert skipped >= 1 and scale == 2.0 ** (20 - skipped)
