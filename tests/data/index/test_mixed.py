"""Data sets that a dataset yaml lists: classes joined by name, a share drawn for each epoch; a second set scored."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

import train
import val
from data.definition.config import DatasetConfig
from data.definition.dataset_yaml import load_dataset_yaml
from data.definition.listed import left_out_classes
from data.index.folds import count_training, open_parts
from data.index.identity import identify, traits
from data.index.index import Index, build_index
from data.index.subset import subset
from data.loading.loader import build_train_loader
from data.loading.order import epoch_order, picture_weights
from data.report.main import main as report
from tests.data.formats.test_voc import devkit
from tests.data.index.test_folds import as_coco
from tests.data.index.test_index import make_dataset
from tests.helpers.runs import assert_same, replaced, run_train, state_of
from utils.config.schema import Hyp
from utils.errors import UserError
from utils.run.log import read_metrics, read_scalars


def listing(file: Path, **content: object) -> DatasetConfig:
    """A dataset yaml, read."""
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    return load_dataset_yaml(file)


def boxes_by_name(index: Index) -> dict[str, list[tuple[str, list[float]]]]:
    """File name -> class name and place of each box."""
    return {
        Path(path).name: [(index.names[index.classes[k]], index.boxes[k].tolist()) for k in range(*_ends(index, i))]
        for i, path in enumerate(index.paths)
    }


def _ends(index: Index, i: int) -> tuple[int, int]:
    return index.rows(i).start, index.rows(i).stop


@pytest.fixture
def old(toy, tmp_path) -> Path:
    """The toy world (20 + 8 pictures) as an older data set of its own."""
    shutil.copytree(toy.parent, tmp_path / "old")
    return tmp_path / "old/toy.yaml"


@pytest.fixture
def new(tmp_path) -> Path:
    """Three pictures with other classes, one of them known to the old data set under another number."""
    labels = {"p": "0 .5 .5 .2 .2\n1 .3 .3 .1 .1\n", "q": "1 .5 .5 .4 .4\n", "r": ""}
    return make_dataset(tmp_path / "new", labels, names=["spoon", "Key"])


def test_classes_are_joined_by_name_whatever_their_number_and_format(new, old, tmp_path):
    config = load_dataset_yaml(old)
    as_coco(old.parent, "train", build_index(config, "train"), 50)
    as_json = old.parent / "json.yaml"
    as_json.write_text("train: annotations/train.json\nnames: [bolt, leaf, key, mug]\n")
    voc = tmp_path / "voc.yaml"
    voc.write_text(f"train: {devkit(tmp_path)}\n")
    alone = boxes_by_name(build_index(load_dataset_yaml(new), "train")) | boxes_by_name(build_index(config, "train"))
    xmls = boxes_by_name(build_index(load_dataset_yaml(voc), "train"))

    mixed = listing(tmp_path / "mixed.yaml", train=["new/data.yaml", str(as_json), "voc.yaml"], val="new/data.yaml")
    assert mixed.names == ["spoon", "Key", "bolt", "leaf", "mug", "cat", "dog", "owl"], "by first appearance"
    found = boxes_by_name(build_index(mixed, "train"))
    assert found.keys() == alone.keys() | xmls.keys()
    for name, boxes in (alone | xmls).items():
        named = [(word.replace("key", "Key"), place) for word, place in boxes]
        assert [word for word, _ in found[name]] == [word for word, _ in named], name
        np.testing.assert_allclose([p for _, p in found[name]], [p for _, p in named], atol=1e-5)

    names = ["mug", "owl", "key", "spoon", "cat", "dog", "leaf", "bolt"]
    ordered = listing(tmp_path / "ordered.yaml", train=mixed_entries(mixed), val="new/data.yaml", names=names)
    again = boxes_by_name(build_index(ordered, "train"))
    assert ordered.names == names and not left_out_classes(ordered)
    assert {k: [(w.lower(), p) for w, p in v] for k, v in again.items()} == {
        k: [(w.lower(), p) for w, p in v] for k, v in found.items()
    }


def mixed_entries(config: DatasetConfig) -> list[str]:
    return [str(place.config.path) for place in config.listed("train")]


def test_classes_that_names_lack_lose_their_boxes_and_are_said(new, old, tmp_path, caplog):
    config = listing(tmp_path / "m.yaml", train=[str(new), str(old)], val=str(old), names=["key", "bolt"])
    index = build_index(config, "train")
    assert index.n == 23 and index.names == ["key", "bolt"] and not index.problems
    (bolts, keys) = (sum(w == n for v in boxes_by_name(index).values() for w, _ in v) for n in ("bolt", "key"))
    theirs = [w for v in boxes_by_name(build_index(load_dataset_yaml(old), "train")).values() for w, _ in v]
    assert (bolts, keys) == (theirs.count("bolt"), theirs.count("key") + 2)
    caplog.set_level("INFO")
    open_parts(config, Hyp())
    (said,) = [r.message for r in caplog.records if "toy.yaml" in r.message]
    assert "2 of its 4 classes" in said and said.endswith("mug, leaf")


def test_an_epoch_has_its_share_of_each_and_over_time_every_picture_equally_often(new, old, tmp_path):
    entries = [str(new), {"data": str(old), "part": 0.3}]
    index = build_index(listing(tmp_path / "m.yaml", train=entries, val=str(new)), "train")
    assert index.parts.sizes() == [3, 20] and index.parts.drawn() == [3, 6] and index.per_epoch == 9
    epochs = [epoch_order(4, e, 9, None, index.parts) for e in range(10)]
    counts = np.stack([np.bincount(order, minlength=23) for order in epochs])
    assert (counts[:, :3] == 1).all() and (counts[:, 3:].sum(1) == 6).all()
    assert (counts[:, 3:].sum(0) == 3).all(), "60 draws of 20 pictures"
    assert not all(np.array_equal(order, epochs[0]) for order in epochs)
    assert not np.array_equal(epochs[0], epoch_order(5, 0, 9, None, index.parts)), "of the seed"
    twice = build_index(listing(tmp_path / "2.yaml", train=[{"data": str(new), "part": 2.5}], val=str(new)), "train")
    assert twice.per_epoch == 8
    counts = [np.bincount(epoch_order(0, e, 8, None, twice.parts), minlength=3).tolist() for e in range(3)]
    assert all(set(c) <= {2, 3} for c in counts) and np.sum(counts, 0).tolist() == [8, 8, 8]


def test_the_drawn_samples_are_the_same_for_all_batches_workers_and_ranks(new, old, tmp_path):
    entries = [str(new), {"data": str(old), "part": 0.7}]
    index = build_index(listing(tmp_path / "m.yaml", train=entries, val=str(new)), "train")
    hyp = Hyp(imgsz=32, epochs=3, close_mosaic=0, mixup=0.3)

    def samples(batch: int, workers: int, ranks: int = 1) -> list[list[np.ndarray]]:
        loaders = [
            build_train_loader(index, hyp, batch=batch, workers=workers, rank=r, world_size=ranks) for r in range(ranks)
        ]
        made = []
        for epoch in (1, 2):
            for parts in zip(*(loader.epoch(epoch) for loader in loaders), strict=True):
                made += [img.copy() for part in parts for img in part["img"].numpy()]
        for loader in loaders:
            loader.close()
        return made

    one = samples(17, 0)
    assert len(one) == 2 * 17
    np.testing.assert_array_equal(one, samples(5, 2))
    apart = samples(16, 0, ranks=2)  # the last batch of an epoch is filled up from its start
    np.testing.assert_array_equal(one[:17], apart[:17])


def test_balance_fraction_and_classes_keep_to_the_parts(new, old, tmp_path):
    entries = [str(new), {"data": str(old), "part": 0.5}]
    file = tmp_path / "m.yaml"
    index = build_index(listing(file, train=entries, val=str(new)), "train")
    weights = picture_weights(index, 0.0001)
    drawn = np.stack([np.bincount(epoch_order(0, e, 13, weights), minlength=23) for e in range(40)])
    assert (drawn.sum(1) == 13).all() and weights.sum() == pytest.approx(1)
    assert drawn[:, :3].mean() == pytest.approx(1, abs=0.05) and drawn[:, 3:].mean() == pytest.approx(0.5, abs=0.05)
    half = subset(index, Hyp(fraction=0.5), training=True)
    assert half.n == 12 and sum(half.parts.sizes()) == 12 and half.per_epoch == sum(half.parts.drawn())
    keys = subset(index, Hyp(classes=["Key"]))
    assert keys.per_epoch == 13 and keys.names == ["Key"]
    assert count_training(Hyp(data=str(file))) == (13, True), "of the stored index"
    other = listing(tmp_path / "n.yaml", train=entries, val=str(new))
    assert count_training(Hyp(data=str(other.path))) == (13, False), "files counted"
    with pytest.raises(UserError, match="fold: .* draws a part of .*toy.yaml"):
        open_parts(other, Hyp(fold="1/2"))
    whole = listing(tmp_path / "w.yaml", train=[str(new), str(old)], val=str(old))
    assert sum(open_parts(whole, Hyp(fold=f"{k}/2"))[1].n for k in (1, 2)) == 31


def test_a_changed_label_or_yaml_of_a_listed_set_is_noticed(new, old, tmp_path):
    file = tmp_path / "m.yaml"
    content = {"train": [str(new), {"data": str(old), "part": 0.5}], "val": str(new)}
    before = build_index(listing(file, **content), "train")
    (new.parent / "labels/r.txt").write_text("0 .5 .5 .1 .1\n")
    assert len(build_index(load_dataset_yaml(file), "train").boxes) == len(before.boxes) + 1
    new.write_text(new.read_text().replace("spoon", "fork"))
    assert build_index(load_dataset_yaml(file), "train").names[0] == "fork"
    content["train"][1]["part"] = 0.25
    assert build_index(listing(file, **content), "train").parts.drawn() == [3, 5]


def test_identity_is_of_content_and_parts_wherever_the_sets_lie(new, old, tmp_path):
    def known(root: Path, part: float = 0.5) -> tuple[dict, str]:
        entries = ["new/data.yaml", {"data": "old/toy.yaml", "part": part}]
        config = listing(root / "m.yaml", train=entries, val="new/data.yaml")
        also = build_index(load_dataset_yaml(root / "old/toy.yaml"), "val")
        parts = (build_index(config, split) for split in ("train", "val"))
        return traits(config.roots(), *parts, also), identify(config).content

    here = known(tmp_path)
    shutil.copytree(tmp_path, tmp_path.parent / f"{tmp_path.name}-moved")
    assert known(tmp_path.parent / f"{tmp_path.name}-moved") == here
    less = known(tmp_path, 0.25)
    assert less[1] != here[1]
    assert {k for k in here[0] if here[0][k] != less[0][k]} == {"train parts"}


def test_a_picture_of_two_sets_is_used_once_and_leaks_are_found(old, tmp_path, capsys):
    (old.parent / "both.yaml").write_text("train: images/train\nval: images/train\nnames: [mug, key, leaf, bolt]\n")
    config = listing(tmp_path / "m.yaml", train=["old/toy.yaml", "old/both.yaml"], val="old/both.yaml")
    index = build_index(config, "train")
    assert index.n == 20 and {p.kind for p in index.problems} == {"repeated"}
    counts = report([str(config.path), "--noplots", "--project", str(tmp_path / "out")])
    assert counts["train"].pictures == 20 and "LEAK: 20 pictures" in capsys.readouterr().out
    entries = ["old/toy.yaml", {"data": "toy-none/x.yaml"}]
    listing(tmp_path / "p.yaml", train=[{"data": "old/toy.yaml", "part": 0.1}], val="old/toy.yaml")
    report([str(tmp_path / "p.yaml"), "--noplots", "--project", str(tmp_path / "out")])
    assert any(line.split()[-2:] == ["2", "0"] for line in capsys.readouterr().out.splitlines() if "an epoch" in line)
    with pytest.raises(UserError, match=r"lists toy-none/x.yaml, which does not exist"):
        listing(tmp_path / "q.yaml", train=entries, val="old/toy.yaml")


def test_a_set_without_any_usable_box_is_said(new, old, tmp_path):
    shutil.rmtree(old.parent / "labels")
    index = build_index(listing(tmp_path / "m.yaml", train=[str(new), str(old)], val=str(new)), "train")
    assert [p.kind for p in index.problems] == ["cause"] and "toy.yaml: none of its 20 pictures" in str(
        index.problems[0]
    )


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"data": "new/data.yaml", "part": 0}, "'part: 0' of new/data.yaml"),
        ({"data": "new/data.yaml", "part": -0.5}, "'part: -0.5'"),
        ({"data": "new/data.yaml", "part": 101}, "at most 100"),
        ({"data": "new/data.yaml", "part": "half"}, "'part: half'"),
        ({"data": "new/data.yaml", "part": True}, "'part: True'"),
        ({"data": "new/data.yaml", "share": 0.5}, "no key 'share'"),
        ({"part": 0.5}, "needs 'data'"),
        ("new/date.yaml", "does not exist; looked for: .*Did you mean 'data.yaml'"),
        ("m.yaml", "lists itself: m.yaml -> m.yaml"),
        ("round.yaml", "lists itself: m.yaml -> round.yaml -> m.yaml"),
        ("valless.yaml", "valless.yaml has no 'train'"),
        ("empty.yaml", "no pictures in .*'train' of .*empty.yaml"),
    ],
)
def test_wrong_entries_are_named(new, tmp_path, entry, message):
    (tmp_path / "round.yaml").write_text("train: m.yaml\nval: m.yaml\nnames: [a]\n")
    (tmp_path / "valless.yaml").write_text("val: new/images\nnames: [spoon, Key]\n")
    (tmp_path / "nothing").mkdir()
    (tmp_path / "empty.yaml").write_text("train: nothing\nval: nothing\nnames: [spoon]\n")
    with pytest.raises(UserError, match=message):
        build_index(listing(tmp_path / "m.yaml", train=entry, val="new/data.yaml"), "train")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"train": ["new/data.yaml", "./new/data.yaml"], "val": "new/data.yaml"}, "twice"),
        ({"train": "new/data.yaml", "val": {"data": "new/data.yaml", "part": 0.5}}, "only 'train' draws a part"),
        ({"train": "new/data.yaml", "val": "new/data.yaml", "names": ["fork"]}, "none of the classes there"),
        ({"train": "new/data.yaml", "val": "new/data.yaml", "nc": 3}, "nc is 3, but there are 2"),
        ({"train": ["new/data.yaml", "new/images"], "val": "new/data.yaml"}, "names no classes"),
    ],
)
def test_impossible_lists(new, tmp_path, content, message):
    with pytest.raises(UserError, match=message):
        listing(tmp_path / "m.yaml", **content)


def test_lists_may_be_nested_and_stand_beside_folders(new, old, tmp_path):
    listing(tmp_path / "inner.yaml", train=[{"data": str(old), "part": 0.5}, str(new)], val=str(old))
    content = {"train": ["new/images", {"data": "inner.yaml", "part": 0.4}], "val": "new/images"}
    config = listing(tmp_path / "m.yaml", **content, names=["spoon", "key", "bolt"])
    index = build_index(config, "train")
    assert sorted(zip(index.parts.names, index.parts.shares, strict=True)) == [
        ("data.yaml", 0.4), ("m.yaml", 1), ("toy.yaml", 0.2)
    ]  # fmt: skip
    assert index.n == 23, "pictures that the folder and the list share are used once"


@pytest.mark.slow
def test_the_second_set_is_scored_as_val_would_and_a_run_with_parts_resumes_exactly(
    toy_args, new, old, tmp_path, capsys
):
    entries = [str(new), {"data": str(old), "part": 0.4}]
    config = listing(tmp_path / "m.yaml", train=entries, val=str(old), names=["bolt", "spoon", "key", "leaf"])
    words = replaced(replaced(toy_args, "--data", config.path), "--epochs", 2)
    words = [*(w for w in words if w != "--noplots"), "--val-also", str(old)]
    whole = run_train(*words, project=tmp_path, name="whole")
    said = capsys.readouterr().out
    assert (
        said.count("1 of the 4 classes of") == 1 and "an epoch has 3 of the 3 of data.yaml, 8 of the 20 of toy" in said
    )
    rows = read_metrics(whole / "metrics.csv")
    assert all(0 <= row["also/mAP50-95"] <= row["also/mAP50"] for row in rows)
    assert f"also mAP50-95 {rows[-1]['also/mAP50-95']:.3f}" in said
    tags = read_scalars(whole, ("also/",))
    assert tags["also/mAP50-95"] == pytest.approx([row["also/mAP50-95"] for row in rows])

    scores = val.main([
        *("--weights", str(whole), "--data", str(old), "--classes", "key,leaf,bolt", "--batch", "8", "--noplots"),
        *("--device", "cpu", "--workers", "0", "--project", str(tmp_path / "val")),
    ])  # fmt: skip
    assert (whole / "mAP.png").exists()
    closing = next(line for line in said.splitlines() if line.startswith("best "))
    assert f"also {scores['val/mAP50-95']:.4f}" in closing

    words = [*words, "--noplots"]
    halves = run_train(*words, "--stop-after", 1, project=tmp_path, name="halves")
    train.main(["--resume", str(halves)])
    assert_same(state_of(halves)["model"], state_of(whole)["model"])
    stopped = run_train(*words, "--stop-after", 1, project=tmp_path, name="stopped")
    entries[1]["part"] = 0.8
    listing(config.path, train=entries, val=str(old), names=config.names)
    with pytest.raises(UserError, match="train parts: 3 x 1, 20 x 0.4 at the start, 3 x 1, 20 x 0.8 now"):
        train.main(["--resume", str(stopped)])


def test_a_second_set_without_a_common_class_is_refused(toy_args, new, tmp_path):
    other = make_dataset(tmp_path / "other", {"a": "0 .5 .5 .2 .2\n"}, names=["horse"])
    for more in ([], ["--plan"]):
        with pytest.raises(UserError, match=r"val_also: none of the classes of .* \(horse\) is one of those"):
            train.main([*toy_args, "--val-also", str(other), *more, "--project", str(tmp_path / "runs")])
    assert not (tmp_path / "runs/exp").exists()
