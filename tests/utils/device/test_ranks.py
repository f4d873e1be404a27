"""Which device a rank gets, and who tells what is wrong. The number of GPUs is made up, for torch says it."""

import json
import signal
import subprocess
import sys
import time

import pytest
import torch

from utils.device.ranks import amp_words, pick_amp, pick_device
from utils.errors import UserError


@pytest.fixture
def gpus(monkeypatch):
    """A function that lets torch see that many GPUs."""

    def see(n: int) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: n > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: n)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda i: f"GPU {i}")

    return see


@pytest.mark.parametrize("n", [1, 2, 4])
def test_every_rank_has_a_gpu_of_its_own_or_the_run_is_refused(gpus, n):
    gpus(n)
    for spec in ("auto", "cuda"):
        for ranks in range(1, n + 1):
            assert [pick_device(spec, k, ranks).index for k in range(ranks)] == list(range(ranks))
        with pytest.raises(UserError, match=f"--nproc-per-node {n}"):
            pick_device(spec, 0, n + 1)
    for spec in ("0", "cuda:0"):
        assert pick_device(spec).index == 0
        with pytest.raises(UserError, match="CUDA_VISIBLE_DEVICES"):
            pick_device(spec, 0, 2)
    with pytest.raises(UserError, match="does not exist"):
        pick_device(str(n))
    assert pick_device("cpu", 3, n + 9) == torch.device("cpu")


def test_without_a_gpu_ranks_share_the_cpu(gpus):
    gpus(0)
    assert pick_device("auto", 1, 2) == torch.device("cpu")
    with pytest.raises(UserError, match="sees no GPU"):
        pick_device("cuda", 1, 2)


ALL_FAIL = """
import os, sys
from utils import errors
errors.PATIENCE = float(sys.argv[1])

def main():
    os.write(1, b".")
    raise errors.UserError("wrong")

sys.exit(errors.run_script(main))
"""


@pytest.mark.parametrize("first", ["wrong", "another", ""])
def test_an_error_that_all_ranks_meet_is_told_by_the_first_one(monkeypatch, forked_runs, tmp_path, first):
    """first: what rank 0 says. It is told in the report of torchrun, or printed when torchrun has ended the rank."""
    for rank in ("0", "1"):
        (tmp_path / rank).mkdir()
    report = tmp_path / "1/error.json"
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(report))
    if first:
        (tmp_path / "0/error.json").write_text(json.dumps({"message": {"message": f"error: {first}"}}))
    alone = first != "wrong"
    with subprocess.Popen([sys.executable, "-c", ALL_FAIL, "60"], stdout=-1, stderr=-1, text=True) as process:
        assert process.stdout.read(1) == "."
        if alone:
            time.sleep(0.2)
            process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (2, "error: wrong\n" * alone)
    assert not report.exists()
    done = subprocess.run([sys.executable, "-c", ALL_FAIL, "0"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "")
    assert report.exists() == alone and (not alone or "error: wrong" in report.read_text())


def test_only_what_auto_chose_has_a_reason():
    cpu, gpu = torch.device("cpu"), torch.device("cuda", 0)
    for amp, device in (("off", cpu), ("bf16", cpu), ("fp16", gpu)):
        assert amp_words(amp, device) == amp
    for device in (cpu, gpu):
        used, _, reason = amp_words("auto", device).partition(" (auto: ")
        assert used == pick_amp("auto", device) and reason
