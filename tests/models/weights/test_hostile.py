"""Hostile weights and yamls: nothing in them runs, and the message names the offender."""

import builtins
import os
import pickle
import zipfile
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from models.detector import build_detector
from models.weights.find import zoo_yamls
from tests.helpers.loops import shown
from tests.helpers.zoo import NEW, checkpoint_with, network, refusal


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
    assert repr(spec) in refusal(tmp_path / "evil.yaml")


@pytest.mark.parametrize("spec", shown(HOSTILE_ACTIVATIONS[::3], HOSTILE_ACTIVATIONS))
def test_hostile_activation_inside_a_checkpoint(tmp_path, canary, spec):
    spec = spec.format(canary=str(canary))
    model = deepcopy(network())
    model.yaml["activation"] = spec
    torch.save({"model": model}, tmp_path / "evil.pt")
    assert repr(spec) in refusal(tmp_path / "evil.pt")


def test_harmless_activations_work(tmp_path):
    model_yaml = yaml.safe_load(zoo_yamls()["yolov8.yaml"].read_text(encoding="utf-8"))
    (tmp_path / "y.yaml").write_text(yaml.safe_dump(model_yaml | {"activation": "torch.nn.LeakyReLU(0.1)"}))
    model, _ = build_detector(str(tmp_path / "y.yaml"), NEW)
    assert isinstance(model.model[0].act, nn.LeakyReLU) and model.model[0].act.negative_slope == 0.1


@pytest.mark.parametrize("layer", ["YAML", "attempt_download_asset", "nn.init.normal_", "TorchVision", "os", "nn.Nope"])
def test_what_is_no_layer_is_refused_in_a_yaml(tmp_path, layer):
    model_yaml = yaml.safe_load(zoo_yamls()["yolov8.yaml"].read_text(encoding="utf-8"))
    model_yaml["backbone"][3][2] = layer
    (tmp_path / "evil.yaml").write_text(yaml.safe_dump(model_yaml), encoding="utf-8")
    assert f"'{layer}'" in refusal(tmp_path / "evil.yaml")


def test_yaml_tags_run_nothing(tmp_path, canary):
    (tmp_path / "evil.yaml").write_text(f"nc: !!python/object/apply:os.system ['touch {canary}']\n", encoding="utf-8")
    assert "not a readable yaml" in refusal(tmp_path / "evil.yaml")
