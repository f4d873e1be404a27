"""Folds: by content and class, the same for every run that names them; a fold is a whole data set of its own."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import train
import val
from data.definition.config import DatasetConfig
from data.definition.dataset_yaml import load_dataset_yaml
from data.index.folds import count_training, deal, dealt_splits, describe, open_part, open_parts, stratify
from data.index.identity import identify
from data.index.index import Index, build_index, pooled
from data.loading.plan import count_for
from data.pictures.cache import open_pictures
from tests.data.loading.test_order import index_of
from tests.helpers.runs import assert_same, replaced, run_train
from utils.boxes import xywhn_to_xyxy
from utils.config.options import parse_args
from utils.config.schema import Hyp, save_hyp
from utils.errors import UserError


def pairs_of(classes: list[set[int]]) -> np.ndarray:
    """(2, p) picture and class."""
    return np.array([(i, c) for i, found in enumerate(classes) for c in sorted(found)], int).reshape(-1, 2).T


@given(st.lists(st.integers(-1, 4), min_size=2, max_size=60), st.integers(2, 6), st.integers(0, 9))
def test_one_class_a_picture_is_spread_as_evenly_as_whole_numbers_allow(classes, folds, seed):
    has = pairs_of([{c} - {-1} for c in classes])
    fold = stratify(np.arange(len(classes)), has, 5, folds, seed)
    for c in range(-1, 5):
        counts = np.bincount(fold[np.array(classes) == c], minlength=folds)
        assert c == -1 or counts.max() - counts.min() <= 1
    counts = np.bincount(fold, minlength=folds)
    assert fold.min() >= 0 and len(counts) == folds and counts.max() - counts.min() <= 1


def test_several_classes_a_picture_are_spread_better_than_by_chance():
    rng = np.random.default_rng(0)
    has = np.argwhere(rng.random((300, 12)) < np.geomspace(0.6, 0.01, 12)).T

    def unevenness(fold: np.ndarray) -> float:
        table = np.zeros((12, 5))
        np.add.at(table, (has[1], fold[has[0]]), 1)
        return float(table.std(1).sum())

    dealt = [unevenness(stratify(np.arange(300), has, 12, 5, seed)) for seed in range(5)]
    chance = [unevenness(rng.permutation(300) % 5) for _ in range(50)]
    assert max(dealt) < 0.5 * min(chance)


def test_what_belongs_together_stays_and_counts_with_its_weight():
    unit = np.array([0, 0, 0, 0, 1, 2, 3, 4])  # four copies, then four pictures by themselves
    fold = stratify(unit, pairs_of([{0}] * 8), 1, 2, 0)
    assert fold.tolist() == [fold[0], *[1 - fold[0]] * 4]


@pytest.fixture
def world(toy, tmp_path) -> Path:
    """The toy's yaml beside its pictures; two of train lie in val once more."""
    root = tmp_path / "world"
    shutil.copytree(toy.parent, root)
    for kind, suffix in (("images", "jpg"), ("labels", "txt")):
        for number in (0, 1):
            shutil.copy(root / f"{kind}/train/{number:04d}.{suffix}", root / f"{kind}/val/copy{number}.{suffix}")
    return root / "toy.yaml"


def as_coco(root: Path, split: str, index: Index, first_id: int) -> None:
    """Write annotations/{split}.json."""
    images, annotations = [], []
    for i, path in enumerate(index.paths):
        h, w = index.shapes[i].tolist()
        images.append({"id": first_id + i, "file_name": Path(path).name, "height": h, "width": w})
        for row in range(*index.rows(i).indices(len(index.boxes))):
            x1, y1, x2, y2 = xywhn_to_xyxy(index.boxes[row : row + 1].astype(float), w, h)[0].tolist()
            box = {"id": len(annotations) + 1, "image_id": first_id + i, "bbox": [x1, y1, x2 - x1, y2 - y1]}
            annotations.append(box | {"category_id": 10 + int(index.classes[row]), "iscrowd": 0})
    content = {"images": images, "annotations": annotations}
    content["categories"] = [{"id": 10 + c, "name": name} for c, name in enumerate(index.names)]
    (root / "annotations").mkdir(exist_ok=True)
    (root / "annotations" / f"{split}.json").write_text(json.dumps(content))


def test_folds_take_every_picture_once_and_keep_copies_together(world):
    config = load_dataset_yaml(world)
    whole, _ = pooled([build_index(config, "train"), build_index(config, "val")])
    assert whole.n == 20 + 8 + 2 and "2 pictures have the content" in describe(deal(config, Hyp(fold="1/4")), 4, [])[0]
    seen, owner = [], {}
    for k in range(1, 5):
        train_part, val_part = open_parts(config, Hyp(fold=f"{k}/4"))
        assert sorted([*train_part.paths, *val_part.paths]) == sorted(whole.paths)
        assert not set(train_part.paths) & set(val_part.paths)
        seen += val_part.paths
        owner |= {Path(path).read_bytes(): k for path in val_part.paths}
        assert not {Path(path).read_bytes() for path in train_part.paths} & {key for key in owner if owner[key] == k}
        place = {path: i for i, path in enumerate(whole.paths)}
        for part in (train_part, val_part):
            for i, path in enumerate(part.paths):
                j = place[path]
                np.testing.assert_array_equal(part.boxes[part.rows(i)], whole.boxes[whole.rows(j)])
                np.testing.assert_array_equal(part.classes[part.rows(i)], whole.classes[whole.rows(j)])
                assert part.image_ids[i] == whole.image_ids[j] and (part.shapes[i] == whole.shapes[j]).all()
    assert sorted(seen) == sorted(whole.paths)


def test_every_run_sees_the_same_folds_whatever_else_it_is_told(world):
    config = load_dataset_yaml(world)
    first = [str(path) for path in open_parts(config, Hyp(fold="1/3"))[1].paths]
    for told in ({"seed": 5}, {"classes": ["mug"]}, {"single_cls": True}, {"classes": ["mug"], "single_cls": True}):
        assert list(open_parts(config, Hyp(fold="1/3", **told))[1].paths) == first, told
    part, evaluated = open_parts(config, Hyp(fold="1/3", fraction=0.5))
    assert list(evaluated.paths) == first and not set(part.paths) & set(first)
    assert part.n == round(0.5 * open_parts(config, Hyp(fold="1/3"))[0].n)
    assert list(open_parts(config, Hyp(fold="1/3", fold_seed=1))[1].paths) != first
    assert list(open_part(config, "val", Hyp(fold="1/3")).paths) == first
    assert not set(open_part(config, "train", Hyp(fold="1/3")).paths) & set(first)


def test_without_val_folds_are_dealt_from_train_alone(world, caplog):
    whole = build_index(load_dataset_yaml(world), "train")
    world.write_text(yaml.safe_dump({k: v for k, v in yaml.safe_load(world.read_text()).items() if k != "val"}))
    config, seen = load_dataset_yaml(world), []
    for k in range(1, 4):
        train_part, val_part = open_parts(config, Hyp(fold=f"{k}/3"))
        assert sorted([*train_part.paths, *val_part.paths]) == sorted(whole.paths)
        seen += val_part.paths
    assert sorted(seen) == sorted(whole.paths)
    assert count_for(Hyp(data=str(world), fold="1/3"))[:2] == (open_parts(config, Hyp(fold="1/3"))[0].n, True)
    assert identify(config, splits=dealt_splits(config)).indexes.keys() == {"train"}
    with pytest.raises(UserError, match="has no 'val'"):
        count_for(Hyp(data=str(world)))


def test_formats_make_the_same_folds(toy, tmp_path):
    root = tmp_path / "world"
    shutil.copytree(toy.parent, root)
    config = load_dataset_yaml(root / "toy.yaml")
    for split, first_id in (("train", 1), ("val", 1000)):
        index = build_index(config, split)
        (root / f"{split}.txt").write_text("".join(f"{path}\n" for path in index.paths))
        as_coco(root, split, index, first_id)

    def folds_of(**splits: object) -> tuple[DatasetConfig, list[Index]]:
        file = root / f"{len(list(root.glob('*.yaml')))}.yaml"
        file.write_text(yaml.safe_dump({**splits, "names": ["mug", "key", "leaf", "bolt"]}))
        config = load_dataset_yaml(file)
        return config, [open_parts(config, Hyp(fold=f"{k}/3"))[1] for k in (1, 2, 3)]

    paths = [list(index.paths) for index in folds_of(train="images/train", val="images/val")[1]]
    lists = folds_of(train="train.txt", val="val.txt")[1]
    jsons, found = folds_of(train="annotations/train.json", val="annotations/val.json")
    mixed, both = folds_of(train="images/train", val="annotations/val.json")
    for indexes in (lists, found, both):
        assert [list(index.paths) for index in indexes] == paths
    assert found[0].category_ids == [10, 11, 12, 13] and val.numbered_by_json(jsons, "val", found[0])
    ids = {i for index in found for i in index.image_ids.tolist()}
    assert ids == {*range(1, 21), *range(1000, 1008)}, "those of the jsons"
    assert not val.numbered_by_json(mixed, "val", both[0])
    as_coco(root, "val", build_index(config, "val"), 1)  # numbers that the other json has too
    clash, found = folds_of(train="annotations/train.json", val="annotations/val.json")
    assert not val.numbered_by_json(clash, "val", found[0])
    assert len({i for index in found for i in index.image_ids.tolist()}) == 28


def test_the_same_pictures_as_train_and_val_are_no_obstacle(toy, tmp_path):
    root = tmp_path / "world"
    shutil.copytree(toy.parent, root)
    (root / "toy.yaml").write_text("train: images/train\nval: images/train\nnames: [mug, key, leaf, bolt]\n")
    part, evaluated = open_parts(load_dataset_yaml(root / "toy.yaml"), Hyp(fold="1/4"))
    assert part.n + evaluated.n == 20 and not set(part.paths) & set(evaluated.paths)


def test_pooling_a_picture_twice_keeps_it_once():
    whole, _ = pooled([index_of([[0], [1, 1], []], 2), index_of([[0], [1, 1], [], [1]], 2)])
    assert list(whole.paths) == [f"/{i}.jpg" for i in range(4)] and whole.offsets.tolist() == [0, 1, 3, 3, 4]
    assert whole.classes.tolist() == [0, 1, 1, 1]


def test_what_cannot_be_dealt_out_is_named(world, caplog):
    caplog.set_level("INFO")
    config = load_dataset_yaml(world)
    label = next(path for path in sorted((world.parent / "labels/train").iterdir()) if path.read_text().strip())
    for path in [*(world.parent / "labels/train").iterdir(), *(world.parent / "labels/val").iterdir()]:
        rows = [row for row in path.read_text().splitlines() if row.split()[0] != "3"]
        path.write_text("\n".join(rows + (["3 0.5 0.5 0.2 0.2"] if path == label else [])))
    open_parts(config, Hyp(fold="1/3"))
    (said,) = [line for line in caplog.messages if "fewer different pictures than folds" in line]
    assert "'bolt' (1)" in said and "mug" not in said
    caplog.clear()
    open_parts(config, Hyp(fold="1/3", classes=["mug", "key"]))
    assert not [line for line in caplog.messages if "fewer different" in line], "of a class that is not used"
    with pytest.raises(UserError, match="one of its parts has no box"):
        for k in (1, 2, 3):
            open_parts(config, Hyp(fold=f"{k}/3", classes=["bolt"]))
    with pytest.raises(UserError, match="28 different pictures together, which is less than 29"):
        open_parts(config, Hyp(fold="1/29"))


@pytest.mark.parametrize("fold", ["0/3", "4/3", "1/1", "1", "a/b", "1/2/3", "-1/3", 0.5, "²/3"])
def test_impossible_folds(fold):
    with pytest.raises(UserError, match="fold: "):
        parse_args([f"fold={fold}"])


def test_a_fold_as_it_is_written(tmp_path):
    hyp = parse_args(["--fold", "2/6"])[1]
    save_hyp(tmp_path / "a.yaml", hyp)
    assert hyp.fold == "2/6" and parse_args(["--hyp", str(tmp_path / "a.yaml")])[1] == hyp
    assert parse_args(["--fold", "02/6"])[1].fold == "2/6", "one spelling: runs are compared by it"


@pytest.mark.parametrize("told", [{}, {"classes": ["mug"]}, {"single_cls": True}])
def test_the_plan_counts_what_the_run_trains_on(world, told):
    hyp = Hyp(data=str(world), fold="2/3", **told)
    files = count_training(hyp)
    part, _ = open_parts(load_dataset_yaml(world), hyp)
    assert count_training(hyp) == (part.n, True)
    assert not files[1] and abs(files[0] - part.n) <= 1


def test_decoded_pictures_are_shared_by_all_folds(world, monkeypatch, tmp_path):
    monkeypatch.setenv("PREHEAT_CACHE", str(tmp_path / "cache"))
    config = load_dataset_yaml(world)
    for k in (1, 2, 3):
        for part in open_parts(config, Hyp(fold=f"{k}/3")):
            kept = open_pictures(part, 32, "disk", True)
            assert kept.cached == part.n
            for i in (0, part.n - 1):
                np.testing.assert_array_equal(kept[i], open_pictures(part, 32, "off", True)[i])
    (file,) = (tmp_path / "cache/pictures").glob("*.bin")
    half = open_pictures(part, 32, "disk", True, cache_gb=0.6 * file.stat().st_size / 2**30)
    assert 0 < half.cached < part.n
    for i in range(part.n):
        np.testing.assert_array_equal(half[i], open_pictures(part, 32, "off", True)[i])
    beside = open_pictures(part, 32, "disk", False, cache_gb=half.nbytes / 2**30, beside=[half])
    assert beside.cached == 0, "both count"


def test_a_fold_run_is_scored_again_by_val_and_goes_on(toy_args, toy, tmp_path, capsys):
    words = [*replaced(toy_args, "--epochs", 2), "--fold", "2/4"]
    folder = run_train(*words, project=tmp_path)
    deal_of = deal(load_dataset_yaml(toy), Hyp(fold="2/4"))
    sizes = {"train": int((deal_of.number != 1).sum()), "val": int((deal_of.number == 1).sum())}
    said = capsys.readouterr().out
    assert f"{sizes['train']} + {sizes['val']} pictures" in said
    assert json.loads((folder / "run.json").read_text())["pictures"] == sizes
    closing = next(line for line in said.splitlines() if line.startswith("best epoch"))

    common = ["--weights", folder, "--data", toy, "--noplots", "--device", "cpu", "--workers", 0]
    common += ["--batch", 8, "--project", tmp_path / "val"]
    scores = val.main(common)
    said = capsys.readouterr().out
    assert "as the weights were trained: " in said and "fold 2/4" in said and "warning" not in said
    assert f"mAP50-95 {scores['val/mAP50-95']:.4f}  mAP50 {scores['val/mAP50']:.4f}" in closing
    assert_same(val.main([*common, "--fold", "2/4"]), scores)
    val.main([*common, "--fold", "1/4"])
    assert "they may have learned from pictures that are scored" in capsys.readouterr().out
    val.main([*common, "--fold", "null"])
    assert "they may have learned from pictures that are scored" in capsys.readouterr().out
    moved = tmp_path / "moved.yaml"
    moved.write_text(f"path: {toy.parent}\n{toy.read_text()}")
    val.main([*replaced([*map(str, common)], "--data", moved)])
    assert "note: the weights were trained with fold 2/4" in capsys.readouterr().out

    halves = run_train(*words, "--stop-after", 1, project=tmp_path, name="halves")
    with pytest.raises(UserError, match="fold cannot change"):
        train.main(["--resume", str(halves), "--fold", "1/4"])
    capsys.readouterr()
    train.main(["--resume", str(halves)])
    assert closing.replace("/exp/", "/halves/") in capsys.readouterr().out
