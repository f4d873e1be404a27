"""Header of a picture file -> its size as seen, or why it cannot be used; decoded only where there is no other way."""

import os

from PIL import Image
from PIL.Image import open as open_image  # by name: ultralytics replaces Image.open when it is imported

from data.scan import stamp

ORIENTATION = 0x0112  # EXIF tag; 5..8 swap height and width


def picture_shape(path: str) -> tuple[tuple[int, int] | None, str]:
    """(height, width) as seen, EXIF rotation applied, and ''; or None and why the picture cannot be used."""
    try:
        with open_image(path) as img:
            width, height = img.size
            if not _looks_whole(path, img.format):
                img.load()  # decodes all of it: the way to be sure
            if img.getexif().get(ORIENTATION, 1) >= 5:
                width, height = height, width
        return (height, width), ""
    except Image.DecompressionBombError:
        return None, "far too many pixels to be decoded safely. Make it smaller."
    except Exception as e:  # PIL raises SyntaxError, struct.error, EOFError and others on broken files
        size = stamp(path)[0]
        reason = "the file is empty" if size == 0 else f"it cannot be read ({e})"
        return None, f"{reason}. Replace or delete the picture."


def _looks_whole(path: str, kind: str | None) -> bool:
    """Whether the file ends as its format asks; a truncated picture has a good header, so its end is looked at."""
    endings = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND"}
    if kind not in endings:
        return False
    with open(path, "rb") as f:
        f.seek(0, os.SEEK_END)
        f.seek(-min(f.tell(), 64), os.SEEK_END)
        return endings[kind] in f.read()
