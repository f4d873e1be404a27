"""COCO instances json -> rows: classes matched by name, crowds and areas kept, ids as sparse as they are."""

import json
import math
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data.formats import Problem, Rows
from utils.errors import UserError


@dataclass
class CocoFile:
    """A COCO instances json by picture."""

    file_names: list[str]
    image_ids: list[int]
    sizes: list[tuple[int, int] | None]  # height, width as the json says
    annotations: list[list[dict[str, Any]]]  # of each picture
    category_ids: list[int]  # of each class
    class_of: dict[int, int]  # category id -> class
    problems: list[Problem]


def read_coco(path: Path, names: list[str]) -> CocoFile:
    """Read a COCO instances json; its categories are matched to `names` by name."""
    try:
        content = json.loads(path.read_bytes())
        images, categories = content["images"], content["categories"]
        by_image: dict[int, list[dict[str, Any]]] = defaultdict(list)
        for annotation in content["annotations"]:
            by_image[annotation["image_id"]].append(annotation)
        problems: list[Problem] = []
        category_ids, class_of = _match_categories(categories, names, path, problems)
        sizes = [(int(i["height"]), int(i["width"])) if i.get("height") and i.get("width") else None for i in images]
        ids = [int(i["id"]) for i in images]
        for dangling in sorted(set(by_image) - set(ids), key=str)[:20]:
            problems.append(
                Problem(str(path), None, f"annotations of image_id {dangling}, which 'images' lacks; left out.")
            )
        file_names = [str(i["file_name"]).replace("\\", "/") for i in images]
        return CocoFile(file_names, ids, sizes, [by_image[i] for i in ids], category_ids, class_of, problems)
    except (KeyError, TypeError, ValueError) as e:  # ValueError: also a json that ends too early, or is not text
        raise UserError(
            f"{path} is not a COCO instances json ({type(e).__name__}: {e}). It needs 'images' (id, file_name), "
            f"'annotations' (image_id, category_id, bbox) and 'categories' (id, name)."
        ) from None


def _match_categories(
    categories: list[dict[str, Any]], names: list[str], path: Path, problems: list[Problem]
) -> tuple[list[int], dict[int, int]]:
    """Category id of each class (a free one where the json lacks the class), and class of each category id."""
    id_of = {str(c["name"]): int(c["id"]) for c in categories}
    if not set(id_of) & set(names):
        raise UserError(
            f"No category of {path} is named in the dataset yaml: the json has {sorted(id_of)[:10]}, the yaml has "
            f"{names[:10]}. Write the json's names under 'names'."
        )
    for name in sorted(set(id_of) - set(names)):
        problems.append(
            Problem(str(path), None, f"category '{name}' is not under 'names' in the yaml; its boxes are left out.")
        )
    unused = max(id_of.values()) + 1
    category_ids = []
    for name in names:
        category_ids.append(id_of.get(name, unused))
        unused += name not in id_of
    return category_ids, {id_of[name]: k for k, name in enumerate(names) if name in id_of}


def coco_rows(coco: CocoFile, i: int, hw: tuple[int, int], path: str) -> Rows:
    """Boxes of picture i of the json; hw: its size as found on disk, the json's own size going first."""
    height, width = coco.sizes[i] or hw
    problems, classes, boxes, area, crowd = [], [], [], [], []
    if (height, width) != tuple(hw):
        text = f"the json says {width}x{height}, {coco.file_names[i]} has {hw[1]}x{hw[0]} pixels; boxes are scaled."
        problems.append(Problem(path, None, text))
    for a in coco.annotations[i]:
        if a.get("category_id") not in coco.class_of:
            continue  # said once for the category
        try:
            x, y, w, h = (float(v) for v in a["bbox"])
        except (KeyError, TypeError, ValueError):
            x = y = w = h = math.nan
        if not (math.isfinite(x + y) and 0 < w < math.inf and 0 < h < math.inf) or x >= width or y >= height:
            text = (
                f"annotation {a.get('id')}: bbox {a.get('bbox')} is no box in a picture of {width}x{height}; left out."
            )
            problems.append(Problem(path, None, text))
            continue
        classes.append(coco.class_of[a["category_id"]])
        boxes.append([(x + w / 2) / width, (y + h / 2) / height, w / width, h / height])
        area.append(float(a["area"]) if a.get("area") is not None else w * h)
        crowd.append(bool(a.get("iscrowd", 0)))
    return Rows(
        np.array(classes, np.int32),
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(area, np.float32),
        np.array(crowd, bool),
        problems,
    )
