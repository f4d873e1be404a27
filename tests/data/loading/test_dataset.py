"""Samples are pure functions; they have the distribution of ultralytics' pipeline; evaluation shapes are theirs."""

import random
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from data.definition.dataset_yaml import load_dataset_yaml
from data.index.index import Index, build_index
from data.loading.dataset import EvalDataset, TrainDataset
from data.loading.order import BLOCK, block_of, epoch_order
from utils.boxes import xywhn_to_xyxy
from utils.config.schema import Hyp


@pytest.fixture(scope="module")
def bccd(testdata) -> Index:
    return build_index(load_dataset_yaml(testdata / "bccd/bccd.yaml"), "val")


def hyp(**changes: object) -> Hyp:
    return Hyp(**{"imgsz": 96, "epochs": 20, "mixup": 0.3, "flipud": 0.3} | changes)


def same(a: dict, b: dict) -> bool:
    return all(torch.equal(a[key], b[key]) for key in ("img", "cls", "bboxes"))


def test_sample_depends_on_seed_epoch_and_position_only(bccd):
    forwards, backwards = TrainDataset(bccd, hyp(), 96), TrainDataset(bccd, hyp(), 96)
    keys = [(epoch, position) for epoch in (0, 3, 15) for position in (0, 5, 63, 64, 71)]
    first = {key: forwards[key] for key in keys}
    again = {key: backwards[key] for key in reversed(keys)}
    assert all(same(first[key], again[key]) for key in keys)
    assert not same(first[0, 5], first[3, 5]) and not same(first[0, 5], first[0, 63])
    assert not same(TrainDataset(bccd, hyp(seed=1), 96)[0, 5], first[0, 5])


def test_sample_has_the_promised_shape(bccd):
    sample = TrainDataset(bccd, hyp(), 96)[0, 0]
    assert sample["img"].shape == (3, 96, 96) and sample["img"].dtype == torch.uint8
    assert sample["cls"].dtype == sample["bboxes"].dtype == torch.float32
    assert sample["bboxes"].shape == (len(sample["cls"]), 4) and len(sample["cls"]) > 0
    corners = xywhn_to_xyxy(sample["bboxes"], 1, 1)
    assert corners.min() >= -1e-6 and corners.max() <= 1 + 1e-6


def test_an_epoch_shows_every_picture_once():
    assert sorted(epoch_order(0, 3, 100)) == list(range(100))
    assert (epoch_order(0, 3, 100) != epoch_order(0, 4, 100)).any()


@pytest.mark.parametrize("n", [1, 5, 63, 64, 65, 127, 128, 200])
def test_blocks_cover_the_epoch_and_none_is_small(n):
    blocks = [block_of(p, n) for p in range(n)]
    assert all(a <= p < b for p, (a, b) in enumerate(blocks))
    assert min(b - a for a, b in blocks) >= min(n, BLOCK) and max(b - a for a, b in blocks) < 2 * BLOCK


def test_mosaic_closes_for_the_last_epochs(bccd):
    dataset = TrainDataset(bccd, hyp(epochs=20, close_mosaic=5), 96)
    assert [dataset.mixes(e) for e in (0, 14, 15, 19)] == [True, True, False, False]
    assert not TrainDataset(bccd, hyp(epochs=5, close_mosaic=10), 96).mixes(0)
    never, closed = hyp(mosaic=0, mixup=0, close_mosaic=0), hyp(epochs=1, close_mosaic=1)
    counts = [sum(len(TrainDataset(bccd, h, 96)[0, p]["cls"]) for p in range(30)) for h in (never, closed)]
    assert abs(counts[0] - counts[1]) < 0.2 * counts[0]  # mosaic would nearly double them


def test_crowds_are_left_out_of_training_and_kept_in_evaluation(bccd):
    crowd = np.zeros(len(bccd.classes), bool)
    crowd[bccd.rows(0)] = True
    index = replace(bccd, crowd=crowd)
    position = int(np.flatnonzero(epoch_order(0, 0, index.n) == 0)[0])
    assert len(TrainDataset(index, hyp(mosaic=0, mixup=0), 96)[0, position]["cls"]) == 0
    place = int(np.flatnonzero(EvalDataset(index, 96, 32, 8).order == 0)[0])
    assert len(EvalDataset(index, 96, 32, 8)[place]["cls"]) == len(range(*bccd.rows(0).indices(10**6)))


def test_picture_without_boxes(bccd):
    index = replace(bccd, offsets=np.zeros(bccd.n + 1, np.int64))
    sample = TrainDataset(index, hyp(), 96)[0, 0]
    assert sample["bboxes"].shape == (0, 4) and sample["cls"].shape == (0,)


def test_pixel_transforms_are_part_of_the_sample(bccd):
    noisy = hyp(albumentations=[{"name": "GaussNoise", "p": 1.0}])
    a, b = TrainDataset(bccd, noisy, 96)[0, 1], TrainDataset(bccd, noisy, 96)[0, 1]
    assert same(a, b) and not torch.equal(a["img"], TrainDataset(bccd, hyp(), 96)[0, 1]["img"])


def test_evaluation_pictures_are_those_of_ultralytics(testdata, tmp_path):
    """Same order of shapes, same pixels, and letterbox.undo brings the boxes back to the original picture."""
    theirs = ultralytics_dataset(testdata / "coco128", tmp_path, 160, "train2017", augment=False)
    index = build_index(load_dataset_yaml(testdata / "coco128/coco128.yaml"), "val")
    ours = EvalDataset(index, 160, 32, 16)
    assert len(ours) == len(theirs)
    compared = 0
    places = {Path(file).name: k for k, file in enumerate(theirs.im_files)}
    for place in range(0, 128, 7):
        sample = ours[place]
        other = theirs[places[Path(index.paths[sample["index"]]).name]]
        if sample["img"].shape == other["img"].shape:  # pictures of one aspect may be sorted into another batch
            assert torch.equal(sample["img"], other["img"])
            compared += 1
        h, w = sample["ori_shape"]
        pixels = xywhn_to_xyxy(sample["bboxes"].double().numpy(), *sample["img"].shape[:0:-1])
        back = sample["letterbox"].undo(pixels, clip_to=(h, w))
        truth = xywhn_to_xyxy(index.boxes[index.rows(sample["index"])].astype(float), w, h)
        np.testing.assert_allclose(back, truth, atol=2e-3)
    assert compared > 10 and ours.shapes.tolist() == theirs.batch_shapes.tolist()


def test_square_evaluation(bccd):
    sample = EvalDataset(bccd, 96, 32, 8, rect=False)[3]
    assert sample["img"].shape == (3, 96, 96) and sample["index"] == 3


def ultralytics_dataset(root: Path, copy: Path, imgsz: int, split: str, augment: bool, **changes: object):
    """Their dataset on a copy, because they write beside the labels."""
    from ultralytics.cfg import get_cfg
    from ultralytics.data.dataset import YOLODataset

    if not (copy / "labels").exists():
        shutil.copytree(root / "labels", copy / "labels")
        (copy / "images").mkdir()
        (copy / "images" / split).symlink_to(root / "images" / split)
    names = dict(enumerate(load_dataset_yaml(next(root.glob("*.yaml"))).names))
    cfg = get_cfg(overrides={"imgsz": imgsz, **changes})
    cfg.augmentations = []
    return YOLODataset(
        img_path=str(copy / "images" / split),
        imgsz=imgsz,
        augment=augment,
        hyp=cfg,
        rect=not augment,
        pad=0.5,
        stride=32,
        data={"names": names, "nc": len(names), "channels": 3},
        batch_size=16,
        cache="ram" if augment else None,
    )


def statistics(samples: Iterable[dict]) -> tuple[np.ndarray, np.ndarray]:
    """Boxes a picture, share of it inside boxes, mean and std of each colour: their means (8,) and standard errors."""
    rows = []
    for s in samples:
        mean, std = cv2.meanStdDev(s["img"].permute(1, 2, 0).numpy())  # of uint8, many times as fast as torch
        rows.append([len(s["bboxes"]), s["bboxes"].prod(1).sum(), *mean[:, 0], *std[:, 0]])
    table = np.array(rows, float)  # (samples, 8)
    return table.mean(0), table.std(0) / len(table) ** 0.5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mosaic", "more"), [(1.0, {}), (0.0, {}), (1.0, {"degrees": 15.0, "shear": 5.0, "perspective": 0.0005})]
)
def test_distribution_is_that_of_ultralytics(testdata, tmp_path, mosaic, more):
    """Boxes and pixels within 2 %, beyond what chance explains."""
    epochs, imgsz = 4, 96
    changes = {"mosaic": mosaic, "hsv_v": 0.1, **more}  # a weaker value gain: less noise in the mean of the pixels
    theirs = ultralytics_dataset(testdata / "bccd", tmp_path, imgsz, "train", True, **changes)
    index = build_index(load_dataset_yaml(testdata / "bccd/bccd.yaml"), "train")
    ours = TrainDataset(index, Hyp(epochs=99, close_mosaic=0, cache="ram", **changes), imgsz)
    random.seed(0)
    np.random.seed(0)
    a, error_a = statistics(ours[e, p] for e in range(epochs) for p in range(len(ours)))
    b, error_b = statistics(theirs[i] for _ in range(epochs) for i in range(len(theirs)))
    print("ratios:", (a / b).round(4), "noise:", (np.hypot(error_a, error_b) / b).round(4))
    assert (np.abs(a - b) < 0.02 * b + 2 * np.hypot(error_a, error_b)).all(), (a, b)
