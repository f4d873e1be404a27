"""COCO jsons: good, odd, broken; names from the file; crowds in training and evaluation."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from data.definition.dataset_yaml import load_dataset_yaml
from data.index.index import Index, build_index
from data.loading.dataset import TrainDataset
from utils.config.schema import Hyp
from utils.errors import UserError
from utils.evaluation.coco import coco_results, coco_scores


def annotation(k: int, image: object, category: object = 5, bbox: object = (8, 6, 40, 30), **more: object) -> dict:
    return {"id": k, "image_id": image, "category_id": category, "bbox": bbox, "area": 1200, "iscrowd": 0} | more


IMAGES = [{"id": 7, "file_name": "a.jpg", "height": 60, "width": 80}, {"id": 9, "file_name": "b.jpg"}]
CATEGORIES = [{"id": 90, "name": "dog"}, {"id": 5, "name": "cat"}]


def dataset(root: Path, content: object, names: str = "names: [cat, dog]") -> Path:
    (root / "train").mkdir(parents=True)
    (root / "annotations").mkdir()
    for name in "abc":
        Image.new("RGB", (80, 60), (9, 99, 200)).save(root / f"train/{name}.jpg")
    text = content if isinstance(content, str) else json.dumps(content)
    (root / "annotations/instances_train.json").write_text(text)
    (root / "data.yaml").write_text(f"train: annotations/instances_train.json\nval: train\n{names}\n")
    return root / "data.yaml"


def read(root: Path, names: str = "names: [cat, dog]", **parts: object) -> Index:
    content = {"images": IMAGES, "categories": CATEGORIES, "annotations": [annotation(1, 7)]} | parts
    return build_index(load_dataset_yaml(dataset(root, content, names)), "train")


def test_names_come_from_the_json_in_order_of_id(tmp_path):
    index = read(tmp_path, names="")
    assert index.names == ["cat", "dog"] and index.category_ids == [5, 90] and index.classes.tolist() == [0]
    again = read(tmp_path / "nc", names="nc: 2")
    assert again.names == ["cat", "dog"]


def test_a_class_that_only_one_side_knows(tmp_path):
    index = read(tmp_path, "names: [owl, cat]")
    assert index.classes.tolist() == [1] and index.category_ids == [91, 5]
    assert ["category 'dog' is not under 'names'" in p.message for p in index.problems] == [True]


KEPT = {  # what is odd about the json: (changes, boxes left, words of the problem or None)
    "sparse ids": ({"categories": [{"id": 10**9, "name": "cat"}], "annotations": [annotation(1, 7, 10**9)]}, 1, None),
    "ids as text": (
        {"images": [{"id": "7", "file_name": "a.jpg"}], "annotations": [annotation(1, 7), annotation(2, "7")]},
        2,
        None,
    ),
    "ids that are names": (
        {"images": [{"id": "x", "file_name": "a.jpg"}], "annotations": [annotation(1, "x")]},
        1,
        "no whole numbers",
    ),
    "dangling image": ({"annotations": [annotation(1, 7), annotation(2, 8)]}, 1, "image_id 8, which 'images' lacks"),
    "dangling category": (
        {"annotations": [annotation(1, 7), annotation(2, 7, 6), annotation(3, 7, 6)]},
        1,
        "2 annotations of category_id 6, which 'categories' lacks",
    ),
    "no image_id": ({"annotations": [annotation(1, 7), {"id": 2}]}, 1, "image_id None"),
    "no mapping": ({"annotations": [annotation(1, 7), 5, [1]]}, 1, "no mapping"),
    "wrong size": (
        {
            "images": [IMAGES[0] | {"height": 120, "width": 160}],
            "annotations": [annotation(1, 7, bbox=[16, 12, 80, 60])],
        },
        1,
        "the json says 160x120.*80x60 pixels; boxes are scaled",
    ),
    "swapped size": ({"images": [IMAGES[0] | {"height": 80, "width": 60}]}, 1, "upright picture"),
    "size of zero": ({"images": [IMAGES[0] | {"height": 0, "width": -3}]}, 1, None),
    "huge size": ({"images": [IMAGES[0] | {"height": 10**400, "width": 1e300}]}, 1, None),
    "twice an image id": ({"images": [*IMAGES, IMAGES[0] | {"file_name": "c.jpg"}]}, 1, "id 7 is there twice"),
    "twice a picture": (
        {"images": [*IMAGES, {"id": 11, "file_name": "a.jpg"}], "annotations": [annotation(1, 7), annotation(2, 11)]},
        2,
        "a.jpg is there twice",
    ),
    "no file_name": ({"images": [*IMAGES, {"id": 12}, 3]}, 1, "entry 2 of 'images' has no id or no file_name"),
    "category twice": (
        {"categories": [*CATEGORIES, {"id": 6, "name": "cat"}], "annotations": [annotation(1, 7), annotation(2, 7, 6)]},
        2,
        r"several ids, \[5, 6\]",
    ),
    "category id twice": ({"categories": [*CATEGORIES, {"id": 5, "name": "cow"}]}, 1, "'cat' is used, not 'cow'"),
    "category without name": ({"categories": [*CATEGORIES, {"id": 6}, 4]}, 1, "entry 2 of 'categories'"),
    "area missing": ({"annotations": [{k: v for k, v in annotation(1, 7).items() if k != "area"}]}, 1, None),
    "area huge": ({"annotations": [annotation(1, 7, area=10**400)]}, 1, None),
    "a rounding outside": ({"annotations": [annotation(1, 7, bbox=[40, 30, 40.4, 30.01])]}, 1, None),
    "far outside": (
        {"annotations": [annotation(1, 7, bbox=[40, 30, 60, 30])]},
        1,
        "reaches out of the picture.*clipped",
    ),
    "backslashes": ({"images": [{"id": 7, "file_name": "..\\train\\a.jpg"}]}, 1, None),
    "gone": ({"images": [*IMAGES, {"id": 13, "file_name": "gone.jpg"}]}, 1, "no such file"),
}


@pytest.mark.parametrize("name", KEPT)
def test_odd_jsons_are_read_and_said(tmp_path, name):
    changes, boxes, words = KEPT[name]
    index = read(tmp_path, **changes)
    assert len(index.classes) == boxes and (index.classes == 0).all()
    assert bool(index.problems) == (words is not None), index.problems
    if words:
        assert any(re.search(words, str(p)) for p in index.problems), index.problems
    if name != "far outside" and name != "a rounding outside":
        np.testing.assert_allclose(index.boxes[0], [28 / 80, 21 / 60, 0.5, 0.5], rtol=1e-6)
    assert np.isfinite(index.area).all() and (index.boxes[:, 2:] > 0).all()


@pytest.mark.parametrize(
    "bbox",
    [
        None,
        [1, 2, 3],
        "box",
        [0, 0, 0, 5],
        [0, 0, -4, 5],
        [90, 0, 5, 5],
        [-9, 0, 5, 5],
        [1e308] * 4,
        [10**400] * 4,
        [{}] * 4,
    ]
    + [[float("nan"), 0, 1, 1], [0, 0, float("inf"), 1]],
)
def test_bad_boxes_are_left_out_one_by_one(tmp_path, bbox):
    index = read(tmp_path, annotations=[annotation(1, 7), annotation(2, 7, bbox=bbox), annotation(3, 9)])
    (problem,) = index.problems
    assert len(index.classes) == 2 and "annotation 2 of a.jpg: bbox" in problem.message and len(str(problem)) < 400


WHOLE = json.dumps({"images": IMAGES, "categories": CATEGORIES, "annotations": [annotation(1, 7)]})
HOPELESS = {
    "": "not a COCO instances json",
    WHOLE[: len(WHOLE) // 2]: "Is it complete",
    "[1, 2]": "'images' is NoneType, no list",
    "[" * 100_000: "not a COCO instances json",
    '{"images": ' + "9" * 5000 + "}": "not a COCO instances json",
    '{"images": 3, "categories": [], "annotations": []}': "'images' is int, no list",
    WHOLE.replace('"annotations"', '"labels"'): "'annotations' is NoneType, no list",
    WHOLE.replace('"cat"', '"fox"').replace('"dog"', '"owl"'): "No category.*'fox'.*leave 'names' out",
    WHOLE.replace('"file_name"', '"name"'): "'images' has no usable entry",
    WHOLE.replace(".jpg", ".bmp"): "were not found.*Looked in",
    WHOLE.replace('"iscrowd": 0', '"iscrowd": 1'): "all 1 boxes.*are crowds",
    WHOLE.replace('"category_id": 5', '"category_id": 4'): "no labels at all.*category_id 4",
}


@pytest.mark.parametrize("text", HOPELESS, ids=lambda t: t[:20] + str(len(t)))
def test_hopeless_jsons_are_refused(tmp_path, text):
    with pytest.raises(UserError) as e:
        build_index(load_dataset_yaml(dataset(tmp_path, text)), "train")
    assert re.search(f"(?s){HOPELESS[text]}", str(e.value)) and len(str(e.value)) < 1500


def test_crowds_are_not_trained_on_and_scored_as_coco_does(tmp_path):
    crowd = annotation(
        2, 9, bbox=[0, 0, 60, 60], iscrowd=1, area=3600, segmentation={"counts": [0, 4800], "size": [60, 80]}
    )
    index = read(tmp_path, annotations=[annotation(1, 7), crowd])
    hyp = Hyp(mosaic=0.0, fliplr=0.0, epochs=1, imgsz=80)
    data = TrainDataset(index, hyp, 80)
    assert sorted(len(data[0, p]["cls"]) for p in range(2)) == [0, 1]

    found = {  # a hit, one inside the crowd (neither hit nor miss), one beside everything
        7: [[8, 6, 48, 36, 0.9, 0]],
        9: [[10, 10, 30, 30, 0.8, 0], [62, 0, 79, 50, 0.7, 0]],
    }
    by_row = {row: np.array(found[int(k)], np.float32) for row, k in enumerate(index.image_ids)}
    ours = coco_scores(index, coco_results(index, by_row))
    truth = COCO(str(tmp_path / "annotations/instances_train.json"))
    rows = [
        {"image_id": k, "category_id": 5, "bbox": [x1, y1, x2 - x1, y2 - y1], "score": s}
        for k, boxes in found.items()
        for x1, y1, x2, y2, s, _ in boxes
    ]
    theirs = COCOeval(truth, truth.loadRes(rows), "bbox")
    theirs.evaluate(), theirs.accumulate(), theirs.summarize()
    assert ours.metrics["val/mAP50-95"] == pytest.approx(theirs.stats[0])


def test_a_json_and_a_folder_in_one_split(tmp_path):
    content = {"images": IMAGES, "categories": CATEGORIES, "annotations": [annotation(1, 7)]}
    file = dataset(tmp_path, content)
    (tmp_path / "train/c.txt").write_text("1 0.5 0.5 0.2 0.2")
    text = file.read_text().replace("train: ann", "train: [train, ann").replace(".json", ".json]")
    file.write_text(text)
    index = build_index(load_dataset_yaml(file), "train")
    assert [Path(p).name for p in index.paths] == ["a.jpg", "b.jpg", "c.jpg"] and index.classes.tolist() == [0, 1]
    assert index.image_ids.tolist() == [1, 2, 4] or len(set(index.image_ids.tolist())) == 3
    assert sum("two sources of this split have it" in p.message for p in index.problems) == 2


@pytest.mark.parametrize("corners", [True, False])
def test_corners_in_place_of_width_and_height_are_named_once(tmp_path, corners):
    rng = np.random.default_rng(0)
    low, size = rng.integers(0, (50, 40), (40, 2)), rng.integers(5, (30, 20), (40, 2))
    boxes = np.concatenate([low, low + size if corners else size], 1).tolist()
    index = read(tmp_path, annotations=[annotation(k, (7, 9)[k % 2], bbox=box) for k, box in enumerate(boxes, 1)])
    causes = [p.message for p in index.problems if p.kind == "cause"]
    assert len(causes) == corners and all("[x1, y1, x2 - x1, y2 - y1]" in text for text in causes)
    assert index.problems or not corners
