"""Several detectors as one, several looks, and the mean of checkpoints."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.optim.swa_utils import update_bn
from ultralytics import YOLO

import detect
import val
from models.detector import build_detector, for_evaluation, load_for_eval
from models.inference.combined import tta
from models.inference.combined.average import average, estimate_statistics
from models.inference.combined.common import as_candidates
from models.inference.combined.ensemble import Ensemble, Fused
from models.inference.combined.tta import Augmented, scaled
from models.weights.save import save_weights
from tests.helpers.runs import TINY, TOY_NAMES
from utils.errors import UserError, run_script
from utils.evaluation.evaluate import Settings, choose


def network(seed: int, names: list[str] = TOY_NAMES) -> torch.nn.Module:
    """The tiny network with small boxes, scores of the whole range, and BatchNorm statistics of its own."""
    torch.manual_seed(seed)
    model, _ = build_detector(str(TINY), names)
    with torch.no_grad():
        for box, cls in zip(model.model[-1].cv2, model.model[-1].cv3, strict=True):
            bins = box[-1].bias.view(4, -1)
            bins.fill_(-4.0)
            bins[:, 1] = 4.0
            cls[-1].weight.normal_(0, 2)
            cls[-1].bias.fill_(-2)
        for layer in model.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.running_mean.normal_(0, 0.1)
                layer.running_var.uniform_(0.8, 1.2)
    model.args = {"imgsz": 64}
    return model.eval()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two checkpoints of one network, and the first once more with its classes in another order."""
    folder = tmp_path_factory.mktemp("weights")
    paths = [folder / name for name in ("a.pt", "b.pt", "turned.pt")]
    for path, seed in zip(paths[:2], (0, 1), strict=True):
        save_weights(path, network(seed), TOY_NAMES, {"imgsz": 64}, 1, {})
    turned = network(0)
    with torch.no_grad():
        for cls in turned.model[-1].cv3:
            cls[-1].weight.copy_(cls[-1].weight.flip(0))
            cls[-1].bias.copy_(cls[-1].bias.flip(0))
    save_weights(paths[2], turned, TOY_NAMES[::-1], {"imgsz": 64}, 1, {})
    return list(map(str, paths))


def detections(project: Path, name: str, toy: Path, *words: str) -> list[dict]:
    argv = ["--source", str(toy), "--nosave", "--conf", "0.05", "--device", "cpu", "--project", str(project)]
    detect.main([*argv, "--name", name, *words])
    return json.loads((project / name / "predictions.json").read_text())


def test_the_same_detector_twice_is_the_detector(files, toy, tmp_path):
    """Also where the second one has its classes in another order: they are matched by name."""
    one = detections(tmp_path, "one", toy, "--weights", files[0])
    two = detections(tmp_path, "two", toy, "--weights", files[0], files[2])
    assert len(one) > 20 and [row["category_id"] for row in two] == [row["category_id"] for row in one]
    for key in ("bbox", "score"):
        np.testing.assert_allclose([row[key] for row in two], [row[key] for row in one], atol=2e-3)


def test_an_ensemble_has_the_candidates_of_its_members():
    a, b = network(0), network(1)
    images = torch.rand(2, 3, 64, 96)
    with for_evaluation(Ensemble([a, b], ["a.pt", "b.pt"])) as both, torch.no_grad():
        found = both(images)
        torch.testing.assert_close(found, torch.cat([a(images)[0], b(images)[0]], 2), atol=1e-4, rtol=1e-4)


def test_a_head_without_suppression_gives_its_boxes():
    out = torch.tensor([[[10.0, 20, 30, 60, 0.9, 2], [0, 0, 4, 4, 0.5, 0]]])
    pred = as_candidates(out, True, 3)
    assert pred[0].T.tolist() == [[20, 40, 20, 40, 0, 0, pytest.approx(0.9)], [2, 2, 4, 4, 0.5, 0, 0]]
    (found,) = choose(pred, Settings(0.1, multi_label=False), end2end=False)
    torch.testing.assert_close(found, out[0])


@pytest.mark.extra
def test_fusion_of_equals_changes_nothing_and_of_one_alone_halves_its_scores():
    pytest.importorskip("ensemble_boxes")
    model, silent, settings = network(0), network(1), Settings(0.01, 0.5, 300, multi_label=False)
    with torch.no_grad():
        for cls in silent.model[-1].cv3:
            cls[-1].weight.zero_()
            cls[-1].bias.fill_(-20)
    images, seen = torch.rand(3, 3, 160, 160), 0
    with torch.no_grad():
        alone = choose(model(images)[0], settings, end2end=False)
        for other, factor in ((model, 1.0), (silent, 0.5)):
            with for_evaluation(Fused([model, other], ["a", "b"], settings)) as fused:
                found = choose(fused(images), Settings(0.0, max_det=300), fused.end2end)
            for ours, theirs in zip(found, alone, strict=True):
                inside = theirs.clone()
                inside[:, :4] = inside[:, :4].clamp(0, 160)
                inside[:, 4] *= factor
                apart = [row for row in inside.tolist() if _lonely(row, inside)]  # those that fusion cannot merge
                seen += len(apart)
                for row in apart:
                    assert min(float((ours - torch.tensor(row)).abs().max(1)[0].min()), 1.0) < 2e-3
    assert seen > 10


def _lonely(row: list[float], rows: torch.Tensor) -> bool:
    """Whether no other box of its class overlaps a box enough to be fused with it."""
    from torchvision.ops import box_iou

    iou = box_iou(torch.tensor([row[:4]]), rows[:, :4])[0] * (rows[:, 5] == row[5])
    return int((iou > 0.4).sum()) == 1


def test_looks_see_the_same_things_in_a_mirror(monkeypatch):
    """Two looks, one flipped: what is found in the mirrored picture is the mirror image of what is found."""
    monkeypatch.setattr(tta, "LOOKS", ((1.0, False), (1.0, True)))
    images = torch.rand(1, 3, 64, 96)
    with for_evaluation(Augmented(network(0))) as model, torch.no_grad():
        plain, mirrored = model(images)[0].T, model(images.flip(3))[0].T
    mirrored[:, 0] = 96 - mirrored[:, 0]
    half = len(plain) // 2
    torch.testing.assert_close(torch.cat((mirrored[half:], mirrored[:half])), plain, atol=1e-3, rtol=1e-4)


def test_a_smaller_look_gives_boxes_in_pixels_of_the_whole_picture(monkeypatch):
    """A picture of blocks of 2 x 2 equal pixels is, at half its size, the picture of the blocks."""
    monkeypatch.setattr(tta, "LOOKS", ((0.5, False),))
    blocks = torch.rand(1, 3, 64, 96)
    images, model = F.interpolate(blocks, scale_factor=2, mode="nearest"), network(0)
    with for_evaluation(Augmented(model)) as looks, torch.no_grad():
        found, expected = looks(images), model(blocks)[0]
    expected[:, :4] *= 2
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-4)
    assert scaled(torch.rand(1, 3, 96, 64), 0.67, 32).shape == (1, 3, 64, 64)


def test_tta_and_ensembles_go_together_in_val(files, toy, tmp_path, capsys):
    words = ["--data", str(toy), "--noplots", "--workers", "0", "--device", "cpu", "--project", str(tmp_path)]
    scores = val.main(["--weights", files[0], files[1], "--tta", *words])
    printed = capsys.readouterr().out
    assert "ensemble of 2" in printed and "3 looks" in printed and scores["val/recall"] >= 0


def test_the_mean_of_checkpoints(files):
    a, b = (load_for_eval(file).state_dict() for file in files[:2])
    mean = average(files[:2]).state_dict()
    for key, value in mean.items():
        if value.is_floating_point():
            torch.testing.assert_close(value, (a[key] + b[key]) / 2)


def test_statistics_are_those_of_torch():
    """As torch.optim.swa_utils.update_bn estimates them, batch by batch."""
    batches = [torch.rand(4, 3, 64, 64), torch.rand(4, 3, 64, 96), torch.rand(2, 3, 64, 64)]
    ours, theirs = network(0), network(0)
    assert estimate_statistics(ours, batches) == 10
    for layer in theirs.modules():  # the head's decoding stays that of evaluation
        layer.training = isinstance(layer, torch.nn.BatchNorm2d)
    reference = theirs.forward
    with torch.no_grad():
        update_bn(batches, _Evaluated(theirs, reference))
    for (key, a), (_, b) in zip(ours.state_dict().items(), theirs.state_dict().items(), strict=True):
        torch.testing.assert_close(a, b, msg=key)
    assert not any(layer.training or layer.momentum is None for layer in ours.modules() if hasattr(layer, "momentum"))


class _Evaluated(torch.nn.Module):
    """A network whose BatchNorm alone is trained when a trainer calls train()."""

    def __init__(self, network: torch.nn.Module, forward: object):
        super().__init__()
        self.network, self.call = network, forward

    def train(self, mode: bool = True) -> "_Evaluated":
        self.training = mode
        for layer in self.network.modules():
            layer.training = mode and isinstance(layer, torch.nn.BatchNorm2d)
        return self

    def forward(self, images: torch.Tensor) -> object:
        return self.call(images)


def test_val_writes_and_scores_the_mean(files, toy, tmp_path, capsys):
    words = ["--data", str(toy), "--noplots", "--workers", "0", "--device", "cpu", "--project", str(tmp_path)]
    scores = val.main(["--average", files[0], files[1], *words])
    assert "BatchNorm statistics of 20 training pictures" in capsys.readouterr().out
    again = val.main(["--weights", str(tmp_path / "exp/average.pt"), *words])
    assert again == pytest.approx(scores, nan_ok=True)
    assert list(YOLO(tmp_path / "exp/average.pt").names.values()) == TOY_NAMES


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--average", "a.pt", "turned.pt"], ["turned.pt", "classes"]),
        (["--average", "a.pt", "models/demo.pt"], ["different networks", "ensemble"]),
        (["--average", "a.pt", "b.pt", "--weights", "a.pt"], ["both"]),
        (["--weights", "a.pt", "models/demo.pt"], ["no class of the first"]),
    ],
)
def test_what_does_not_go_together_is_said(files, toy, tmp_path, capsys, words, told):
    folder = Path(files[0]).parent
    words = [str(folder / word) if (folder / word).is_file() else word for word in words]
    assert run_script(lambda: val.main([*words, "--data", str(toy), "--project", str(tmp_path)])) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1 and all(word in message for word in told), message
    with pytest.raises(UserError):
        average([files[0], files[2]])
