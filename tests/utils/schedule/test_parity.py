"""Step by step as ultralytics' own trainer: our loop, with the recipe of that name, over the batches it trained on."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils.torch_utils import ModelEMA

from models.detector import build_detector
from models.loss.detection import DetectionLoss
from models.training.ema import EMA
from models.training.optim import applied_rates, build_optimizer, parameter_groups
from models.weights.find import read_model_yaml
from train import Run, Training, run_epochs
from utils.config.schema import Hyp
from utils.device.ranks import Ranks
from utils.run.state.progress import Progress
from utils.run.state.writer import Writer
from utils.schedule.plan import make_plan
from utils.schedule.rates import build_schedule

TOLERANCE = 1e-6
OLD = [*(f"thing {i}" for i in range(79)), "kite"]  # 80 classes
NEW = ["cell", "kite", "platelet"]
PICTURES = 15  # 8 batches an epoch, the last one of a single picture
HYP = Hyp(  # accumulate rises from 1 to 3; more weight decay and a shorter average than usual, so that an error shows
    epochs=3, batch=2, imgsz=64, nbs=6, warmup_epochs=1.875, weight_decay=0.01, ema_decay=0.9, ema_tau=5.0,
    clip_norm=10.0, head="rebuild", amp="off", device="cpu", recipe="ultralytics", decay="linear",
)  # fmt: skip
SHARED = {  # keys that mean the same in both programs
    "epochs", "batch", "imgsz", "nbs", "lr0", "lrf", "momentum", "weight_decay", "warmup_epochs", "warmup_momentum",
    "warmup_bias_lr", "box", "cls", "dfl", "device",
}  # fmt: skip
GROUPS = {"bias": "bias", "bn": "norm", "weight": "weight"}  # their name of a group -> ours


@dataclass
class Moment:
    """One batch of their run; the weights and their average after it, where it ended with an optimizer step."""

    epoch: int
    batch: dict[str, Tensor]
    rates: dict[str, float]  # as applied_rates has them
    accumulate: int
    model: dict[str, Tensor] | None = None
    average: dict[str, Tensor] | None = None


class Recorder(DetectionTrainer):
    """Their trainer, writing down what goes in and what comes out. It does not evaluate or save.

    It works in channels-last as ours does: another layout adds in another order, and a fresh network turns that
    difference of 1e-7 into one of 1e-2 within these steps.
    """

    def __init__(self, folder: Path, weights: Path) -> None:
        self.folder = folder
        self.moments: list[Moment] = []
        options = {"model": str(weights), "project": str(folder), "optimizer": "SGD", "amp": False, "val": False}
        options |= {"close_mosaic": 0, "deterministic": False, "workers": 0, "plots": False, "verbose": False}
        super().__init__(overrides=HYP.model_dump(include=SHARED) | options)
        torch.set_num_threads(1)  # they have just taken all cores; the order of sums must not depend on them

    def get_dataset(self) -> dict:
        pictures = str(self.folder / "images")
        return {"train": pictures, "val": pictures, "names": dict(enumerate(NEW)), "nc": len(NEW), "channels": 3}

    def _setup_train(self) -> None:
        super()._setup_train()
        self.model.to(memory_format=torch.channels_last)
        self.ema = ModelEMA(self.model, HYP.ema_decay, HYP.ema_tau)
        self.initial = snapshot(self.model)

    def preprocess_batch(self, batch: dict) -> dict:
        rates = {f"lr/{GROUPS[group['param_group']]}": group["lr"] for group in self.optimizer.param_groups}
        (rates["momentum"],) = {group["momentum"] for group in self.optimizer.param_groups}
        kept = {name: batch[name].clone() for name in ("img", "bboxes", "batch_idx")}
        kept["cls"] = batch["cls"].clone().view(-1)  # (n, 1) -> (n,)
        self.moments.append(Moment(self.epoch, kept, rates, self.accumulate))
        batch = super().preprocess_batch(batch)
        batch["img"] = batch["img"].contiguous(memory_format=torch.channels_last)
        return batch

    def optimizer_step(self) -> None:
        super().optimizer_step()
        self.moments[-1].model, self.moments[-1].average = snapshot(self.model), snapshot(self.ema.ema)

    def validate(self) -> tuple[dict, float]:
        return {}, 0.0

    def save_model(self) -> bool:
        return False

    def final_eval(self) -> None:
        pass


@dataclass
class Comparison:
    """Their batches as a loader of ours; when the next one is asked for, our tensors are held against theirs."""

    training: Training
    moments: list[Moment]

    def epoch(self, epoch: int, start_batch: int = 0) -> Iterator[dict[str, Tensor]]:
        for ni, theirs in enumerate(self.moments):
            if theirs.epoch == epoch:
                yield theirs.batch | {"pictures": (len(theirs.batch["img"]),) * 2}
                self.compare(ni, theirs)

    def compare(self, ni: int, theirs: Moment) -> None:
        assert applied_rates(self.training.optimizer) == pytest.approx(theirs.rates, rel=1e-9), f"batch {ni}"
        stepped = self.training.progress.last_step == ni
        assert stepped == (theirs.model is not None), f"batch {ni}"
        if stepped:
            assert_close(snapshot(self.training.model), theirs.model, f"model, batch {ni}")
            assert_close(snapshot(self.training.ema.model), theirs.average, f"EMA, batch {ni}")


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    """Copies of weights and buffers; without the counters of batch norm, which their average leaves at the start."""
    return {name: tensor.clone() for name, tensor in model.state_dict().items() if tensor.is_floating_point()}


def assert_close(ours: dict[str, Tensor], theirs: dict[str, Tensor], where: str) -> None:
    assert ours.keys() == theirs.keys(), where
    for name, tensor in ours.items():
        assert (tensor - theirs[name]).abs().max() <= TOLERANCE, f"{where}: {name}"  # NaN is no less


def draw_pictures(folder: Path) -> None:
    """Noise with up to three rectangles a picture, their colour being their class, and the label files."""
    rng = np.random.default_rng(0)
    for part in ("images", "labels"):
        (folder / part).mkdir()
    for number in range(PICTURES):
        picture = rng.integers(0, 120, (64, 64, 3), dtype=np.uint8)
        rows = []
        for _ in range(number % 4):
            w, h = rng.integers(12, 32, 2)
            x, y, cls = rng.integers(0, 64 - w), rng.integers(0, 64 - h), rng.integers(len(NEW))
            picture[y : y + h, x : x + w, cls] = 250
            rows.append(f"{cls} {(x + w / 2) / 64} {(y + h / 2) / 64} {w / 64} {h / 64}\n")
        cv2.imwrite(str(folder / "images" / f"{number}.png"), picture)
        (folder / "labels" / f"{number}.txt").write_text("".join(rows), encoding="utf-8")


def save_weights(family: str, path: Path) -> Path:
    """A checkpoint of 80 named classes, of an eighth of the width and no block twice in a row."""
    torch.manual_seed(0)
    yaml = read_model_yaml(Path(f"{family}.yaml"))
    model = DetectionModel(yaml | {"scales": {yaml["scale"]: [0.01, 0.125, 1024]}}, nc=len(OLD), verbose=False)
    model.names = dict(enumerate(OLD))
    torch.save({"model": model.half()}, path)
    return path


def start_as(theirs: Recorder, weights: Path) -> Training:
    """Everything that we train, from the same weights; the fresh rows of the class branch are theirs."""
    model, _ = build_detector(str(weights), NEW, HYP.head)
    differing = [name for name, tensor in snapshot(model).items() if not torch.equal(tensor, theirs.initial[name])]
    assert all("cv3." in name and name.endswith(".2.weight") for name in differing), "more than fresh rows differs"
    model.load_state_dict(theirs.initial, strict=False)
    model.to(memory_format=torch.channels_last)
    schedule = build_schedule(HYP, -(-PICTURES // HYP.batch), HYP.batch, tuple(parameter_groups(model, HYP)))
    weight_decay = make_plan(schedule, HYP).weight_decay
    assert {group["weight_decay"] for group in theirs.optimizer.param_groups} == {weight_decay, 0.0}
    return Training(
        model=model,
        ema=EMA(model, HYP.ema_decay, HYP.ema_tau),
        optimizer=build_optimizer(model, HYP, weight_decay, schedule.decays_all),
        scaler=torch.amp.GradScaler("cpu", enabled=False),
        loss_fn=DetectionLoss(model, HYP),
        schedule=schedule,
        progress=Progress(),
        writer=Writer(background=False),
    )


@pytest.fixture
def settings_restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Undo what their trainer does to the process."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", os.environ.get("CUBLAS_WORKSPACE_CONFIG", ":4096:8"))
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["yolov8n", "yolo26n"])
def test_every_step_equals_ultralytics_own(family, tmp_path, settings_restored):
    draw_pictures(tmp_path)
    weights = save_weights(family, tmp_path / "weights.pt")
    theirs = Recorder(tmp_path, weights)
    theirs.train()
    moments = theirs.moments
    steps = [ni for ni, moment in enumerate(moments) if moment.model]
    assert len(steps) == 12
    assert {moment.accumulate for moment in moments} == {1, 2, 3}
    nw = sum(moment.rates["momentum"] < HYP.momentum for moment in moments)
    assert steps[0] < nw < steps[-2]  # steps before and after the end of warm-up
    assert any(moments[a + 1].epoch < moments[b].epoch for a, b in pairwise(steps))  # a window across an epoch's end

    training = start_as(theirs, weights)
    run = Run(HYP, Ranks(0, 1, torch.device("cpu")), tmp_path, 32, {}, False)
    run_epochs(training, Comparison(training, moments), None, run, None, None)

    assert training.progress.ni == len(moments) and training.progress.last_step == steps[-1]
    assert training.ema.updates == theirs.ema.updates == len(steps)
    state = training.loss_fn.state_dict()
    assert state == {name: getattr(theirs.model.criterion, name) for name in state}
    if family == "yolo26n":
        assert state["updates"] == HYP.epochs and state["o2m"] < 0.8  # the balance of the two branches has moved
    for kind in ("conv.weight", "bn.weight", "bias", "running_mean", "running_var"):
        names = [name for name in theirs.initial if name.endswith(kind)]
        for end in (moments[steps[-1]].model, moments[steps[-1]].average):
            assert max((end[name] - theirs.initial[name]).abs().max() for name in names) > 1000 * TOLERANCE, kind
