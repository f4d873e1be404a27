"""Where the pictures and xmls of a Pascal VOC dataset lie: the devkit's folders, or pictures with xmls near them."""

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from data.formats.find import SUFFIXES, find_pictures, is_foreign, label_path
from data.formats.voc import XmlError, read_xml
from utils.errors import UserError
from utils.files import Stamp, stamp

XML_FOLDERS = ("Annotations", "annotations", "xmls", "labels")
SAMPLE = 20  # pictures looked at to tell a folder of xmls from one of .txt


def is_voc(place: Path) -> bool:
    """Whether a folder or list of a split has VOC xmls; a folder with .txt labels has not, whatever else lies there."""
    if place.suffix.lower() == ".txt" and place.is_file():
        return place.parent.name == "Main" and place.parent.parent.name == "ImageSets"
    if not place.is_dir():
        return False
    if _years(place):
        return True
    pictures = list(islice(_some_pictures(str(place)), SAMPLE))
    return not any(map(os.path.exists, map(label_path, pictures))) and any(map(_xml_of, pictures))


def is_devkit(folder: Path) -> bool:
    """Whether a folder is VOC2007 or the like, or has such folders inside."""
    return bool(_years(folder))


def voc_pairs(place: Path, split: str, watched: dict[str, Stamp] | None = None) -> tuple[list[str], list[str]]:
    """Pictures and the xml of each ('': none), sorted; in a devkit, those of ImageSets/Main/<split>.txt.

    watched: takes up every folder and list that decides what is found, as it was just before.
    """
    watched = {} if watched is None else watched
    if place.is_file():
        return _of_list(place, watched)
    years = _years(place)
    lists = [year / "ImageSets" / "Main" for year in years]
    lists = [folder for folder in lists if folder.is_dir()]
    if not lists:
        pictures = find_pictures([year / "JPEGImages" for year in years] or [place], place, watched)
        for folder in {folder for parent in set(map(os.path.dirname, pictures)) for folder in _xml_places(parent)}:
            while not os.path.isdir(folder):  # where it may appear
                folder = os.path.dirname(folder)
            watched[folder] = stamp(folder)
        return pictures, [_xml_of(picture) for picture in pictures]
    absent = [folder for folder in lists if not (folder / f"{split}.txt").is_file()]
    if absent:
        known = sorted(p.name for p in absent[0].glob("*.txt") if "_" not in p.stem)  # cat_train.txt: of one class
        raise UserError(
            f"{absent[0]} has no {split}.txt, only {known}. Name the list that '{split}' is to use, for example "
            f"'{split}: {absent[0]}/{(known or ['trainval.txt'])[0]}'."
        )
    pairs = [_of_list(folder / f"{split}.txt", watched) for folder in lists]
    return [p for pictures, _ in pairs for p in pictures], [x for _, xmls in pairs for x in xmls]


def voc_names(place: Path) -> list[str]:
    """Names in all xmls of a dataset, whatever the split, sorted; one that cannot be read is named when it is used."""
    names: set[str] = set()
    for xml in voc_xmls(place):
        try:
            root = read_xml(Path(xml).read_bytes())
        except (OSError, XmlError):
            continue
        names |= {(item.findtext("name") or "").strip() for item in root.findall("object")}
    return sorted(names - {""})


def voc_xmls(place: Path) -> list[str]:
    """All xmls of a dataset."""
    years = [place.parent.parent.parent] if place.is_file() else _years(place)
    if years:
        return sorted(str(xml) for year in years for xml in (year / "Annotations").glob("*.xml"))
    return [xml for xml in map(_xml_of, find_pictures([place], place)) if xml]


def _years(place: Path) -> list[Path]:
    """Folders of the devkit's layout at a place: itself (VOC2007), or those inside it (VOCdevkit)."""
    if (place / "Annotations").is_dir() and (place / "JPEGImages").is_dir():
        return [place]
    return sorted(p.parent for p in place.glob("VOC*/Annotations") if (p.parent / "JPEGImages").is_dir())


def _of_list(file: Path, watched: dict[str, Stamp]) -> tuple[list[str], list[str]]:
    """Pictures and xmls of ImageSets/Main/x.txt: a stem a line, in a list of one class followed by -1, 0 or 1."""
    year, pictures, xmls = file.parent.parent.parent, [], []
    watched |= {str(path): stamp(path) for path in (file, year / "JPEGImages", year / "Annotations")}
    with os.scandir(year / "JPEGImages") as entries:
        names = (os.path.splitext(entry.name) for entry in entries)
        suffix_of = {stem: suffix for stem, suffix in names if suffix.lower() in SUFFIXES}
    lines = file.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    for stem in sorted({line.split()[0] for line in lines if line.strip()}):
        pictures.append(os.path.normpath(year / "JPEGImages" / (stem + suffix_of.get(stem, ".jpg"))))
        xml = os.path.normpath(year / "Annotations" / f"{stem}.xml")
        xmls.append(xml if os.path.exists(xml) else "")
    return pictures, xmls


def _xml_of(picture: str) -> str:
    """The xml of a picture: beside it, or in a folder of xmls beside its folder; '' where there is none."""
    folder, name = os.path.split(os.path.splitext(picture)[0] + ".xml")
    return next((p for place in _xml_places(folder) if os.path.exists(p := os.path.join(place, name))), "")


def _xml_places(folder: str) -> list[str]:
    """Folders in which the xmls of a folder of pictures may lie."""
    up, last = os.path.split(folder)
    places = [folder, *(os.path.join(up, x) for x in XML_FOLDERS)]
    return places + [os.path.join(os.path.dirname(up), x, last) for x in XML_FOLDERS]  # images/train, annotations/train


def _some_pictures(folder: str) -> Iterator[str]:
    """Pictures in the order that the disk gives them: enough for a first look into a million."""
    below = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                if is_foreign(entry.name):
                    continue
                below.append(entry.path)
            elif os.path.splitext(entry.name)[1].lower() in SUFFIXES:
                yield entry.path
    for path in sorted(below):
        yield from _some_pictures(path)
