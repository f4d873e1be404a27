"""Unicode and spaces in every path, data that are never written to, a clock that runs backwards."""

import logging
import os
import shlex
import shutil
import sys
import time
from pathlib import Path

import pytest
import torch

import detect
import export
import train
import val
from tests.helpers.runs import replaced, run_train, state_of

ODD = "a b ü 数据 'x'"
WRITES = (
    "os.mkdir",
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.truncate",
    "os.link",
    "os.symlink",
    "os.chmod",
    "os.utime",
)
watched: list[str] = []  # folders in which nothing may be written
written: list[str] = []


def _watch(event: str, args: tuple) -> None:
    if not watched:
        return
    writes = event in WRITES or (event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR))
    if writes and any(isinstance(arg, str) and arg.startswith(folder) for arg in args for folder in watched):
        written.append(f"{event} {args}")


@pytest.fixture
def untouched():
    """A function that names a folder in which this test must not write; an audit hook sees every attempt."""
    if _watch not in untouched_hooks:
        sys.addaudithook(_watch)
        untouched_hooks.append(_watch)
    yield watched.append
    watched.clear()
    assert not written, written.pop()


untouched_hooks: list = []


@pytest.mark.slow
def test_every_path_may_have_spaces_and_any_letters_and_data_are_only_read(
    toy, toy_args, tmp_path, monkeypatch, capsys, untouched
):
    """Data, cache, runs, weights and a hyp file; the commands that are printed can be pasted."""
    home = tmp_path / ODD
    data, runs = home / "data set", home / "my runs"
    shutil.copytree(toy.parent, data)
    untouched(str(data))
    monkeypatch.setenv("PREHEAT_CACHE", str(home / "ca che"))
    (home / "my hyp é.yaml").write_text("lr0: 0.02\n")
    words = [*replaced(toy_args, "--data", data / "toy.yaml"), "--epochs", 2, "--hyp", home / "my hyp é.yaml"]
    run_train(*[word for word in words if word != "--noplots"], "--stop-after", 1, project=runs, name="first été")
    out = capsys.readouterr().out
    command = shlex.split(out[out.index("python train.py --resume") :].splitlines()[0])
    assert Path(command[-1]) == runs / "first été/weights/last.pt"
    train.main(command[2:])
    assert state_of(runs / "first été")["progress"]["finished"]
    best = runs / "first été/weights/best.pt"
    common = ["--device", "cpu", "--project", str(home / "out")]
    val.main(["--weights", str(best), "--data", str(data / "toy.yaml"), "--name", "val ü", "--save-txt", *common])
    assert list((home / "out/val ü").glob("*.json"))
    detect.main(["--weights", str(best), "--source", str(data / "images/val"), "--name", "det ü", *common])
    assert len(list((home / "out/det ü").glob("*.jpg"))) == 8
    export.main(["--weights", str(best), "--format", "torchscript", "--conf", "0.001", "--name", "exp ü", *common])
    assert list((home / "out/exp ü").glob("*.torchscript"))


def test_a_clock_that_runs_backwards_changes_no_bit_and_no_save(toy_args, tmp_path, monkeypatch, caplog):
    """An hour at each look: states come as often, times are not negative, the run ends with the same weights."""
    words = [*toy_args, "--epochs", 2, "save_every=0.000001", "--time", 1]
    whole = run_train(*words, project=tmp_path, name="whole")
    real, looks = time.time, []

    def backwards() -> float:
        looks.append(1)
        return real() - 3600 * len(looks)

    monkeypatch.setattr(time, "time", backwards)
    caplog.set_level(logging.INFO)
    other = run_train(*words, "--stop-after", 1, project=tmp_path, name="other")
    train.main(["--resume", str(other)])
    assert len(looks) > 10
    a, b = state_of(whole), state_of(other)
    assert all(torch.equal(tensor, b["model"][name]) for name, tensor in a["model"].items())
    assert 0 < b["progress"]["hours"] < 0.1 and (other / "weights/last-older.pt").exists()
    assert "-1" not in "".join(r.getMessage() for r in caplog.records if "img/s" in r.getMessage())
