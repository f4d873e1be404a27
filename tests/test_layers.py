"""Arrows point down only, and importing a module has no effect."""

import ast
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from utils.env import REPO

SCRIPTS = sorted(p.stem for p in REPO.glob("*.py"))
FOLDERS = ("models", "data", "utils")
PURE = (
    *("boxes", "config/foreign", "config/recipes", "evaluation/matching", "evaluation/nms", "run/state/progress"),
    *(f"schedule/{name}" for name in ("curves", "rates", "plan", "describe", "warn")),
    *(f"compare/statistics/{name}" for name in ("paired", "pictures", "folds", "pooled", "sweep", "looks", "verdict")),
    *("../data/pictures/letterbox", "../data/loading/multiscale"),
)
FILES = [*REPO.glob("*.py"), *(p for folder in FOLDERS for p in (REPO / folder).rglob("*.py"))]
PACKAGES = sorted({p.parent for p in FILES} - {REPO})
LINES = {"train.py": 350, "compare.py": 240, "tune.py": 250}  # at most, of what is read from top to bottom
SCREEN = 60  # lines of a function, at most


def imported(path: Path) -> set[str]:
    """Dotted names of all modules that a file imports, at the top or inside functions."""
    return imports_of(path.read_text(encoding="utf-8"))


@cache
def imports_of(text: str) -> set[str]:
    """The same of its text."""
    names = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            names |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
    return names


@cache
def rooms(package: Path) -> list[str]:
    """Rooms of a package, lowest first, as its docstring lists them: a line each, a name and what it holds."""
    text = ast.get_docstring(ast.parse((package / "__init__.py").read_text(encoding="utf-8"))) or ""
    return [line.split()[0] for line in text.splitlines()[2:]]


def upward(path: Path, repo: Path = REPO) -> set[str]:
    """Imports of a file that break the rule in two lines, which CONTRIBUTING.md states."""
    parts = path.relative_to(repo).with_suffix("").parts
    if len(parts) == 1 or parts[-1] == "__main__":  # a script may import everything but scripts
        return {name for name in imported(path) if name.split(".")[0] in SCRIPTS}
    wrong = set()
    for name in imported(path):
        to = tuple(name.split("."))
        if to[0] in SCRIPTS or to[0] == "" or (to[0] in FOLDERS and to[0] not in (parts[0], "utils")):
            wrong.add(name)
        elif to[0] == parts[0]:
            k = next((k for k, (a, b) in enumerate(zip(parts, to, strict=False)) if a != b), None)
            if k is None:  # itself, or a package that it lies in: an __init__.py hands nothing on
                wrong |= {name} if len(to) >= len(parts) else set()
                continue
            order = rooms(repo.joinpath(*parts[:k]))
            if to[k] in order and order.index(to[k]) > order.index(parts[k]):
                wrong.add(name)
    return wrong


@pytest.mark.parametrize("folder", [REPO, *PACKAGES], ids=lambda p: str(p.relative_to(REPO)))
def test_imports_point_down(folder):
    assert not {path.name: wrong for path in folder.glob("*.py") if (wrong := upward(path))}


def test_a_wrong_import_is_found(tmp_path):
    for package in PACKAGES:
        there = tmp_path / package.relative_to(REPO)
        there.mkdir(parents=True, exist_ok=True)
        (there / "__init__.py").write_text((package / "__init__.py").read_text())
    for file, line, wrong in (
        ("data/index/table.py", "from data.index.build import x", True),  # upwards inside a package
        ("data/index/table.py", "def f():\n    import data.report.main", True),  # also inside a function
        ("data/formats/yolo.py", "from data import sources", True),
        ("utils/compare/statistics/looks.py", "from utils.compare.statistics import verdict", True),
        ("utils/compare/statistics/looks.py", "from utils.compare.record import x", True),
        ("data/loading/dataset.py", "from models.build import x", True),
        ("utils/run/log.py", "import train", True),
        ("utils/run/log.py", "from . import meter", True),
        ("data/loading/dataset.py", "from data.loading.order import x\nfrom utils.run.state.seed import x", False),
        ("data/index/__main__.py", "from data.report.main import main", False),
    ):
        path = tmp_path / file
        path.write_text(line + "\n")
        assert bool(upward(path, tmp_path)) == wrong, (file, line)


@pytest.mark.parametrize("package", PACKAGES, ids=lambda p: str(p.relative_to(REPO)))
def test_the_docstring_of_a_package_lists_its_rooms_and_hands_nothing_on(package):
    inside = {p.stem for p in package.glob("*.py")} | {p.parent.name for p in package.glob("*/__init__.py")}
    assert sorted(rooms(package)) == sorted(inside - {"__init__", "__main__"})
    assert len(ast.parse((package / "__init__.py").read_text()).body) == 1
    entries = [p for p in package.iterdir() if p.stem not in ("__init__", "__pycache__")]
    assert len(entries) <= 12, f"{len(entries)} entries: a folder that nobody keeps in mind"


@pytest.mark.parametrize("name", LINES)
def test_a_script_is_read_from_top_to_bottom(name):
    assert len((REPO / name).read_text(encoding="utf-8").splitlines()) <= LINES[name], "what has a room moves there"


def too_long(text: str) -> list[str]:
    """Functions of a file that fit on no screen."""
    if text.count("\n") <= SCREEN:
        return []
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)]
    return [f.name for f in functions if f.end_lineno - f.lineno >= SCREEN]


def test_a_function_fits_on_a_screen():
    files = [*FILES, *(REPO / "benchmarks").glob("*.py"), *(REPO / "tests").rglob("*.py")]
    found = {str(path.relative_to(REPO)): too_long(path.read_text(encoding="utf-8")) for path in files}
    assert not {path: names for path, names in found.items() if names}
    of_lines = {n: "class C:\n    def f(self):\n" + "        x = 1\n" * (n - 1) for n in (SCREEN, SCREEN + 1)}
    assert not too_long(of_lines[SCREEN]) and too_long(of_lines[SCREEN + 1]) == ["f"]


@pytest.mark.parametrize("folder", [REPO, *PACKAGES], ids=lambda p: str(p.relative_to(REPO)))
def test_only_models_imports_ultralytics(folder):
    inside = REPO / "models" in (folder, *folder.parents)
    of_theirs = [p.name for p in folder.glob("*.py") if any(n.split(".")[0] == "ultralytics" for n in imported(p))]
    assert inside or not of_theirs


@pytest.mark.parametrize("name", PURE)
def test_pure_modules_do_no_io(name):
    forbidden = {"os", "pathlib", "logging", "subprocess", "socket", "shutil"}
    assert not {n.split(".")[0] for n in imported(REPO / "utils" / f"{name}.py")} & forbidden


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
def test_importing_everything_writes_and_prints_nothing(tmp_path, forked_runs):
    """Anew, in a fork that forgets our modules and keeps the libraries, which set variables of their own.

    Nor does it import pyplot, which keeps every figure.
    """
    inside = [p.relative_to(REPO).with_suffix("") for p in FILES if p.parent != REPO]
    modules = [".".join(p.parts) for p in inside if p.stem not in ("__init__", "__main__", "env")]
    code = f"""
import os, sys, random
import numpy, torch
import albumentations, cv2, faster_coco_eval, matplotlib.figure, tensorboard, torch.utils.tensorboard, torchvision
import ultralytics.nn.tasks
for name in [name for name in sys.modules if name.split(".")[0] in {FOLDERS!r} and name != "utils.env"]:
    del sys.modules[name]
sys.modules.pop("matplotlib.pyplot", None)
def state():
    return str([dict(os.environ), random.getstate(), numpy.random.get_state(), torch.get_rng_state().tolist()])
before = state()
for name in {modules!r}:
    __import__(name)
assert state() == before, "seeded, or a variable was set"
assert "matplotlib.pyplot" not in sys.modules
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_env_lets_torch_use_every_core():
    code = "import utils.env, ultralytics, torch, os; print(torch.get_num_threads(), len(os.sched_getaffinity(0)))"
    clean = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    out = subprocess.run([sys.executable, "-c", code], cwd=REPO, env=clean, capture_output=True, text=True, check=True)
    threads, cores = out.stdout.split()[-2:]
    assert threads == cores


def test_every_test_file_has_a_name_of_its_own():
    """pytest collects one file of a name only, and says so in a line that is easily missed."""
    names = [path.name for path in (REPO / "tests").rglob("test_*.py")]
    assert not {name for name in names if names.count(name) > 1}


def test_a_folder_of_tests_can_be_kept_in_mind():
    folders = [REPO / "tests", *(p for p in (REPO / "tests").rglob("*") if p.is_dir() and p.name != "__pycache__")]
    entries = {str(p.relative_to(REPO)): [e.name for e in p.iterdir() if e.name != "__pycache__"] for p in folders}
    assert not {folder: names for folder, names in entries.items() if len(names) > 12}
