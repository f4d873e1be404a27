"""Runs on a Ray cluster: two nodes on this machine, one of which is lost in the middle."""

import importlib.util
import threading
import time
from pathlib import Path

import pytest

import compare
from utils.compare.folder import read_record
from utils.env import REPO
from utils.errors import UserError

missing = importlib.util.find_spec("ray") is None


@pytest.mark.skipif(not missing, reason="Ray is installed")
def test_without_ray_the_command_that_installs_it_is_named(toy, tmp_path):
    with pytest.raises(UserError, match="pip install -r requirements-extra.txt"):
        compare.main([*words(toy, tmp_path / "r"), "--engine", "ray"])


def words(toy: Path, project: Path) -> list[str]:
    return [
        *("--imgsz", "64", "--epochs", "4", "--val-every", "4", "--batch", "4", "--hyp", "demo", "--workers", "0"),
        *("--data", str(toy), "--weights", str(REPO / "models/demo.pt"), "--project", str(project), "--noplots"),
        *("--seeds", "2", "--threads", "1", "--jobs", "2", "--arm", "a", "--arm", "b", "lr0=0.004"),
    ]


@pytest.mark.extra
@pytest.mark.slow
@pytest.mark.skipif(missing, reason="Ray is an extra")
def test_a_lost_node_changes_no_digit(toy, tmp_path):
    from ray.cluster_utils import Cluster

    here = compare.main(words(toy, tmp_path / "local"))
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    lost = cluster.add_node(num_cpus=1)
    try:
        cluster.wait_for_nodes()
        thread = threading.Thread(target=lose_when_busy, args=(cluster, lost, tmp_path / "ray/exp"))
        thread.start()
        there = compare.main([*words(toy, tmp_path / "ray"), "--engine", "ray", "--address", cluster.address])
        thread.join()
    finally:
        cluster.shutdown()
    assert [run.score for run in there.runs] == [run.score for run in here.runs] and there.state == "complete"
    assert len(read_record(tmp_path / "ray/exp").runs) == 4


def lose_when_busy(cluster, node, folder: Path) -> None:
    """Kill a node once two runs have begun."""
    end = time.monotonic() + 120
    while time.monotonic() < end and len(list(folder.glob("runs/*/*/metrics.csv"))) < 2:
        time.sleep(0.1)
    cluster.remove_node(node, allow_graceful=False)
