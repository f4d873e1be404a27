"""Losses and scores that are no numbers: what the run says, keeps and leaves to be looked at."""

import math

import pytest
import torch

from data.definition.dataset_yaml import load_dataset_yaml
from data.index.index import build_index
from data.loading.loader import build_train_loader
from tests.helpers.runs import replaced, run_train, state_of
from utils.config.schema import Hyp
from utils.errors import Diverged, UserError
from utils.run.state.progress import SCORES, require_number


def lost_at(n: int, by: float, what: type[torch.nn.Module] = torch.nn.Conv2d):
    """A hook: from the n-th forward pass in training on, the first layer of a network answers with `by`."""
    seen = []

    def spoil(module: torch.nn.Module, inputs: tuple, output: torch.Tensor) -> torch.Tensor | None:
        if not (isinstance(module, what) and module.training):
            return None
        seen.append(id(module))
        return output * by if seen[0] == id(module) and seen.count(seen[0]) >= n else None

    return torch.nn.modules.module.register_module_forward_hook(spoil)


@pytest.mark.parametrize(("by", "mosaic"), [(math.nan, 0), (math.inf, 1)])
def test_the_batch_that_the_loss_is_lost_from_is_kept(toy, toy_args, tmp_path, capsys, by, mosaic):
    """The fifth batch of all, which is the second of the second epoch: its very pictures, boxes and files."""
    words = [*toy_args, f"mosaic={mosaic}", "hsv_on=device" if mosaic else "hsv_on=host", "close_mosaic=0"]
    with lost_at(5, by), pytest.raises(Diverged, match="NaN or infinite at batch 5, epoch 2"):
        run_train(*words, project=tmp_path)
    folder = tmp_path / "exp"
    state, kept = state_of(folder), torch.load(folder / "diverged.pt", weights_only=True)
    assert state["progress"]["epoch"] == 1 and all(bool(v.isfinite().all()) for v in state["model"].values())
    assert (kept["epoch"], kept["batch"]) == (1, 1) and (folder / "diverged.jpg").stat().st_size
    hyp = Hyp(**{key: value for key, value in state["hyp"].items() if key != "hsv_on"})
    loader = build_train_loader(build_index(load_dataset_yaml(toy), "train"), hyp, batch=8, workers=0)
    seen = next(loader.epoch(1, 1))
    for key in ("img", "cls", "bboxes", "batch_idx"):
        torch.testing.assert_close(kept[key], torch.as_tensor(seen[key]), atol=1, rtol=0, msg=key)
    assert len(kept["files"]) == 8 and {len(files) for files in kept["files"]} == {4 if mosaic else 1}
    said = capsys.readouterr().out
    assert "lost from batch 2 of epoch 2" in said and kept["files"][0][0] in said and "kept: the last state" in said


def test_a_gradient_that_is_lost_twenty_times_names_the_first_batch(toy_args, tmp_path):
    with pytest.raises(Diverged, match="steps in a row"):
        run_train(*replaced(toy_args, "--epochs", 9), "--noval", "box=1e30", "nbs=8", project=tmp_path)
    assert torch.load(tmp_path / "exp/diverged.pt", weights_only=True)["batch"] == 0, "of the epoch that it ended in"


def test_a_plateau_never_waits_for_a_score_that_is_no_number():
    """Data without a box to find are refused before; whatever else makes a score NaN ends the run with a message."""
    metrics = dict.fromkeys(SCORES, math.nan)
    with pytest.raises(UserError, match="val/mAP75, which is no number"):
        require_number(metrics, Hyp(decay="plateau", plateau_metric="val/mAP75"))
    require_number(metrics | {"val/mAP75": 0.0}, Hyp(decay="plateau", plateau_metric="val/mAP75"))
    require_number(metrics, Hyp(decay="linear"))
