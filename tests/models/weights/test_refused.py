"""Weights that cannot be trained - another task, broken, missing - get one message that says what to do."""

import io
import pickle
import zipfile
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from torch import nn
from ultralytics import RTDETR, YOLO

from models.detector import build_detector
from models.weights.find import find_weights
from tests.helpers.zoo import NEW, checkpoint_with, network, refusal
from utils.errors import UserError

OTHER_TASKS = {
    "yolov8n-seg.yaml": "-seg",
    "yolov8n-pose.yaml": "-pose",
    "yolov8n-obb.yaml": "-obb",
    "yolov8n-cls.yaml": "-cls",
    "yolo26n-seg.yaml": "-seg",
    "yolo26n-sem.yaml": "-sem",
    "yolo26n-depth.yaml": "-depth",
    "yolov8s-world.yaml": "World",
    "yoloe-v8s.yaml": "YOLOE",
    "rtdetr-l.yaml": "RT-DETR",
}


@pytest.mark.parametrize("name", OTHER_TASKS)
def test_yamls_of_other_tasks_are_refused_by_task(name):
    assert OTHER_TASKS[name] in refusal(Path(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHER_TASKS)
def test_weights_of_other_tasks_are_refused_by_task(name, tmp_path):
    (RTDETR if name.startswith("rtdetr") else YOLO)(name).save(tmp_path / "w.pt")
    assert OTHER_TASKS[name] in refusal(tmp_path / "w.pt")


def test_bare_tensors_are_refused(tmp_path):
    torch.save(network().state_dict(), tmp_path / "bare.pt")
    assert "no model" in refusal(tmp_path / "bare.pt")
    torch.save({"state_dict": network().state_dict()}, tmp_path / "bare.pt")
    assert "no model yaml" in refusal(tmp_path / "bare.pt")


def test_broken_files_say_what_to_do(tmp_path):
    whole = checkpoint_with(tmp_path / "whole.pt").read_bytes()
    cases = {
        "empty": (b"", "empty"),
        "text": (b"these are no weights\n" * 50, "not a PyTorch checkpoint"),
        "cut": (whole[: len(whole) // 2], "truncated"),
        "holed": (whole[:2000] + bytes(3000) + whole[5000:], "damaged"),
        "pickle": (pickle.dumps({"a": 1}), "not a PyTorch checkpoint"),
        "zip": (plain_zip(), "not one of torch.save"),
    }
    for name, (data, expected) in cases.items():
        (tmp_path / f"{name}.pt").write_bytes(data)
        message = refusal(tmp_path / f"{name}.pt")
        assert expected in message and f"{name}.pt" in message


def plain_zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("hello.txt", "hello")
    return buffer.getvalue()


def test_torchscript_names_the_way_out(tmp_path):
    torch.jit.trace(nn.Conv2d(3, 4, 1), torch.zeros(1, 3, 8, 8)).save(str(tmp_path / "s.pt"))
    assert "TorchScript" in refusal(tmp_path / "s.pt")


def test_other_content_is_refused(tmp_path):
    forged = {"format": "preheat-1", "yaml": {"nc": 2}, "names": NEW, "ema": {"model": {"a": 1}}}
    for i, content in enumerate([[1, 2], {"model": None}, {"model": 3}, {"model": nn.Linear(2, 2)}, forged]):
        torch.save(content, tmp_path / f"{i}.pt")
        refusal(tmp_path / f"{i}.pt")


def test_a_pruned_or_fused_model_is_refused(tmp_path):
    torch.save({"model": deepcopy(network()).fuse(verbose=False)}, tmp_path / "fused.pt")
    assert "fused" in refusal(tmp_path / "fused.pt")


def test_missing_weights_say_where_they_were_looked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    message = refusal("yolo11n.pt")
    assert str(tmp_path / "yolo11n.pt") in message and "models" in message and "--download" in message
    assert "yolo11n.pt" in refusal("yolo11m_.pt") or "Official names" in refusal("yolo11m_.pt")
    (tmp_path / "folder.pt").mkdir()
    assert "folder" in refusal("folder.pt")
    assert "suffix" in refusal("yolo11n")


def test_the_folder_of_a_run_stands_for_its_weights(tmp_path):
    (tmp_path / "exp/weights").mkdir(parents=True)
    best = checkpoint_with(tmp_path / "exp/weights/best.pt")
    torch.save({}, tmp_path / "exp/weights/last.pt")
    for name in ("exp", "exp/weights"):
        assert find_weights(str(tmp_path / name)) == best
    (tmp_path / "v8.1").mkdir()
    only = checkpoint_with(tmp_path / "v8.1/mine.pt")
    assert find_weights(str(tmp_path / "v8.1")) == only
    assert "mine.pt" in refusal(tmp_path / "v8.1/mien.pt"), "what lies beside a name that is not there"
    assert "folder" in refusal(tmp_path), "nothing to take"


def test_download_is_for_official_names_only(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="not an official"):
        build_detector("yolo11n-mine.pt", NEW, download=True)
    with pytest.raises(UserError, match="not an official"):
        build_detector("https://example.com/yolo11n.pt", NEW, download=True)


def test_unknown_yaml_gets_a_suggestion():
    assert "yolov8-p2.yaml" in refusal(Path("yolov8n-p3.yaml"))
