"""A run that is extended is the run that had been planned with so many epochs, bit for bit; or it is not made."""

import json
import signal
from pathlib import Path

import pytest
import torch

import train
from tests.helpers.runs import TINY, assert_equal_runs, assert_same, guesser, replaced, run_train
from tests.utils.run.interrupted import run_until
from utils.errors import UserError
from utils.run.folder import drop_states

KINDS = {
    "wsd, inside an epoch": ["decay=wsd", "wsd_decay=0.3", "close_mosaic=0", "nbs=12"],
    "wsd, at the end of one, with the best epochs": [
        "decay=wsd",
        "close_mosaic=1",
        "wsd_decay=0.5",
        "nbs=4",
        "keep_best=2",
    ],
    "constant": ["decay=constant", "close_mosaic=1", "nbs=12", "save_period=1", "optimizer=adamw", "lr0=0.002"],
}


@pytest.fixture(scope="module")
def words(toy) -> list[str]:
    """A run of four epochs of five batches."""
    return [
        *("--weights", str(guesser()), "--data", str(toy), "--imgsz", "64", "--epochs", "4", "--batch", "4"),
        *("--workers", "0", "warmup_epochs=1", "ema_tau=5", "--noplots", "--device", "cpu", "conf=0.01"),
    ]


def extend(folder: Path, epochs: int, *more: object) -> Path:
    """The folder of the run that goes on from another one."""
    train.main(["--extend", str(folder), "--epochs", str(epochs), *map(str, more)])
    return max(folder.parent.iterdir(), key=lambda path: path.stat().st_ctime)


def files_in(folder: Path) -> set[str]:
    """What a run left, but for the names of event files, which hold the time."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if "tfevents" not in path.name}


def assert_extended(planned: Path, extended: Path) -> None:
    """The same state, table, curves, files and best weights."""
    assert_equal_runs(planned, extended)
    assert files_in(planned) == files_in(extended)
    for file in (planned / "weights").rglob("*best*.pt"):
        models = [
            torch.load(root / file.relative_to(planned), weights_only=False)["model"] for root in (planned, extended)
        ]
        assert_same(*[model.state_dict() for model in models], str(file))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_an_extended_run_is_the_run_planned_with_so_many_epochs(words, tmp_path, kind):
    planned = run_train(*replaced([*words, *kind], "--epochs", 6), project=tmp_path / "planned")
    short = run_train(*words, *kind, project=tmp_path / "short")
    before = {path: path.read_bytes() for path in short.rglob("*") if path.is_file()}
    longer = extend(short, 6)
    assert longer.name == "exp2" and {path: path.read_bytes() for path in before} == before, "the old one is untouched"
    assert_extended(planned, longer)
    drop_states(short)
    assert not [path for path in (short / "weights").rglob("*") if path.name in ("stable", "stable.pt", "last.pt")]
    about = json.loads((longer / "run.json").read_text())
    assert about["extends"] == str(short / "weights/stable.pt")


@pytest.mark.slow
def test_a_run_is_extended_twice_and_killed_on_the_way(words, tmp_path, forked_runs, capsys):
    """Before its stable part has its name, and in a batch of the first extension."""
    words = [*words, *KINDS["wsd, inside an epoch"]]
    planned = run_train(*replaced(words, "--epochs", 8), project=tmp_path / "planned")
    folder = tmp_path / "runs/exp"
    code, _ = run_until(("os.rename", "stable.pt", 1), *words, "--project", folder.parent)
    assert code == -signal.SIGKILL and not (folder / "weights/stable.pt").exists()
    with pytest.raises(UserError, match=r"has come to batch 13, and can be extended from batch 13 on. Go on with it"):
        extend(folder, 6)
    train.main(["--resume", str(folder)])
    code, _ = run_until(("forward", "training", 6), "--extend", folder, "--epochs", 6, "save_every=2 batches")
    assert code == -signal.SIGKILL
    train.main(["--resume", str(tmp_path / "runs/exp2"), "--workers", "1"])
    assert_extended(planned, extend(tmp_path / "runs/exp2", 8))
    assert "exp3 goes on from" in capsys.readouterr().out


@pytest.mark.slow
def test_a_run_that_cannot_be_extended_says_why(words, tmp_path, capsys):
    """Stopped by its patience; with its stable part damaged, and removed; one that falls from the first batch on."""
    constant = [*words, "decay=constant", "close_mosaic=0", "warmup=none", "nbs=12"]
    early = run_train(*replaced(constant, "--weights", TINY), "patience=1", project=tmp_path / "early")
    with pytest.raises(UserError, match=r"ended after epoch 2 \(patience 1\), before batch 18, and so would"):
        extend(early, 6)
    folder = run_train(*replaced(constant, "--epochs", 2), project=tmp_path / "whole")
    train.main(["--extend", str(folder), "--epochs", "5", "--plan", "--project", str(tmp_path / "plan")])
    assert f"extends   {folder} from batch 9 on: 16 are left to be trained" in capsys.readouterr().out
    stable = folder / "weights/stable.pt"
    stable.write_bytes(stable.read_bytes()[:-100])
    with pytest.raises(UserError, match="stable.pt cannot be read: it is damaged, so .* cannot be extended"):
        extend(folder, 5)
    stable.unlink()
    with pytest.raises(UserError, match="stable.pt is missing: it was removed.*nearest thing.*best.pt --epochs 3"):
        extend(folder, 5)
    last = folder / "weights/last.pt"
    torch.save(torch.load(last, weights_only=True) | {"loss": {"o2m": 0.8}}, last)
    with pytest.raises(UserError, match="two branches of the head"):
        extend(folder, 5)
    state = torch.load(last, weights_only=True)
    torch.save(state | {"hyp": state["hyp"] | {"decay": "cosine"}}, last)
    with pytest.raises(UserError, match="decay: cosine batch 1 has lr/bias"):
        extend(folder, 5)
    assert [path.name for path in (tmp_path / "whole").iterdir()] == ["exp"], "no folder is made for what is refused"
    last.unlink()
    (folder / "weights/last-older.pt").unlink()
    (folder / "run.json").write_text(json.dumps({"extends": "runs/train/old/weights/stable.pt"}))
    with pytest.raises(UserError, match="before its first one. Remove .*exp, and extend runs/train/old"):
        train.main(["--resume", str(folder)])


@pytest.mark.slow
def test_a_run_that_went_on_with_other_settings_is_extended_with_a_warning(words, tmp_path, capsys):
    constant = [*replaced(words, "--epochs", 2), "decay=constant", "close_mosaic=0", "warmup=none", "nbs=4"]
    folder = run_train(*constant, "--stop-after", 1, project=tmp_path)
    train.main(["--resume", str(folder), "box=5", "--resume-anyway"])
    extend(folder, 3)
    assert "was resumed with other settings or data (box), so what comes is no run that" in capsys.readouterr().out
