"""Picture file -> BGR array at training size."""

import io
from collections import OrderedDict
from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image, ImageOps
from PIL.Image import open as open_image  # by name: ultralytics replaces Image.open when it is imported

from data.formats.deep import START, deep_values, may_be_deep, to_8_bit
from data.formats.header import MAX_PIXELS, formats
from data.index.index import Index
from data.pictures.letterbox import long_side_shape
from utils.errors import UserError

PILLOW = (b"GIF8", b"II*\0", b"MM\0*")  # OpenCV paints the transparent parts of GIF and TIFF, and knows no deep TIFF
AVIF = (b"avif", b"avis")  # nor how EXIF turns these; both stand at byte 8
REDUCED = {2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4, 8: cv2.IMREAD_REDUCED_COLOR_8}


def load_picture(
    path: str, hw: tuple[int, int], imgsz: int, reduce: bool = False, white: float | None = None
) -> np.ndarray:
    """BGR picture (h, w, 3) uint8, EXIF rotation applied, long side scaled to imgsz; hw: its full size.

    white: the value that becomes 255 where a channel has more than 8 bits, see to_8_bit.
    """
    return to_long_side(decode(path, hw, _reduction(path, hw, imgsz) if reduce else 1, white), hw, imgsz)


def to_long_side(img: np.ndarray, hw: tuple[int, int], imgsz: int) -> np.ndarray:
    """The picture with its long side scaled to imgsz; hw: its full size, which it may have been shrunk from."""
    h, w = long_side_shape(hw, imgsz)
    return img if img.shape[:2] == (h, w) else cv2.resize(img, (w, h), interpolation=cv2.INTER_LINEAR)


def _reduction(path: str, hw: tuple[int, int], imgsz: int) -> int:
    """1, or by how much the decoder of this file can shrink the picture."""
    if not path.lower().endswith((".jpg", ".jpeg")):
        return 1
    return max((k for k in REDUCED if max(hw) >= 2 * k * imgsz), default=1)


def decode(path: str, hw: tuple[int, int], factor: int = 1, white: float | None = None) -> np.ndarray:
    """BGR picture (h, w, 3) uint8, EXIF rotation applied, at 1/factor where OpenCV can; hw: its full size."""
    try:
        content = np.fromfile(path, np.uint8)
    except OSError as e:
        raise UserError(f"{path} cannot be read ({e.strerror}). It was there when the dataset was indexed.") from None
    start = content[:START].tobytes()
    fast = content.size and not start.startswith(PILLOW) and start[8:12] not in AVIF and not may_be_deep(start)
    img = cv2.imdecode(content, REDUCED.get(factor, cv2.IMREAD_COLOR)) if fast else None
    expected = -(-hw[0] // factor), -(-hw[1] // factor)
    if img is None or img.shape[:2] != expected:
        img = _decode_slowly(path, content, white)  # formats and EXIF rotations that OpenCV does not know
        if img.shape[:2] != tuple(hw):
            size = f"{img.shape[1]}x{img.shape[0]} pixels, {hw[1]}x{hw[0]} when it was indexed"
            raise UserError(f"{path} has changed: {size}. Start again.")
    return img


def _decode_slowly(path: str, content: np.ndarray, white: float | None) -> np.ndarray:
    """BGR picture by its deep values or by Pillow: the first frame, alpha dropped, EXIF rotation applied."""
    try:
        values = deep_values(content)
        if values is not None:
            img = to_8_bit(values, white)
            return img if img.ndim == 3 else cv2.cvtColor(img, cv2.COLOR_GRAY2BGR)
        with open_image(io.BytesIO(content), formats=formats()) as img:  # by path it forgets to turn a grey TIFF
            if img.width * img.height > MAX_PIXELS:
                raise ValueError(f"{img.width}x{img.height} pixels are too many")
            rgb = np.asarray(_upright(img).convert("RGB"))
    except Exception as e:  # PIL raises SyntaxError, struct.error, EOFError and others on broken files
        raise UserError(f"{path} cannot be decoded ({e}). Replace or delete it.") from None
    return cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)


def _upright(img: Image.Image) -> Image.Image:
    """Turned as EXIF says; damaged EXIF turns nothing."""
    try:
        return ImageOps.exif_transpose(img)
    except Exception:  # of the picture itself, the caller hears again when it asks for the pixels
        return img


class Decoder:
    """Decodes when asked."""

    cached = nbytes = 0  # nothing is held in memory or on disk: see Pictures in cache.py

    def __init__(self, index: Index, imgsz: int, reduce: bool, remember: int, white: float | None = None):
        self.index, self.imgsz = index, imgsz  # the index, for it is pickled as the place of its file
        self.white = white if index.depth.top else None  # of pictures with more than 8 bits
        self.reduce, self.remember = reduce, remember
        self.recent: OrderedDict[int, np.ndarray] = OrderedDict()  # saves decoding, changes no picture

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"recent": OrderedDict()}

    @property
    def paths(self) -> Sequence[str]:
        """Of every picture."""
        return self.index.paths

    @property
    def shapes(self) -> np.ndarray:
        """(n, 2) height, width of every picture, as it is in its file."""
        return self.index.shapes

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> np.ndarray:
        img = self.recent.pop(i, None)
        if img is None:
            img = self.load(i)
        self.recent[i] = img
        if len(self.recent) > self.remember:
            self.recent.popitem(last=False)
        return img

    def load(self, i: int) -> np.ndarray:
        """Picture i, decoded now."""
        return load_picture(self.paths[i], tuple(self.shapes[i].tolist()), self.imgsz, self.reduce, self.white)
