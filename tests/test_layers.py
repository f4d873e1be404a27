"""Arrows point down only, and importing a module has no effect."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parent.parent
SCRIPTS = sorted(p.stem for p in REPO.glob("*.py"))
FOLDERS = ("models", "data", "utils")
ALLOWED = {"utils": {"utils"}, "models": {"models", "utils"}, "data": {"data", "utils"}, "": set(FOLDERS)}
PURE = (
    "schedules",
    "curves",
    "recipes",
    "foreign",
    "boxes",
    "letterbox",
    "postprocess",
    "plan",
    "plan_text",
    "caution",
    "progress",
    "matching",
    "multiscale",
    "stats",
    "looks",
    "verdict",
)


def imported(path: Path) -> set[str]:
    """Dotted names of all modules that a file imports, at the top or inside functions."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return names


FILES = [*REPO.glob("*.py"), *(p for folder in FOLDERS for p in (REPO / folder).glob("*.py"))]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(REPO)))
def test_imports_point_down(path):
    room = path.parent.name if path.parent != REPO else ""
    ours = {name.split(".")[0] for name in imported(path)} & {*FOLDERS, *SCRIPTS}
    assert ours <= ALLOWED[room], f"{path} imports {ours - ALLOWED[room]}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(REPO)))
def test_only_models_imports_ultralytics(path):
    if path.parent.name != "models":
        assert not {name for name in imported(path) if name.split(".")[0] == "ultralytics"}


@pytest.mark.parametrize("name", PURE)
def test_pure_modules_do_no_io(name):
    forbidden = {"os", "pathlib", "logging", "subprocess", "socket", "shutil"}
    assert not {n.split(".")[0] for n in imported(REPO / "utils" / f"{name}.py")} & forbidden


@pytest.mark.slow
def test_importing_everything_writes_and_prints_nothing(tmp_path):
    modules = [f"{p.parent.name}.{p.stem}" for p in FILES if p.parent != REPO and p.stem not in ("__init__", "env")]
    code = f"""
import os, sys, random
sys.path.insert(0, {str(REPO)!r})
import utils.env
import albumentations, cv2, faster_coco_eval, matplotlib.figure, tensorboard, torch.utils.tensorboard, torchvision
import ultralytics.nn.tasks  # these set variables of their own
environment, state = dict(os.environ), random.getstate()
for name in {modules!r}:
    __import__(name)
assert random.getstate() == state, "seeded"
changed = {{k for k in os.environ if os.environ[k] != environment.get(k)}}
assert not changed, changed
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert not list(tmp_path.iterdir())


def test_env_lets_torch_use_every_core():
    code = "import utils.env, ultralytics, torch, os; print(torch.get_num_threads(), len(os.sched_getaffinity(0)))"
    clean = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    out = subprocess.run([sys.executable, "-c", code], cwd=REPO, env=clean, capture_output=True, text=True, check=True)
    threads, cores = out.stdout.split()[-2:]
    assert threads == cores
