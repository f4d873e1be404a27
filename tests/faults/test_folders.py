"""The folder of a run: taken by others, or gone."""

import multiprocessing

from utils.run.folder import make_run_folder


def _make(project: str, start, found) -> None:
    start.wait()
    found.put([str(make_run_folder(project, "exp", False)) for _ in range(5)])


def test_runs_of_one_name_that_start_at_once_get_folders_of_their_own(tmp_path):
    fork = multiprocessing.get_context("fork")
    start, found = fork.Barrier(8), fork.Queue()
    runs = [fork.Process(target=_make, args=(str(tmp_path / "a b/ü"), start, found)) for _ in range(8)]
    for run in runs:
        run.start()
    folders = [folder for _ in runs for folder in found.get(timeout=60)]
    for run in runs:
        run.join(60)
    assert len(set(folders)) == 40 == len(list((tmp_path / "a b/ü").iterdir()))
