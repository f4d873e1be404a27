"""Pictures with more than 8 bits a channel: their values, the largest of them, and how they become 8 bits."""

import io
import re

import numpy as np
from PIL import ImageOps
from PIL.Image import open as open_image  # by name: ultralytics replaces Image.open when it is imported

TIFF = (b"II*\0", b"MM\0*")
BITS_PER_SAMPLE = 258  # TIFF tag
NETPBM = re.compile(rb"P[2356](?:\s+|#[^\n]*\n)+\d+(?:\s+|#[^\n]*\n)+\d+(?:\s+|#[^\n]*\n)+(\d+)\s")
START = 512  # bytes that are enough to tell


def may_be_deep(start: bytes) -> bool:
    """Whether a file that begins with these bytes can have more than 8 bits; of a TIFF its tags have to say it."""
    if start.startswith(b"\x89PNG"):
        return start[24:25] == b"\x10"  # IHDR's bit depth
    if start.startswith((b"P2", b"P3", b"P5", b"P6")):
        return _most(start) > 255
    if start[4:8] == b"jP  ":  # JPEG 2000 scales by the bits that it names, so only 16 of them may hold fewer
        at = start.find(b"ihdr")
        return at >= 0 and start[at + 14 : at + 15] in (b"\x0f", b"\x8f")
    return start.startswith(TIFF)


def deep_values(content: np.ndarray) -> np.ndarray | None:
    """Content (bytes,) of a file -> values (h, w) or BGR (h, w, 3), uint16, int32 or float32, EXIF rotation applied.

    None: the file has 8 bits a channel, or is damaged.
    """
    start = content[:START].tobytes()
    if not may_be_deep(start):
        return None
    if start.startswith(TIFF):
        with open_image(io.BytesIO(content)) as img:
            bits = img.tag_v2.get(BITS_PER_SAMPLE, (8,))
            if max(bits if isinstance(bits, tuple) else (bits,)) <= 8:
                return None
            if img.mode in ("I", "F"):
                return np.nan_to_num(np.asarray(ImageOps.exif_transpose(img)), posinf=0, neginf=0)
    values = _by_opencv(content)
    if values is None or values.dtype != np.uint16:
        return None
    most = _most(start)
    return values if most in (0, 65535) else (values.astype(np.uint32) * 65535 // most).astype(np.uint16)


def _by_opencv(content: np.ndarray) -> np.ndarray | None:
    import cv2  # here, for most datasets have no such picture and look at headers only

    before = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # of odd tags, which hurt nobody
    try:
        return cv2.imdecode(content, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    finally:
        cv2.utils.logging.setLogLevel(before)


def largest_value(content: np.ndarray) -> float:
    """The largest value of a picture with more than 8 bits a channel; 0 for any other."""
    try:
        values = deep_values(content)
    except (
        Exception
    ):  # PIL raises SyntaxError, struct.error and others on broken files; decoding one says what is wrong
        return 0.0
    return 0.0 if values is None else float(values.max(initial=0))


def to_8_bit(values: np.ndarray, white: float | None) -> np.ndarray:
    """Values of deep_values -> uint8 of the same shape: `white` and what lies above become 255.

    white None, where no dataset says it: 65535 for 16 bits, as in OpenCV; else the smallest of 1 (floats), 255, 65535
    and the picture's largest value that holds the picture.
    """
    if white is None:
        high = float(values.max(initial=0))
        ranges = (
            (65535,) if values.dtype == np.uint16 else (1, 255, 65535) if values.dtype.kind == "f" else (255, 65535)
        )
        white = min((r for r in ranges if high <= r), default=high)
    bits = int(white + 1).bit_length() - 1
    if values.dtype == np.uint16 and white + 1 == 2**bits >= 256:  # to the bit what OpenCV makes of 16
        return (np.minimum(values, np.uint16(white)) >> (bits - 8)).astype(np.uint8)
    return (values.astype(np.float64) * (255 / white)).clip(0, 255).astype(np.uint8)


def _most(start: bytes) -> int:
    """The value that a netpbm file says is white; 0 for another one."""
    found = NETPBM.match(start)
    return int(found[1]) if found else 0
