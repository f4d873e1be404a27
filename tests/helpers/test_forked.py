"""Forked programs end and print as started ones: the tests that fork in place of starting rely on it."""

import os
import subprocess
import sys

import pytest

from tests.helpers import forked

PROGRAMS = {
    "ends": "import sys; print('out', sys.argv, __name__); print('err', file=sys.stderr)",
    "exits": "import sys; print('out'); sys.exit(3)",
    "exits with words": "import sys; sys.exit('why')",
    "fails": "def f():\n    1 / 0\nprint('out')\nf()",
    "is told": "import os; e = os.environ; print(e['WORD'], e.get('HOME'), os.getcwd(), os.getsid(0) == os.getpid())",
    "reads": "import sys; print(sys.stdin.read()[::-1])",
    "is stopped": "import os, signal; print('out', flush=True); os.kill(os.getpid(), signal.SIGTERM)",
    "is interrupted": "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(9)",
    "logs": "import logging; logging.info('not this'); logging.warning('this')",
    "has a child": "import multiprocessing as m, time; m.Process(target=time.sleep, args=(99,), daemon=True).start()",
}


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_fork_ends_as_a_start(name, tmp_path, monkeypatch):
    options = {"input": "words", "capture_output": True, "text": True, "cwd": tmp_path, "start_new_session": True}
    options["env"] = {"WORD": "yes", "PATH": os.environ["PATH"]}
    ended = []
    for popen in (subprocess.Popen, forked.Popen):
        monkeypatch.setattr(subprocess, "Popen", popen)
        done = subprocess.run([sys.executable, "-c", PROGRAMS[name], "word", "2"], timeout=60, **options)
        ended.append((done.returncode, done.stdout, done.stderr.splitlines()[-1:]))
    assert ended[0] == ended[1]


def test_scripts_modules_and_pipes(tmp_path, forked_runs):
    """What a test does with a program while it runs; and other programs than Python are started as ever."""
    (tmp_path / "script.py").write_text("import sys\nprint(sys.argv, flush=True)\nfor line in sys.stdin: print(line)\n")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, tmp_path / "script.py", "--word"], **pipes)
    assert process.stdout.readline() == f"[{str(tmp_path / 'script.py')!r}, '--word']\n" and process.poll() is None
    process.terminate()
    assert process.communicate(timeout=60)[0] == "" and process.returncode == -15
    done = subprocess.run([sys.executable, "-m", "json.tool", "--help"], capture_output=True, text=True, check=True)
    assert "usage" in done.stdout
    assert subprocess.run(["echo", "word"], capture_output=True, text=True, check=True).stdout == "word\n"
