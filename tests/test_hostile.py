"""Hostile and broken weights: nothing in them runs, and the message names the offender."""

import builtins
import io
import os
import pickle
import zipfile
from collections.abc import Callable
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn
from ultralytics import RTDETR, YOLO
from ultralytics.nn.tasks import DetectionModel

from models.detector import build_detector, load_for_eval
from models.find import zoo_yamls
from utils.errors import UserError

NAMES = ["a", "b"]


class Call:
    """Pickles as a call of `function(*args)`."""

    def __init__(self, function: Callable, *args: Any) -> None:
        self.call = (function, args)

    def __reduce__(self) -> tuple:
        return self.call


@pytest.fixture
def canary(tmp_path: Path):
    """A file that hostile content tries to create; it must not exist afterwards."""
    path = tmp_path / "ran"
    yield path
    assert not path.exists(), "hostile content ran"


def refusal(weights: Path | str) -> str:
    """The message of the UserError that both doors give."""
    with pytest.raises(UserError) as built:
        build_detector(str(weights), NAMES)
    with pytest.raises(UserError):
        load_for_eval(str(weights))
    return str(built.value)


@cache
def network() -> DetectionModel:
    """A detector whose copies become checkpoints."""
    return DetectionModel("yolov8n.yaml", nc=2, verbose=False)


def checkpoint_with(path: Path, **extra: Any) -> Path:
    torch.save({"model": network(), **extra}, path)
    return path


@pytest.mark.parametrize(
    ("function", "named"),
    [(os.system, "system"), (builtins.eval, "eval"), (builtins.exec, "exec"), (builtins.print, "print")],
)
def test_reduce_is_refused_by_name(tmp_path, canary, function, named):
    argument = f"touch {canary}" if function is os.system else f"open({str(canary)!r}, 'w')"
    message = refusal(checkpoint_with(tmp_path / "evil.pt", extra=Call(function, argument)))
    assert named in message and "nothing" in message


def test_getattr_chain_is_refused_by_name(tmp_path, canary):
    chain = Call(getattr, Call(getattr, nn.Module, "__init__"), "__globals__")
    message = refusal(checkpoint_with(tmp_path / "evil.pt", extra=chain))
    assert "getattr" in message and "__init__" in message


def test_calling_what_getattr_gave_is_refused(tmp_path, canary):
    """GLOBAL Conv2d; getattr(Conv2d, 'forward')(canary): the shell that comes back cannot be called."""
    forward = b"cbuiltins\ngetattr\nctorch.nn.modules.conv\nConv2d\nX\x07\x00\x00\x00forward\x86R"
    evil = b"\x80\x02" + forward + b"X\x01\x00\x00\x00x\x85R."
    message = refusal(with_pickle(checkpoint_with(tmp_path / "good.pt"), tmp_path / "evil.pt", evil))
    assert "reduce" in message


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_every_pickle_protocol_is_refused_by_name(tmp_path, canary, protocol):
    evil = pickle.dumps({"model": Call(os.system, f"touch {canary}")}, protocol=protocol)
    assert "system" in refusal(with_pickle(checkpoint_with(tmp_path / "good.pt"), tmp_path / "evil.pt", evil))
    (tmp_path / "bare.pt").write_bytes(evil)
    assert "system" in refusal(tmp_path / "bare.pt")


def with_pickle(good: Path, target: Path, data: bytes) -> Path:
    """A copy of a checkpoint whose pickle is `data`."""
    with zipfile.ZipFile(good) as source, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as out:
        for name in source.namelist():
            out.writestr(name, data if name.endswith("data.pkl") else source.read(name))
    return target


def test_real_classes_registered_by_others_change_nothing(tmp_path, canary):
    """A library that allow-lists `eval` for the process must not widen what is read here."""
    torch.serialization.add_safe_globals([(builtins.eval, "builtins.eval")])
    try:
        message = refusal(checkpoint_with(tmp_path / "evil.pt", extra=Call(eval, f"open({str(canary)!r}, 'w')")))
        assert "eval" in message
        assert (builtins.eval, "builtins.eval") in torch.serialization.get_safe_globals()
    finally:
        torch.serialization.clear_safe_globals()


HOSTILE_ACTIVATIONS = [
    "open({canary!r}, 'w')",
    "nn.SiLU() if open({canary!r}, 'w') else None",
    "__import__('os').system('touch ' + {canary!r})",
    "nn.Module.__init__.__globals__['__builtins__']['open']({canary!r}, 'w')",
    "nn.Threshold(open({canary!r}, 'w'), 1)",
    "nn.modules.module.torch.save(1, {canary!r})",
    "torch.save(1, {canary!r})",
    "nn.functional.relu",
]


@pytest.mark.parametrize("spec", HOSTILE_ACTIVATIONS)
def test_hostile_activation_in_a_yaml(tmp_path, canary, spec):
    spec = spec.format(canary=str(canary))
    model_yaml = yaml.safe_load(zoo_yamls()["yolov8.yaml"].read_text(encoding="utf-8")) | {"activation": spec}
    (tmp_path / "evil.yaml").write_text(yaml.safe_dump(model_yaml), encoding="utf-8")
    assert repr(spec) in refusal_of_yaml(tmp_path / "evil.yaml")


@pytest.mark.parametrize("spec", HOSTILE_ACTIVATIONS)
def test_hostile_activation_inside_a_checkpoint(tmp_path, canary, spec):
    spec = spec.format(canary=str(canary))
    model = deepcopy(network())
    model.yaml["activation"] = spec
    torch.save({"model": model}, tmp_path / "evil.pt")
    assert repr(spec) in refusal(tmp_path / "evil.pt")


def test_harmless_activations_work(tmp_path):
    model_yaml = yaml.safe_load(zoo_yamls()["yolov8.yaml"].read_text(encoding="utf-8"))
    (tmp_path / "y.yaml").write_text(yaml.safe_dump(model_yaml | {"activation": "torch.nn.LeakyReLU(0.1)"}))
    model, _ = build_detector(str(tmp_path / "y.yaml"), NAMES)
    assert isinstance(model.model[0].act, nn.LeakyReLU) and model.model[0].act.negative_slope == 0.1


@pytest.mark.parametrize("layer", ["YAML", "attempt_download_asset", "nn.init.normal_", "TorchVision", "os", "nn.Nope"])
def test_what_is_no_layer_is_refused_in_a_yaml(tmp_path, layer):
    model_yaml = yaml.safe_load(zoo_yamls()["yolov8.yaml"].read_text(encoding="utf-8"))
    model_yaml["backbone"][3][2] = layer
    (tmp_path / "evil.yaml").write_text(yaml.safe_dump(model_yaml), encoding="utf-8")
    assert f"'{layer}'" in refusal_of_yaml(tmp_path / "evil.yaml")


def test_yaml_tags_run_nothing(tmp_path, canary):
    (tmp_path / "evil.yaml").write_text(f"nc: !!python/object/apply:os.system ['touch {canary}']\n", encoding="utf-8")
    assert "not a readable yaml" in refusal_of_yaml(tmp_path / "evil.yaml")


def refusal_of_yaml(path: Path) -> str:
    with pytest.raises(UserError) as error:
        build_detector(str(path), NAMES)
    return str(error.value)


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
    assert OTHER_TASKS[name] in refusal_of_yaml(Path(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHER_TASKS)
def test_weights_of_other_tasks_are_refused_by_task(name, tmp_path):
    (RTDETR if name.startswith("rtdetr") else YOLO)(name).save(tmp_path / "w.pt")
    assert OTHER_TASKS[name] in refusal(tmp_path / "w.pt")


def test_original_yolov5_checkpoint_names_the_way_out(testdata):
    message = refusal(testdata / "weights" / "yolov5n.pt")
    assert "not supported yet" in message and "yolov5nu.pt" in message


def test_bare_tensors_are_refused(testdata):
    assert "no model" in refusal(testdata / "weights" / "yolov8n-int8restored.state.pt")


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
    for i, content in enumerate([[1, 2], {"model": None}, {"model": 3}, {"model": nn.Linear(2, 2)}]):
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


def test_download_is_for_official_names_only(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="not an official"):
        build_detector("yolo11n-mine.pt", NAMES, download=True)
    with pytest.raises(UserError, match="not an official"):
        build_detector("https://example.com/yolo11n.pt", NAMES, download=True)


def test_unknown_yaml_gets_a_suggestion():
    assert "yolov8-p2.yaml" in refusal_of_yaml(Path("yolov8n-p3.yaml"))
