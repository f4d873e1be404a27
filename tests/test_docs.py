"""What README and docs say: commands that run or at least parse, links that lead somewhere, a README one can read."""

import re
import shlex
from pathlib import Path

import pytest

import compare
import train
import val
from data.report.main import Options
from utils.compare.cells.declare import read_asked
from utils.config.options import parse_args, parse_tokens

REPO = Path(__file__).resolve().parent.parent
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


@pytest.mark.parametrize(("page", "command"), commands())
def test_every_command_is_understood(page, command):
    words = shlex.split(command)
    if words[0] == "torchrun":
        words = ["python", *words[words.index("train.py") :]]
    assert words[0] == "python", f"{page}: {command}"
    if words[1] == "-m":
        module, words = words[2], words[3:]
        assert module in ("pytest", "data.index", "utils.schedule.gallery"), f"{page}: {command}"
        if module == "data.index":
            parse_tokens([word for word in words if word.startswith("--") or "=" in word], Options.model_fields)
        return
    script, words = words[1], words[2:]
    assert (REPO / script).is_file(), f"{page}: {command}"
    if "..." in words or script.startswith("benchmarks/"):
        return
    if "--help" in words:
        return
    if script == "train.py":
        plans = [w for w in words if w != "--plan"]
        while plans.count("--hyp") > 1:  # --plan draws several
            at = plans.index("--hyp")
            del plans[at : at + 2]
        parse_args(plans)
    elif script == "val.py":
        parse_tokens(words, val.Options.model_fields)
    else:
        assert script == "compare.py"
        read_asked(words)


@pytest.mark.parametrize("script", [train, val, compare], ids=lambda m: m.__name__)
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
