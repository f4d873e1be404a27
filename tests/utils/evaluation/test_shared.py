"""An evaluation that ranks share gives the scores of one process."""

import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from data.definition.dataset_yaml import load_dataset_yaml
from data.index.index import build_index
from data.loading.loader import build_eval_loader
from models.detector import load_for_eval
from models.loss.detection import DetectionLoss
from tests.helpers.ranks import on_ranks
from tests.helpers.runs import guesser
from utils.config.schema import Hyp
from utils.device.ranks import Ranks
from utils.evaluation.evaluate import Evaluation, Settings, Validation
from utils.evaluation.losses import AIMED, Means

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks")


def score(ranks: Ranks, data: Any) -> Evaluation:
    """The scores of a network on 20 pictures in batches of 6, and on a second set; only rank 0 has its statistics."""
    index = build_index(load_dataset_yaml(str(data)), "train")
    share = {"batch": 6, "workers": 0, "rank": ranks.rank, "world_size": ranks.world_size}
    loader = build_eval_loader(index, imgsz=64, stride=32, **share)
    model = load_for_eval(str(guesser()))
    model.args = None
    criterion = DetectionLoss(model, Hyp(), world_size=ranks.world_size).sums
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and ranks.rank:
            module.running_mean += ranks.rank
    one = Validation(loader, index, ranks.device, Settings(), criterion=criterion, world_size=ranks.world_size)
    return replace(one, also=one).score(model)


@pytest.mark.slow
def test_the_scores_of_ranks_are_those_of_one_process(toy):
    """The last batch has two pictures, so that of three ranks one has none of it."""
    guesser()
    (alone,) = on_ranks(1, lambda ranks: score(ranks, toy))
    assert alone.metrics["val/mAP50"] > 0 < alone.metrics["also/mAP50"] and alone.metrics["val/box"] > 0
    for world_size in (2, 3):
        first, *others = on_ranks(world_size, lambda ranks: score(ranks, toy))
        assert sorted(map(str, first.predictions)) == sorted(map(str, alone.predictions)), "equal scores in any order"
        losses = {"val/box", "val/cls", "val/dfl"}
        for key, value in alone.metrics.items():
            assert first.metrics[key] == pytest.approx(value, rel=1e-5 if key in losses else 0, nan_ok=True), key
        assert np.array_equal(first.confusion, alone.confusion) and first.per_class == alone.per_class
        for other in others:
            assert str(other.metrics) == str(first.metrics) and not other.detections


def test_shares_of_batches_make_their_means():
    """Batches of two ranks, one of which has no part of the last batch."""

    def means(*batches: tuple[float, float]) -> Means:
        found = Means()
        for box, aimed in batches:
            found.add({"box": torch.tensor(box), AIMED: torch.tensor(aimed)})
        return found

    whole = means((6.0, 3.0), (1.0, 0.5), (0.2, 0.4))
    first, second = means((4.0, 1.0), (0.5, 0.25), (0.2, 0.4)), means((2.0, 2.0), (0.5, 0.25))
    expected = {"val/box": pytest.approx((2 + 1 + 0.2) / 3)}
    assert whole.values("val/", [whole.table()]) == expected
    assert first.values("val/", [first.table(), second.table()]) == expected
    assert Means().values("val/", [Means().table()]) == {}
