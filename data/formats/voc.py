"""Pascal VOC xml -> rows; entities are never expanded, coordinates count from 1 and include both ends."""

import math
from collections.abc import Sequence
from pathlib import PurePath
from xml.etree import ElementTree
from xml.parsers import expat

import numpy as np

from data.formats.rows import Problem, RowError, Rows, clip_box, no_rows
from utils.boxes import xyxy_to_xywhn
from utils.errors import suggest

SIDES = ("xmin", "ymin", "xmax", "ymax")


class XmlError(ValueError):
    """An xml that cannot be used, and why."""


def read_xml(content: bytes) -> ElementTree.Element:
    """Root of an xml; one that declares entities is refused before any is expanded."""
    if not content.strip():
        raise XmlError("the file is empty")
    try:
        return _parse(content, None)
    except (expat.ExpatError, ValueError) as e:
        if isinstance(e, XmlError):
            raise
        try:
            return _parse(content, "iso-8859-1")  # a folder's name in another encoding spoils no box
        except (expat.ExpatError, ValueError):
            raise XmlError(f"it is no whole xml ({e})") from None


def _parse(content: bytes, encoding: str | None) -> ElementTree.Element:
    tree, parser = ElementTree.TreeBuilder(), expat.ParserCreate(encoding)
    parser.buffer_text = True
    parser.StartElementHandler, parser.EndElementHandler = tree.start, tree.end
    parser.CharacterDataHandler, parser.EntityDeclHandler = tree.data, _refuse_entity
    parser.Parse(content, True)
    return tree.close()


def _refuse_entity(name: str, *_: object) -> None:
    raise XmlError(f"it declares the entity '{name}', which no VOC file needs and bombs are made of")


def parse_voc(content: bytes, path: str, names: Sequence[str], hw: tuple[int, int], stem: str = "") -> Rows:
    """Content of a VOC xml -> rows of a picture of hw pixels; `difficult` objects become crowds.

    A crowd is left out of training, and in evaluation it is neither missed nor a false positive: what the VOC devkit
    does with difficult objects. stem: of the picture, where it is to be compared with the xml's own <filename>.
    """
    try:
        root = read_xml(content)
    except XmlError as e:
        message = f"{e}; its picture is left out. Export it again, or write it by hand."
        return no_rows([Problem(path, None, message, "label")], usable=False)
    problems: list[Problem] = []
    said = PurePath((root.findtext("filename") or "").replace("\\", "/").strip())
    if stem and said.name and stem not in (said.stem, said.name):
        text = f"<filename> says {said.name}; the xml's own name counts, which is that of the picture {stem}."
        problems.append(Problem(path, None, text, "remark"))
    size = _size(root, hw, path, problems)
    classes, boxes, crowd = [], [], []
    for k, item in enumerate(root.findall("object"), 1):
        try:
            cls, box, remarks = _parse_object(item, names, size)
        except RowError as e:
            problems.append(Problem(path, None, f"object {k}: {e} The object is left out.", e.kind))
            continue
        problems += [Problem(path, None, f"object {k}: {remark}", "remark") for remark in remarks]
        classes.append(cls)
        boxes.append(box)
        crowd.append((item.findtext("difficult") or "").strip() == "1")
    return Rows(
        np.array(classes, np.int32),
        np.array(boxes, np.float32).reshape(-1, 4),
        crowd=np.array(crowd, bool) if any(crowd) else None,
        problems=problems,
    )


def _size(root: ElementTree.Element, hw: tuple[int, int], path: str, problems: list[Problem]) -> tuple[int, int]:
    """(height, width) that the coordinates belong to: the xml's where it states another than the picture's."""
    try:
        said = round(float(root.findtext("size/height"))), round(float(root.findtext("size/width")))
    except (TypeError, ValueError, OverflowError):
        return hw
    if min(said) <= 0 or said == tuple(hw):
        return hw
    if said == tuple(hw)[::-1]:
        how = "its sides are swapped, so boxes are taken as drawn on the upright picture. Look at them"
        text = f"<size> says {said[1]}x{said[0]}, the picture has {hw[1]}x{hw[0]}: {how}."
        problems.append(Problem(path, None, text, "remark"))
        return hw
    text = f"<size> says {said[1]}x{said[0]}, the picture has {hw[1]}x{hw[0]} pixels; boxes are scaled."
    problems.append(Problem(path, None, text, "remark"))
    return said


def _parse_object(
    item: ElementTree.Element, names: Sequence[str], hw: tuple[int, int]
) -> tuple[int, np.ndarray, list[str]]:
    """Class, box xywhn (4,) and remarks of one <object>."""
    name = (item.findtext("name") or "").strip()
    if name not in names:
        raise RowError(f"class '{name[:60]}' is not under 'names'.{suggest(name, list(names))}")
    texts = {side: (item.findtext(f"bndbox/{side}") or "").strip() for side in SIDES}
    try:
        corners = np.array([float(texts[side]) for side in SIDES])
    except ValueError:
        corners = np.full(4, math.nan)
    if not np.isfinite(corners).all():
        shown = " ".join(f"{side}={text[:20] or '-'}" for side, text in texts.items())
        raise RowError(f"its bndbox ({shown}) is no box. Correct or delete it.")
    if (corners[:2] == corners[2:]).any():  # one pixel, by the letter; in fact a click of the mouse
        raise RowError(f"its bndbox ({' '.join(texts.values())}) has no width or no height. Correct or delete it.")
    lo, hi = np.minimum(corners[:2], corners[2:]), np.maximum(corners[:2], corners[2:])
    remarks = []
    if (corners[:2] > corners[2:]).any():
        remarks.append(f"its corners are swapped ({' '.join(texts.values())}); they are read the other way round.")
    # The first pixel is 1 and xmax belongs to the box (devkit_doc of the VOC devkit; VOCevaldet.m adds 1 to every
    # width), so the edges are at xmin - 1 and xmax.
    box = xyxy_to_xywhn(np.concatenate([lo - 1, hi]), hw[1], hw[0])
    box, note = clip_box(box)
    return names.index(name), box, remarks + ([note] if note else [])
