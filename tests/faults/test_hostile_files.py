"""Hostile, broken and foreign files at every door: nothing in them runs, memory is bounded, there is one message."""

import builtins
import copy
import os
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import detect
import export
import train
import val
from models.detector import load_for_eval
from tests.helpers.loops import shown
from tests.helpers.ranks import on_ranks
from tests.helpers.runs import TINY, guesser, run_train
from utils.errors import UserError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks, with a limit of their memory")
ROOM = 2**28  # bytes that reading a file may take beside what the tests take already; bombs claim more
MB = 2**20


class Call:
    """Pickles as a call of `function(*args)`."""

    def __init__(self, function: Callable, *args: Any) -> None:
        self.call = (function, args)

    def __reduce__(self) -> tuple:
        return self.call


def with_pickle(good: Path, path: Path, content: Any, protocol: int = 2) -> None:
    """A copy of a checkpoint that holds something else."""
    with zipfile.ZipFile(good) as source, zipfile.ZipFile(path, "w") as out:
        for name in source.namelist():
            pickled = name.endswith("/data.pkl")
            out.writestr(name, pickle.dumps(content, protocol=protocol) if pickled else source.read(name))


def hostile(folder: Path, good: Path, canary: Path) -> None:
    """Write the files that would run something; `canary` is what they would leave."""
    code, shell = f"open({str(canary)!r}, 'w')", f"touch {canary}"
    calls = {
        "os.system": Call(os.system, shell),
        "eval": Call(builtins.eval, code),
        "exec": Call(builtins.exec, code),
        "popen": Call(subprocess.Popen, ["touch", str(canary)]),
        "open": Call(builtins.open, str(canary), "w"),
        "getattr": Call(getattr, Call(getattr, torch.nn.Module, "__init__"), "__globals__"),
        "nested": Call(Call, Call(Call, Call(os.system, shell))),
        "numpy file": Call(np.fromfile, "/dev/zero", "uint8", 10**9),
        "numpy memmap": Call(np.memmap, str(canary), "uint8", "w+", 0, 10),
        "torch.load": Call(torch.load, str(good)),
    }
    for kind, call in calls.items():
        with_pickle(good, folder / f"{kind}.pt", {"model": call, "format": "preheat-1"})
    with_pickle(good, folder / "protocol 4.pt", {"model": Call(os.system, shell)}, 4)
    (folder / "bare pickle.pt").write_bytes(pickle.dumps(Call(os.system, shell)))


def oversized(folder: Path, good: Path) -> None:
    """Write files that would unfold into more memory than there is."""
    with_pickle(good, folder / "bytearray.pt", {"model": Call(bytearray, 2**33), "format": "preheat-1"})
    packed = {"compression": zipfile.ZIP_DEFLATED, "compresslevel": 1}
    with zipfile.ZipFile(good) as source, zipfile.ZipFile(folder / "bomb.pt", "w", **packed) as out:
        for name in source.namelist():
            out.writestr(name, source.read(name))
        with out.open(f"{source.namelist()[0].split('/')[0]}/data/more", "w") as member:
            for _ in range(512):
                member.write(bytes(MB))
    with zipfile.ZipFile(folder / "shared members.pt", "w") as out:
        out.writestr("x/data.pkl", pickle.dumps({}, protocol=2))
        out.writestr("x/data/0", bytes(4 * MB))
        for k in range(1, 1000):
            twin = copy.copy(out.infolist()[1])
            twin.filename = twin.orig_filename = f"x/data/{k}"
            out.filelist.append(twin)
    plain = {"yaml": load_for_eval(str(good)).yaml, "names": ["a"], "format": "preheat-1", "state_dict": {}}
    few = {"stride 0": torch.zeros(1, dtype=torch.half).expand(2**16, 2**14), "meta": torch.zeros(9, device="meta")}
    few["sparse"] = torch.sparse_coo_tensor(torch.zeros(1, 1, dtype=torch.long), torch.ones(1), (2**31,))
    for kind, tensor in few.items():
        torch.save(plain | {"state_dict": {"x": tensor}, "model": {"x": tensor}}, folder / f"{kind}.pt")
    often = torch.zeros(MB, dtype=torch.half)
    torch.save(plain | {"state_dict": {str(k): often[k:] for k in range(2000)}}, folder / "views.pt")
    laughs: list = ["ha"]
    for _ in range(40):
        laughs = [laughs, laughs]
    itself: list = []
    itself.append(itself)
    torch.save(plain | {"names": laughs}, folder / "laughs.pt")
    torch.save(plain | {"names": itself}, folder / "itself.pt")


def broken(folder: Path, good: Path) -> None:
    """Write files that are damaged, or something else."""
    whole = good.read_bytes()
    overwritten = bytearray(whole)
    overwritten[100:400] = bytes(range(256)) + bytes(44)
    contents = {"truncated": whole[:-200], "no end": whole[: len(whole) // 2], "overwritten": overwritten, "empty": b""}
    contents |= {"text": b"not a checkpoint\n", "picture": b"\xff\xd8\xff\xe0" + bytes(100)}
    for kind, content in contents.items():
        (folder / f"{kind}.pt").write_bytes(content)
    plain = {"yaml": load_for_eval(str(good)).yaml, "names": ["a"]}
    torch.save([1, 2, 3], folder / "list.pt")
    torch.save({"some": "thing"}, folder / "wrong keys.pt")
    torch.save(plain | {"state_dict": {"model.0.conv.weight": torch.zeros(7)}}, folder / "wrong shapes.pt")


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> tuple[dict[str, Path], Path]:
    """The files by their kind, and what would be there if anything in them ran."""
    folder, good = tmp_path_factory.mktemp("hostile"), guesser()
    hostile(folder, good, folder / "ran")
    oversized(folder, good)
    broken(folder, good)
    return {path.stem: path for path in sorted(folder.glob("*.pt"))}, folder / "ran"


DOORS = {
    "train.py --weights": lambda f, data: train.main(["--weights", f, "--data", data, "--device", "cpu"]),
    "train.py --resume": lambda f, data: train.main(["--resume", f]),
    "val.py": lambda f, data: val.main(["--weights", f, "--data", data, "--device", "cpu"]),
    "detect.py": lambda f, data: detect.main(["--weights", f, "--source", str(Path(data).parent), "--device", "cpu"]),
    "export.py": lambda f, data: export.main(["--weights", f]),
}


@pytest.mark.parametrize("door", shown(["train.py --resume"], list(DOORS)))
def test_what_is_no_checkpoint_is_refused_by_one_message(files, toy, tmp_path, monkeypatch, door):
    import resource

    monkeypatch.chdir(tmp_path)
    by_kind, canary = files

    def job(_: Any) -> dict[str, str]:
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + ROOM,) * 2)
        said = {}
        for kind, path in by_kind.items():
            try:
                DOORS[door](str(path), str(toy))
                said[kind] = "accepted"
            except UserError as e:
                said[kind] = f"refused: {e}"
            except BaseException as e:
                said[kind] = f"failed: {e!r}"
        return said

    said = on_ranks(1, job)[0]
    wrong = {kind: text[:300] for kind, text in said.items() if not text.startswith("refused: ")}
    wrong |= {kind: text for kind, text in said.items() if "alloc" in text or "emory" in text}
    assert not wrong and len(said) >= 30
    assert all(str(by_kind[kind]) in text for kind, text in said.items()), "each names its file"
    assert not canary.exists(), "hostile content ran"
    assert not list(tmp_path.iterdir()), "refused before anything was written"


SPOILT = {
    "model": lambda s: s["model"].update({"model.0.conv.weight": torch.zeros(3, 3)}),
    "ema": lambda s: s["ema"]["model"].update({"model.0.conv.weight": torch.zeros(3, 3)}),
    "ema.model": lambda s: s["ema"]["model"].pop("model.0.conv.weight"),
    "optimizer.state.0": lambda s: s["optimizer"]["state"][0].update(momentum_buffer=torch.zeros(5)),
    "optimizer": lambda s: s["optimizer"]["param_groups"].pop(),
    "gradients": lambda s: s["gradients"].update({"model.0.conv.weight": torch.zeros(1)}),
    "random": lambda s: s["random"].update(cpu=torch.zeros(3, dtype=torch.uint8)),
    "threads": lambda s: s.update(threads=10**9),
    "progress.ni": lambda s: s["progress"].update(ni="many"),
    "progress.what": lambda s: s["progress"].update(what=1),
    "names": lambda s: s.update(names=[1, 2, 3, 4]),
    "yaml": lambda s: s.pop("yaml"),
    "lr0": lambda s: s["hyp"].update(lr0="fast"),
    "activation": lambda s: s["yaml"].update(activation="__import__('os').system('touch ran')"),
    "meter": lambda s: s["meter"].update(sums=torch.zeros(7)),
}


@pytest.mark.parametrize("part", SPOILT)
def test_a_state_that_was_changed_is_refused_by_what_does_not_fit(toy_args, tmp_path, monkeypatch, part):
    """Before the first step, in which a momentum of another shape would fail."""
    monkeypatch.chdir(tmp_path)
    state = copy.deepcopy(open_state(toy_args, tmp_path))
    SPOILT[part](state)
    torch.save(state, tmp_path / "spoilt.pt")
    with pytest.raises(UserError, match=part.replace(".", r"\.")):
        train.main(["--resume", str(tmp_path / "spoilt.pt")])
    assert not (tmp_path / "ran").exists()


OPEN: dict[str, Any] = {}


def open_state(toy_args: list[str], tmp_path: Path) -> dict[str, Any]:
    """The state of a run after one batch, whose window and epoch are open."""
    if not OPEN:
        seen = []

        def stop(module: torch.nn.Module, inputs: tuple) -> None:
            seen.extend([1] * (type(module).__name__ == "DetectionModel" and module.training))
            if len(seen) == 3:
                raise UserError("stopped")

        stopping = torch.nn.modules.module.register_module_forward_pre_hook(stop)
        with stopping, pytest.raises(UserError, match="stopped"):
            run_train(*toy_args, "save_every=2 batches", "nbs=8", project=tmp_path / "open")
        OPEN.update(torch.load(tmp_path / "open/exp/weights/last.pt", weights_only=True))
        assert OPEN["optimizer"]["state"] and OPEN["meter"]
    return OPEN


def test_what_another_library_lets_torch_load_is_not_let_into_a_state(toy_args, tmp_path):
    state = open_state(toy_args, tmp_path) | {"extra": Call(eval, f"open({str(tmp_path / 'ran')!r}, 'w')")}
    torch.save(state, tmp_path / "evil.pt")
    torch.serialization.add_safe_globals([(builtins.eval, "builtins.eval")])
    try:
        with pytest.raises(UserError, match="cannot be resumed"):
            train.main(["--resume", str(tmp_path / "evil.pt")])
        assert (builtins.eval, "builtins.eval") in torch.serialization.get_safe_globals()
    finally:
        torch.serialization.clear_safe_globals()
    assert TINY.exists() and not (tmp_path / "ran").exists()
