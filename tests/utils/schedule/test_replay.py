"""Our whole loop (schedule, optimizer, accumulation, clipping, EMA) against recordings of the originals' loops.

The recordings were made with a network of 14 numbers that start at 0.5, each with a gradient of 1 per batch.
"""

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.training.ema import EMA
from models.training.optim import applied_rates, build_optimizer, parameter_groups
from tests.helpers.traces import GOLDEN, load
from train import Run, Training, run_epochs
from utils.config.schema import Hyp
from utils.device.ranks import Ranks
from utils.run.state.progress import Progress
from utils.run.state.writer import Writer
from utils.schedule.plan import make_plan
from utils.schedule.rates import build_schedule, steps

FILES = {
    "yolov5": "yolov5_v7.0",
    "ultralytics": "ultralytics_8.4.190",
    "ultralytics-8.3": "ultralytics_8.3.63",
    "yolov3-spp": "yolov3spp",
}
OPTIMIZERS = {"SGD": "sgd", "Adam": "adam", "AdamW": "adamw"}
COLUMNS = {"lr_bias": "lr/bias", "lr_bn": "lr/norm", "lr_decay": "lr/weight", "momentum": "momentum"}


def recordings() -> Iterator[Any]:
    """(recipe, name) of every run recorded from its start; resumed runs of ours do not repeat the originals' faults."""
    for recipe, file in FILES.items():
        for name, trace in load(file).get("traces", {}).items():
            if trace["start_epoch"] == 0 and trace["cfg"].get("optimizer", "SGD") in OPTIMIZERS:
                yield pytest.param(recipe, name, id=f"{recipe}-{name}")


def unpacked(column: list | dict) -> list[float]:
    """A column, one entry per batch."""
    return [value for value, n in column["rle"] for _ in range(n)] if isinstance(column, dict) else column


def hyp_of(recipe: str, trace: dict[str, Any]) -> Hyp:
    cfg, keys = trace["cfg"], ("lr0", "lrf", "momentum", "weight_decay", "warmup_epochs", "warmup_momentum")
    given = {key: trace["hyp"][key] for key in (*keys, "warmup_bias_lr") if key in trace["hyp"]}
    mean = recipe == "yolov3-spp"
    given |= {"decay": "cosine" if mean or cfg["cos_lr"] else "linear", "clip_norm": None if mean else 10.0}
    given |= {"epochs": cfg["E"], "batch": cfg["B"], "optimizer": OPTIMIZERS[cfg.get("optimizer", "SGD")]}
    return Hyp(recipe=recipe, nbs=trace.get("nbs", 64), imgsz=32, amp="off", **given)


class Toy(nn.Module):
    """A stand-in for the recorded network: 14 numbers in the same roles; its output is their sum."""

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.Conv2d(3, 2, 1, bias=False), nn.BatchNorm2d(2), nn.Linear(3, 1))
        for parameter in self.parameters():
            nn.init.constant_(parameter, 0.5)

    def forward(self, images: Tensor) -> Tensor:
        return sum(parameter.sum() for parameter in self.parameters())


class ToyLoss:
    """A gradient of 1 per batch for every number, or of 1 per picture where the recipe takes the mean itself."""

    names = ("box", "cls", "dfl")

    def __init__(self, per_picture: bool) -> None:
        self.per_picture = per_picture

    def __call__(self, preds: Tensor, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        return preds * (len(batch["img"]) if self.per_picture else 1), torch.zeros(3)

    def end_epoch(self) -> None:
        pass


class Replay:
    """Batches for our loop; when the next one is asked for, what our loop did is held against the recording."""

    def __init__(self, training: Training, nb: int, batch: int, columns: dict[str, list[float]]) -> None:
        self.training, self.nb, self.columns = training, nb, columns
        self.pictures = torch.zeros(batch, 3, 1, 32, dtype=torch.uint8)

    def epoch(self, epoch: int, start_batch: int = 0) -> Iterator[dict[str, Tensor]]:
        for ni in range(epoch * self.nb, (epoch + 1) * self.nb):
            yield {"img": self.pictures, "pictures": (len(self.pictures),) * 2}
            self.compare(ni)

    def compare(self, ni: int) -> None:
        t, theirs = self.training, {name: column[ni] for name, column in self.columns.items()}
        ours = applied_rates(t.optimizer)
        expected = {ours_name: theirs[name] for name, ours_name in COLUMNS.items() if name in theirs}
        if "lr" in theirs:  # one group for everything; the recording has the rate of the steps
            expected |= {f"lr/{role}": theirs["lr"] for role in ("bias", "norm", "weight")}
        assert ours.keys() == expected.keys()
        near = (math.isclose(ours[name], expected[name], rel_tol=1e-9, abs_tol=1e-12) for name in ours)
        assert all(near), f"batch {ni}: {ours}, theirs {expected}"  # pytest.approx takes as long as the training
        assert (t.progress.last_step == ni) == theirs["step"], f"batch {ni}: a step or none"
        if "ema_updates" in theirs:
            assert t.ema.updates == theirs["ema_updates"], f"batch {ni}"


@pytest.mark.slow
@pytest.mark.skipif(not GOLDEN.is_dir(), reason=f"no recordings at {GOLDEN} (set PREHEAT_TESTDATA)")
@pytest.mark.parametrize(("recipe", "name"), recordings())
def test_our_loop_repeats_the_recorded_one(recipe, name, tmp_path):
    trace = load(FILES[recipe])["traces"][name]
    columns = {key: unpacked(column) for key, column in trace["iters"].items()}
    hyp, nb, model = hyp_of(recipe, trace), trace["cfg"]["nb"], Toy()
    schedule = build_schedule(hyp, nb, hyp.batch, tuple(parameter_groups(model, hyp)))
    plan = make_plan(schedule, hyp)
    training = Training(
        model=model,
        ema=EMA(model, hyp.ema_decay, plan.ema_tau),
        optimizer=build_optimizer(model, hyp, plan.weight_decay, schedule.decays_all),
        scaler=torch.amp.GradScaler("cpu", enabled=False),
        loss_fn=ToyLoss(per_picture=recipe == "yolov3-spp"),
        schedule=schedule,
        progress=Progress(),
        writer=Writer(background=False),
    )
    ours = {group["weight_decay"] for group in training.optimizer.param_groups}
    assert sorted(ours) == pytest.approx(sorted({group["weight_decay"] for group in trace["groups"]}))
    run = Run(hyp, Ranks(0, 1, torch.device("cpu")), tmp_path, 32, {}, False)
    run_epochs(training, Replay(training, nb, hyp.batch, columns), None, run, None, None)

    ends = trace.get("final_mean_model_ema") or {key: [mean] for key, mean in trace["final_mean"].items()}
    averaged = dict(training.ema.model.named_parameters())
    for (key, parameter), theirs in zip(model.named_parameters(), ends.values(), strict=True):
        ours = [parameter.mean().item(), averaged[key].mean().item()][: len(theirs)]
        assert ours == pytest.approx(theirs, rel=1e-4), key
    if "micro" in columns:
        assert list(steps(schedule)) == [(ni, n) for ni, n in enumerate(columns["micro"]) if n]
