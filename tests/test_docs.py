"""What README and docs say: commands that run or at least parse, links that lead somewhere, a README one can read."""

import re
import shlex
import subprocess
import sys

import pytest

import compare
import detect
import export
import train
import tune
import val
from data.report.main import Options
from tests.helpers.runs import guesser
from utils.compare.cells.declare import read_asked
from utils.config.options import parse_args
from utils.config.words import parse_tokens, take_lists
from utils.env import REPO
from utils.tune.options import read_run
from utils.tune.search.asked import read_search

PAGES = [REPO / "README.md", REPO / "CONTRIBUTING.md", *sorted((REPO / "docs").glob("*.md"))]
ELSEWHERE = ("pip", "ruff", "cp", "cd", "git", "apt-get", "export", "tensorboard")  # not ours to test


def commands() -> list[tuple[str, str]]:
    """(page, command) of every line of every bash block, and of every command in backticks; variables filled in."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        variables = dict(re.findall(r'^`?(\w+)="([^"]*)"', text, re.MULTILINE))
        blocks = "\n".join(re.findall(r"```bash\n(.*?)```", text, re.DOTALL)).replace("\\\n", " ")
        lines = blocks.splitlines() + re.findall(r"`((?:python|torchrun) [^`]*)`", text)
        for line in lines:
            for name, value in variables.items():
                line = line.replace(f"${name}", value)
            for part in line.split("&&"):
                words = shlex.split(part, comments=True)
                if words and not re.match(r"\w+=", words[0]) and words[0] not in ELSEWHERE:
                    found.append((page.name, shlex.join(words)))
    return sorted(set(found))


def needs_nothing(words: list[str]) -> bool:
    """Whether a command works on a fresh checkout, or needs a dataset yaml alone and makes no run."""
    if "..." in words or words[0] != "python" or words[1].startswith("benchmarks/") or "pytest" in words:
        return False
    if words[1:3] == ["tune.py", "search"]:  # needs an extra, and is tested with it
        return False
    if {"--list", "--report-only"} & set(words) or words[-1].startswith("docs/study/"):  # of comparisons, of data
        return False
    files = [word.rpartition("=")[2] for word in words if word.endswith((".yaml", ".pt")) or word.startswith("runs/")]
    brought = [file for file in files if file.startswith("runs/") or not (REPO / file).exists()]  # runs/ is nobody's
    makes_no_run = "--plan" in words or "--help" in words or "data.index" in words
    return not brought or ("your.yaml" in brought and makes_no_run)


COMMANDS = {command for _, command in commands()}
TINY = [  # what is added to a run of the demo
    *("--imgsz", "32", "--epochs", "1", "--batch", "8", "--workers", "0", "--noplots", "--device", "cpu"),
]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="forks")
@pytest.mark.parametrize("command", sorted(command for command in COMMANDS if needs_nothing(shlex.split(command))))
def test_a_command_that_needs_no_own_data_runs(command, toy, small_demo, tmp_path, forked_runs, undrawn):
    """As it stands, but small, and writing elsewhere; your.yaml is that of a toy."""
    places = {"your.yaml": str(toy), "docs/pictures/schedules.png": str(tmp_path / "schedules.png")}
    words = [places.get(word, word) for word in shlex.split(command)[1:]]
    if words[0].endswith(".py") and "--help" not in words:
        tiny = {"detect.py": ["--device", "cpu"], "export.py": ["--pictures", "2"]}.get(words[0], TINY)
        words += [*([] if "--plan" in words else tiny), "--project", str(tmp_path)]
        if words[0] == "tune.py":
            few = {"lr": ["--steps", "20", "--seeds", "1"], "check": ["--minutes", "0.05", "--pictures", "2"]}
            words += few[words[1]]
        if words[0] == "compare.py":
            many = ["--weights", str(guesser()), "--imgsz", "64"]  # of 10 anchors at least
            words += ["--seeds", "2", *(many if "--hyp" in words else [])]
    elif "data.index" in words:
        words += ["--project", str(tmp_path), "--noplots"]
    done = subprocess.run([sys.executable, *words], cwd=REPO, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "--help" in words or list(tmp_path.iterdir()), "it leaves what it is there for"


@pytest.mark.parametrize(("page", "command"), commands())
def test_every_command_is_understood(page, command, forked_runs):
    words = shlex.split(command)
    if words[0] == "torchrun":
        words = ["python", *words[words.index("train.py") :]]
    assert words[0] == "python", f"{page}: {command}"
    if words[1] == "-m":
        module, words = words[2], words[3:]
        assert module in ("pytest", "data.index", "utils.schedule.gallery"), f"{page}: {command}"
        if module == "data.index":
            parse_tokens([word for word in words if word.startswith("--") or "=" in word], Options.model_fields)
        elif module == "pytest":
            assert all((REPO / word).exists() for word in words if "/" in word), f"{page}: {command}"
        return
    script, words = words[1], words[2:]
    assert (REPO / script).is_file(), f"{page}: {command}"
    if script.startswith("benchmarks/"):
        told = subprocess.run([sys.executable, REPO / script, "--help"], capture_output=True, text=True, check=True)
        assert {word for word in words if word.startswith("--")} <= set(re.findall(r"--[\w-]+", told.stdout))
        return
    if "..." in words:
        return
    if "--help" in words:
        return
    if script == "train.py":
        plans = [w for w in words if w != "--plan"]
        while plans.count("--hyp") > 1:  # --plan draws several
            at = plans.index("--hyp")
            del plans[at : at + 2]
        parse_args(plans)
    elif script == "tune.py":
        read_search(words[1:]) if words[0] == "search" else read_run(words[1:], tune.MODELS[words[0]])
    elif script in ("val.py", "detect.py", "export.py"):
        fields = {"val.py": val, "detect.py": detect, "export.py": export}[script].Options.model_fields
        words, _ = take_lists(words, ("weights", "source", "format"), fields)
        parse_tokens(words, fields)
    else:
        assert script == "compare.py"
        if not {"--list", "--report-only"} & set(words):
            read_asked(words)


@pytest.mark.parametrize("script", [train, val, compare, detect, export, tune], ids=lambda m: m.__name__)
def test_help_is_printed(script, capsys):
    script.main(["--help"])
    assert f"usage: python {script.__name__}.py" in capsys.readouterr().out


def test_links_and_pictures_are_there():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
            if not target.startswith("http"):
                assert (page.parent / target.partition("#")[0]).exists(), f"{page.name}: {target}"


def test_files_named_in_the_docs_are_there():
    for page in PAGES:
        for name in re.findall(
            r"`((?:tests|utils|data|models|hyps|benchmarks)/[\w/]+\.(?:py|yaml))`", page.read_text()
        ):
            assert (REPO / name).is_file(), f"{page.name}: {name}"


def test_the_readme_is_short_and_has_the_two_commands_of_a_newcomer():
    lines = (REPO / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 160
    assert len([line for line in lines if line.startswith("pip install -r requirements.txt && python")]) == 2
