"""Colours that are changed on the device are those of the workers, to one level of each channel."""

import cv2
import numpy as np
import pytest
import torch

from data.definition.dataset_yaml import load_dataset_yaml
from data.index.index import Index, build_index
from data.loading.augment import change_colour
from data.loading.device import colour
from data.loading.device.colour import recolour
from data.loading.loader import build_train_loader, first_batch
from tests.helpers.runs import run_train
from utils.config.schema import Hyp
from utils.device.images import ToDevice, preprocess
from utils.run.log import read_metrics

HYP = Hyp(imgsz=64, epochs=4, mixup=0.5, flipud=0.5, close_mosaic=1)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def index(toy) -> Index:
    return build_index(load_dataset_yaml(toy), "train")


def all_triples(part: int, parts: int) -> np.ndarray:
    """A part of all values of three bytes, as a picture (h, 256, 3)."""
    low, high = (part * 256 // parts, (part + 1) * 256 // parts)
    a, b, c = np.meshgrid(np.arange(low, high), np.arange(256), np.arange(256), indexing="ij")
    return np.stack((a, b, c), -1).reshape(-1, 256, 3).astype(np.uint8)


def rgb(img: np.ndarray) -> torch.Tensor:
    """A BGR picture as a batch of one."""
    return torch.from_numpy(np.ascontiguousarray(img[..., ::-1].transpose(2, 0, 1)))[None]


@pytest.mark.slow
def test_every_colour_has_the_hue_of_opencv_and_every_hue_its_colour_to_one_level():
    """All 16.7 million of them, there and back; between the two, tables of levels are all there is."""
    for part in range(32):
        img = all_triples(part, 32)
        there = torch.stack(colour._to_hsv(rgb(img)), -1)[0].numpy()
        np.testing.assert_array_equal(there, cv2.cvtColor(img, cv2.COLOR_BGR2HSV))
        img = img[(img[:, 0, 0] < 180)]  # OpenCV's hues
        if len(img):
            back = colour._to_rgb(*torch.from_numpy(img)[None].unbind(-1))
            assert (back - rgb(cv2.cvtColor(img, cv2.COLOR_HSV2BGR)).int()).abs().max() <= 1


@pytest.mark.parametrize("mode", ["exact", "matrix"])
@pytest.mark.parametrize("gains", [(0.01, 0.6, -0.3), (-0.5, 1.0, 1.0), (0.4, -1.0, 0.2), (0.001, -0.4, -1.0)])
def test_colours_are_changed_as_a_worker_does_it(gains, mode):
    rng = np.random.default_rng(0)
    img = rng.integers(0, 256, (2, 96, 128, 3), dtype=np.uint8)
    img[1, :, :64] = img[1, :, :64, :1]  # greys have no hue
    gains = np.array([gains, rng.uniform(-1, 1, 3)])
    ours = recolour(torch.cat([rgb(one) for one in img]), gains, mode)
    assert ours.dtype == torch.uint8
    for one, got, gain in zip(img, ours, gains, strict=True):
        work = np.empty_like(one), np.empty((3, *one.shape[:2]), np.uint8)
        wanted = rgb(change_colour(one.copy(), work, gain, mode))[0]
        assert (got.int() - wanted.int()).abs().max() <= 1


@pytest.mark.parametrize(("kind", "workers"), [("ring", 0), ("ring", 2), ("torch", 0)])
@pytest.mark.parametrize("mode", ["exact", "matrix"])
def test_batches_carry_what_their_colours_are_to_become(index, kind, workers, mode):
    """Wherever a sample stands: in batches of 8 here, of 5 there."""
    hyp = HYP.model_copy(update={"hsv_mode": mode})
    later = hyp.model_copy(update={"hsv_on": "device", "loader": kind})
    at_once = build_train_loader(index, hyp, batch=5, workers=0)
    loader = build_train_loader(index, later, batch=8, workers=workers)
    to_device = ToDevice(CPU, False, recolour=lambda images, gains: recolour(images, gains, mode))
    for epoch in (1, 3):
        ours, theirs, boxes, raw = [], [], [[], []], []
        for batch in loader.epoch(epoch):
            raw.append(preprocess(batch["img"], CPU))
            ours.append(to_device(batch))
            boxes[0].append(batch["bboxes"].clone())
        for batch in at_once.epoch(epoch):
            assert "gains" not in batch
            theirs.append(to_device(batch))
            boxes[1].append(batch["bboxes"].clone())
        wanted = torch.cat(theirs)
        assert (torch.cat(ours) - wanted).abs().max() < 1.01 / 255 < (torch.cat(raw) - wanted).abs().max()
        assert torch.equal(torch.cat(boxes[0]), torch.cat(boxes[1]))
    shown = first_batch(loader.dataset, 4)["img"].int() - first_batch(at_once.dataset, 4)["img"].int()
    assert shown.abs().max() <= 1
    loader.close()


def test_without_a_change_of_colours_there_is_none_on_the_device(index):
    none = HYP.model_copy(update={"hsv_on": "device", "hsv_h": 0.0, "hsv_s": 0.0, "hsv_v": 0.0})
    batch = next(iter(build_train_loader(index, none, batch=8, workers=0).epoch(0)))
    assert "gains" not in batch


def test_a_run_learns_from_the_same_pictures(toy_args, tmp_path):
    words = [*toy_args, "--epochs", 1, "--noval"]
    rows = [
        read_metrics(run_train(*words, f"hsv_on={where}", project=tmp_path, name=where) / "metrics.csv")[-1]
        for where in ("host", "device")
    ]
    losses = [[float(row[f"train/{name}"]) for name in ("box", "cls", "dfl")] for row in rows]
    assert losses[0] == pytest.approx(losses[1], rel=1e-2)
