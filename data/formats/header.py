"""Header of a picture file -> its size as seen, or why it cannot be used; decoded only where there is no other way."""

import os
import struct
from functools import cache
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.Image import open as open_image  # by name: ultralytics replaces Image.open when it is imported

from data.formats.deep import START, largest_value, may_be_deep
from utils.files import stamp

ORIENTATION = 0x0112  # EXIF tag; 5..8 swap height and width
MAX_PIXELS = 178_956_970  # Pillow's own limit for decompression bombs, which a library may have switched off
FORMATS = (
    "JPEG",
    "PNG",
    "BMP",
    "DIB",
    "WEBP",
    "TIFF",
    "GIF",
    "AVIF",
    "JPEG2000",
    "PPM",
)  # no EPS: it would run a program
STRIPS = ((273, 279), (324, 325))  # TIFF tags: offsets and byte counts, of strips and of tiles


@cache
def formats() -> list[str]:
    """Those of FORMATS that this Pillow knows; MPO counts as JPEG."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


class Header(NamedTuple):
    """What a picture file is before it is decoded."""

    shape: tuple[int, int] | None  # height, width as seen, EXIF rotation applied; None: it cannot be used
    reason: str = ""  # why
    top: float = 0.0  # the largest value of a picture with more than 8 bits a channel: that one is decoded


def picture_shape(path: str) -> tuple[tuple[int, int] | None, str]:
    """(height, width) as seen, EXIF rotation applied, and ''; or None and why the picture cannot be used."""
    return read_header(path, False)[:2]


def read_header(path: str, values: bool = True) -> Header:
    """The header of a picture; values: also the largest value of one with more than 8 bits, which takes longer."""
    try:
        with open(path, "rb") as f, open_image(f, formats=formats()) as img:
            width, height = img.size if img.format != "TIFF" else (img.tag_v2[256], img.tag_v2[257])  # before EXIF
            if width * height > MAX_PIXELS:
                return Header(None, _too_large(f"{width}x{height}"))
            whole, rotated = _look(f, img)
            if not whole:
                img.load()  # decodes all of it: the way to be sure
            if rotated:
                width, height = height, width
            f.seek(0)
            deep = values and may_be_deep(f.read(START))
        return Header((height, width), "", largest_value(np.fromfile(path, np.uint8)) if deep else 0.0)
    except Image.DecompressionBombError as e:  # "Image size (400000000 pixels) exceeds limit of ..."
        return Header(None, _too_large(f"{str(e).partition('(')[2].partition(')')[0]}"))
    except FileNotFoundError:
        return Header(None, "there is no such file. Put it there, or take it off the list.")
    except Exception as e:  # PIL raises SyntaxError, struct.error, EOFError and others on broken files
        return Header(None, f"{_reason(path, e)}. Replace or delete the picture.")


def _too_large(size: str) -> str:
    return f"{size}: too large to be decoded safely (limit: {MAX_PIXELS // 10**6} million pixels). Make it smaller."


def _reason(path: str, error: Exception) -> str:
    """What is wrong with a file that cannot be opened; a page or a message saved as a picture shows how it begins."""
    if stamp(path)[0] == 0:
        return "the file is empty"
    if not isinstance(error, UnidentifiedImageError):
        return f"it cannot be read ({error})"
    with open(path, "rb") as f:
        start = f.read(40)
    text = start.isascii() and start.translate(None, b"\t\r\n").decode("ascii").isprintable()
    return (
        f"it is text, not a picture ({start.decode()!r} ...)"
        if text
        else "it is no picture of a known format, or its first bytes are damaged"
    )


def _look(f: BinaryIO, img: Image.Image) -> tuple[bool, bool]:
    """Whether the file is as long as its format asks, and whether EXIF turns the picture by a quarter."""
    start = f.tell()
    try:
        if img.format == "PNG":
            whole, late = _walk_png(f)
            if late and whole:
                img.load()  # EXIF behind the pixels: Pillow finds it there
            exif = img.info.get("exif") or "Raw profile type exif" in img.info
            return whole, bool(exif) and _is_turned(img)  # without this test Pillow decodes a PNG to look for EXIF
        return _is_whole(f, img), _is_turned(img)
    finally:
        f.seek(start)


def _is_turned(img: Image.Image) -> bool:
    try:
        return img.getexif().get(ORIENTATION, 1) in (5, 6, 7, 8)
    except Exception:  # damaged EXIF spoils no picture; PIL raises SyntaxError, struct.error and others
        return False


def _walk_png(f: BinaryIO) -> tuple[bool, bool]:
    """From chunk to chunk: whether the last one, IEND, is reached, and whether EXIF comes after the pixels."""
    size, position, pixels, late = f.seek(0, os.SEEK_END), 8, False, False
    while position + 12 <= size:
        f.seek(position)
        length, kind = struct.unpack(">I4s", f.read(8))
        if kind == b"IEND":
            return True, late
        pixels |= kind == b"IDAT"
        late |= kind == b"eXIf" and pixels
        position += 12 + length
    return False, late


def _is_whole(f: BinaryIO, img: Image.Image) -> bool:
    """A truncated picture has a good header, so its end is looked at; False also where that says nothing."""
    size = f.seek(0, os.SEEK_END)
    f.seek(-min(size, 64), os.SEEK_END)
    end = f.read()
    if img.format in ("JPEG", "MPO"):
        return b"\xff\xd9" in end
    if img.format == "GIF":
        return end.rstrip(b"\0").endswith(b";")
    if img.format == "WEBP":
        f.seek(4)
        return struct.unpack("<I", f.read(4))[0] + 8 <= size
    if img.format == "TIFF":
        tags = img.tag_v2
        ends = [o + n for a, b in STRIPS for o, n in zip(tags.get(a, ()), tags.get(b, ()), strict=False)]
        return bool(ends) and max(ends) <= size
    return False
