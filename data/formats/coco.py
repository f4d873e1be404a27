"""COCO instances json -> its pictures, annotations and categories, matched by name, ids as sparse as they are."""

import json
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.formats.rows import Problem
from utils.errors import UserError

SHOWN = 20  # problems of one kind that are named one by one
NEEDS = "It needs 'images' (id, file_name), 'annotations' (image_id, category_id, bbox) and 'categories' (id, name)."


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
    content = _load(path)
    said: list[str] = []
    images = _images(content["images"], said)
    if not images:
        raise UserError(f"{path}: 'images' has no usable entry. {NEEDS}{' First: ' + said[0] if said else ''}")
    categories = _categories(content["categories"], said)
    group = categories.keys() - _without_group(categories, content).keys()
    categories = {k: name for k, name in categories.items() if k not in group or name in names}
    category_ids, class_of = _match_categories(categories, names, path, said)
    row = {key: i for i, keys in enumerate(images.values()) for key in keys[1]}
    annotations: list[list[dict[str, Any]]] = [[] for _ in images]
    lost: dict[str, Counter] = defaultdict(Counter)  # what annotations refer to without its being there
    known = {whole(c["id"]) for c in content["categories"] if isinstance(c, dict) and "id" in c}
    for a in content["annotations"]:
        if not isinstance(a, dict):
            lost["no mapping"][type(a).__name__] += 1
        elif (i := row.get(_key(a.get("image_id")))) is None:
            lost["image_id"][str(a.get("image_id"))[:40]] += 1
        elif whole(a.get("category_id")) not in known:
            lost["category_id"][str(a.get("category_id"))[:40]] += 1
        else:
            annotations[i].append(a)
    for what, counter in lost.items():
        lists = {"image_id": "'images'", "category_id": "'categories'"}
        for value, count in counter.most_common(SHOWN):
            lacks = f", which {lists[what]} lacks" if what in lists else ""
            said.append(f"{count} annotations of {what} {value}{lacks}; left out.")
    firsts = [entry for entry, _ in images.values()]
    ids = [whole(entry["id"]) for entry in firsts]
    if None in ids:
        said.append("ids of 'images' that are no whole numbers: pictures are numbered from 1 instead.")
        ids = list(range(1, len(ids) + 1))
    sizes = [_size(entry) for entry in firsts]
    problems = [Problem(str(path), None, text, "file") for text in said]
    return CocoFile(list(images), ids, sizes, annotations, category_ids, class_of, problems)


def coco_names(path: Path) -> list[str]:
    """Names of the categories of a json, in order of id."""
    content = _load(path)
    by_id = _without_group(_categories(content["categories"], []), content)
    return list(dict.fromkeys(by_id[k] for k in sorted(by_id)))


def whole(value: Any) -> int | None:
    """An id as int, also from 7.0 or "7"; None for what is none, or too large for 64 bits."""
    try:
        number = int(value)
        same = not isinstance(value, bool) and (isinstance(value, str) or number == value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if same and abs(number) < 2**63 else None


def _load(path: Path) -> dict[str, list[Any]]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as e:  # ValueError: ends too early, is no text, 5,000 digits
        raise UserError(f"{path} is not a COCO instances json ({str(e)[:200]}). Is it complete? {NEEDS}") from None
    parts = {key: content.get(key) if isinstance(content, dict) else None for key in ("images", "categories")}
    parts["annotations"] = content.get("annotations") if isinstance(content, dict) else None
    for key, value in parts.items():
        if not isinstance(value, list):
            raise UserError(f"{path} is not a COCO instances json: '{key}' is {type(value).__name__}, no list. {NEEDS}")
    return parts


def _images(entries: list[Any], said: list[str]) -> dict[str, tuple[dict[str, Any], list[Any]]]:
    """File name -> its entry and the keys of its ids, in order; what cannot be used is said."""
    images: dict[str, tuple[dict[str, Any], list[Any]]] = {}
    taken: set[Any] = set()
    for n, entry in enumerate(entries):
        if not (isinstance(entry, dict) and entry.get("id") is not None and isinstance(entry.get("file_name"), str)):
            said.append(f"entry {n} of 'images' has no id or no file_name: {str(entry)[:60]}; left out.")
            continue
        key, name = _key(entry["id"]), entry["file_name"].replace("\\", "/")
        if key in taken:
            said.append(f"image id {key} is there twice; {name[:80]} is left out. Give it an id of its own.")
            continue
        taken.add(key)
        if name in images:
            said.append(f"file_name {name[:80]} is there twice; the annotations of both are used, the picture once.")
        images.setdefault(name, (entry, []))[1].append(key)
    return images


def _key(value: Any) -> Any:
    number = whole(value)
    return str(value) if number is None else number


def _size(entry: dict[str, Any]) -> tuple[int, int] | None:
    """(height, width) as the json says, or None where that is no size."""
    hw = whole(entry.get("height")), whole(entry.get("width"))
    return hw if None not in hw and 0 < min(hw) <= max(hw) < 2**31 else None


def _categories(entries: list[Any], said: list[str]) -> dict[int, str]:
    """Name of each category id; what cannot be used is said."""
    names: dict[int, str] = {}
    for n, c in enumerate(entries):
        k = whole(c.get("id")) if isinstance(c, dict) else None
        if k is None or not isinstance(c.get("name"), str | int | float) or c["name"] != c["name"]:
            said.append(f"entry {n} of 'categories' has no usable id or name: {str(c)[:60]}; left out.")
        elif k in names:
            said.append(f"category id {k} is there twice; '{names[k]}' is used, not '{c['name']}'.")
        else:
            names[k] = str(c["name"]).strip()
    return names


def _without_group(name_of: dict[int, str], content: dict[str, list[Any]]) -> dict[int, str]:
    """Categories without the one that Roboflow puts first: supercategory of all others, itself of none, no boxes."""
    above = {whole(c["id"]): str(c.get("supercategory")).strip() for c in content["categories"] if _has_id(c)}
    used = {whole(a.get("category_id")) for a in content["annotations"] if isinstance(a, dict)}
    for k, name in name_of.items():
        others = [above.get(other) for other in name_of if other != k]
        if others and k not in used and above.get(k) == "none" and set(others) == {name}:
            return {other: n for other, n in name_of.items() if other != k}
    return name_of


def _has_id(entry: Any) -> bool:
    return isinstance(entry, dict) and whole(entry.get("id")) is not None


def _match_categories(
    name_of: dict[int, str], names: list[str], path: Path, said: list[str]
) -> tuple[list[int], dict[int, int]]:
    """Category id of each class (a free one where the json lacks the class), and class of each category id."""
    found = sorted(set(name_of.values()))
    if not set(found) & set(names):
        raise UserError(
            f"No category of {path} is named in the dataset yaml: the json has {found[:10]}, the yaml has "
            f"{names[:10]}. Write the json's names under 'names', or leave 'names' out."
        )
    for name in found:
        if name not in names:
            said.append(f"category '{name}' is not under 'names' in the yaml; its boxes are left out.")
    ids_of: dict[str, list[int]] = defaultdict(list)
    for k, name in name_of.items():
        ids_of[name].append(k)
    said += [f"category '{n}' has several ids, {ks}: all of them are '{n}'." for n, ks in ids_of.items() if len(ks) > 1]
    unused = max(name_of) + 1
    category_ids = []
    for name in names:
        category_ids.append(ids_of[name][0] if name in ids_of else unused)
        unused += name not in ids_of
    return category_ids, {k: c for c, name in enumerate(names) for k in ids_of.get(name, ())}
