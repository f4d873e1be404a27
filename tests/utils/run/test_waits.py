"""How often the host waits for a GPU, ours not at all, the criterion as it must.

The numbers are ceilings: whoever needs fewer may lower them.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

import train
from data.definition.dataset_yaml import load_dataset_yaml
from data.index.index import Index, build_index
from data.loading.loader import build_eval_loader, build_train_loader
from models.detector import build_detector, load_for_eval
from models.training.ema import EMA
from models.training.state import build_training, scored_as_stored
from tests.helpers.runs import TINY, TOY_NAMES, guesser
from tests.helpers.waits import Waits
from tests.helpers.zoo import thinned
from utils.config.schema import Hyp
from utils.device.ranks import Ranks
from utils.evaluation import evaluate as evaluation
from utils.evaluation.evaluate import Settings, evaluate
from utils.evaluation.nms import suppress_together
from utils.run.log import RunLog
from utils.run.meter import CHECK_EVERY

CPU = torch.device("cpu")
CRITERION = 5  # waits of ultralytics' criterion for each branch of a head


@pytest.fixture(scope="module")
def index(toy) -> Index:
    return build_index(load_dataset_yaml(toy), "train")


@pytest.fixture
def as_on_a_gpu(monkeypatch) -> None:
    """What is chosen by the device: the average, when the meter looks, how targets and detections are chosen."""
    monkeypatch.setattr(EMA, "update", EMA._update_on_device)
    monkeypatch.setattr("utils.run.meter.looks", lambda device, batch: batch % CHECK_EVERY == 0)
    monkeypatch.setattr(evaluation, "non_max_suppression", suppress_together)
    monkeypatch.setattr("models.loss.detection.Sparse", lambda assigner: assigner)


@pytest.mark.parametrize(
    ("yaml", "branches", "hsv_on"),
    [(TINY, 1, "host"), (TINY, 1, "device"), (thinned("yolo26.yaml"), 2, "device")],
    ids=lambda value: getattr(value, "stem", str(value)),
)
def test_a_training_step_waits_for_the_criterion_only(index, as_on_a_gpu, tmp_path, yaml, branches, hsv_on):
    """Pictures, network, loss, scaler, clipping, step, average, sums and log of every batch of an epoch."""
    torch.manual_seed(0)
    hyp = Hyp(imgsz=96, epochs=2, batch=4, nbs=8, warmup_epochs=0, hsv_on=hsv_on, clip_norm=1.0)
    model, _ = build_detector(str(yaml), TOY_NAMES)
    loader = build_train_loader(index, hyp, batch=4, workers=0)
    training, _ = build_training(model, hyp, len(loader), np.ones(4), Ranks(0, 1, CPU), torch.bfloat16, None)
    training.scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    for group in training.optimizer.param_groups:
        group.update(fused=True, foreach=False)
    runlog, seen = RunLog(tmp_path, 0, 0, False), []
    run = train.Run(hyp, Ranks(0, 1, CPU), tmp_path, 32, {}, False, dtype=torch.bfloat16)

    def watched(waits: Waits) -> Iterator[dict[str, Any]]:
        for batch in loader.epoch(0):
            waits.leave(value for value in batch.values() if isinstance(value, torch.Tensor))
            waits.counts.clear()
            yield batch
            seen.append(dict(waits.counts))

    with Waits() as waits:
        train.train_one_epoch(training, model, watched(waits), run, runlog)
    runlog.close()
    assert len(seen) == 5 and training.progress.last_step > 0
    ours = [counts.pop("ours", 0) for counts in seen]
    assert ours[1:] == [0] * 4 and ours[0] <= 1, "the meter looks at every tenth batch"
    assert all(sum(counts.values()) <= CRITERION * branches for counts in seen[1:]), "the first one makes anchors"


@pytest.mark.parametrize("end2end", [False, True])
def test_an_evaluation_waits_three_times_a_batch(index, as_on_a_gpu, end2end):
    """Once for a head that needs no suppression; classes that have another place in the data cost nothing more.

    The head itself waits where the shape of a batch is another one than that of the batch before, and makes anchors.
    """
    torch.manual_seed(0)
    model = build_detector(str(thinned("yolo26.yaml")), TOY_NAMES)[0] if end2end else load_for_eval(str(guesser()))
    if end2end:
        model.end2end = True
    loader = build_eval_loader(index, imgsz=64, stride=32, batch=4, workers=0)
    counts = []
    for batches in (1, 5):
        some = [batch for batch, _ in zip(loader, range(batches), strict=False)]
        with scored_as_stored(model) as prepared:
            evaluate(prepared, some, index, CPU)  # makes what is kept for a size
            with Waits() as waits:
                passed = evaluate(prepared, some, index, CPU, Settings(class_map=[1, 0, 3, 2], dtype=torch.bfloat16))
        counts.append(waits.counts["ours"])
    assert len(passed.detections) == 20 and counts[1] - counts[0] == 4 * (1 if end2end else 3)
