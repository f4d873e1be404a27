"""Contact sheets: pictures with their boxes, as one uint8 array for a PNG or TensorBoard."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from utils.boxes import xywhn_to_xyxy
from utils.drawing.figure import font_of, fonts, readable

# Okabe and Ito's colours, told apart by colour-blind readers too; without black, which vanishes on dark pictures
COLOURS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167))
GAP = 6  # pixels between pictures
CAPTION = 20  # pixels above a picture that has a caption


def picture_sheet(
    images: Sequence[Any],
    boxes: Sequence[np.ndarray],
    classes: Sequence[np.ndarray],
    names: Sequence[str],
    scores: Sequence[np.ndarray | None] | None = None,
    captions: Sequence[str] | None = None,
    columns: int | None = None,
    cell: int = 480,
) -> np.ndarray:
    """Pictures, uint8 (3, h, w) of any sizes or one (b, 3, h, w), with boxes (n, 4) xyxy pixels -> uint8 (H, W, 3).

    Each picture is scaled to fit a square of `cell` pixels, shrunk to a row's largest; its boxes are drawn after that.
    """
    tiles = []
    for i, image in enumerate(images):
        picture, gain = _fit(np.asarray(image).transpose(1, 2, 0), cell)
        found = scores[i] if scores is not None else None
        draw_boxes(picture, np.asarray(boxes[i]).reshape(-1, 4) * gain, np.asarray(classes[i]), names, found)
        tiles.append(picture)
    return _tile(tiles, captions, columns or math.ceil(math.sqrt(len(tiles) or 1)))


def _fit(image: np.ndarray, cell: int) -> tuple[Image.Image, float]:
    """A picture (h, w, 3) scaled so that its long side is `cell`, and the factor."""
    h, w = image.shape[:2]
    gain = cell / max(h, w)
    size = (max(round(w * gain), 1), max(round(h * gain), 1))
    return Image.fromarray(np.ascontiguousarray(image)).resize(size, Image.Resampling.BILINEAR), gain


def draw_boxes(
    picture: Image.Image,
    boxes: np.ndarray,
    classes: np.ndarray,
    names: Sequence[str] | None,
    scores: np.ndarray | None = None,
    width: int = 2,
    text_size: int = 12,
) -> None:
    """Draw boxes (n, 4) xyxy pixels with class names, and scores, where given, onto the picture.

    width: of the lines, and text_size: height of the letters, in pixels.
    """
    draw = ImageDraw.Draw(picture)
    order = range(len(boxes) - 1, -1, -1)  # the best score last, on top
    for k in order:
        x1, y1, x2, y2 = (float(v) for v in boxes[k])
        draw.rectangle((x1, y1, max(x1, x2), max(y1, y2)), outline=_colour(classes[k]), width=width)
    for k in order if names is not None else ():  # after all the boxes, which would run through the text
        name = str(names[int(classes[k])])
        text = readable(name if scores is None else f"{name} {scores[k]:.2f}")
        font = _font(text_size, text)
        _label(draw, text, float(boxes[k][0]), float(boxes[k][1]), _colour(classes[k]), font, picture.size)


def _colour(cls: float) -> tuple[int, int, int]:
    return COLOURS[int(cls) % len(COLOURS)]


def _label(
    draw: ImageDraw.ImageDraw,
    text: str,
    x: float,
    y: float,
    colour: tuple[int, int, int],
    font: ImageFont.FreeTypeFont,
    size: tuple[int, int],
) -> None:
    """Text on a coloured ground above the corner (x, y) of a box, moved to stay inside the picture."""
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    w, h = right - left + 4, bottom - top + 3
    x = min(max(x, 0), max(size[0] - w, 0))
    y = y - h if y >= h else max(y, 0)
    draw.rectangle((x, y, x + w, y + h), fill=colour)
    brightness = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
    draw.text((x + 2 - left, y + 1 - top), text, fill="black" if brightness > 110 else "white", font=font)


def _font(size: int, text: str = "") -> ImageFont.FreeTypeFont:
    """DejaVu Sans from matplotlib's own files, the same on every machine; another where it lacks letters of a text."""
    files = [font_of(letter) for letter in text if not letter.isspace()]
    other = next((file for file in files if file not in (None, fonts()["DejaVu Sans"])), None)
    return ImageFont.truetype(other or fonts()["DejaVu Sans"], size)


def _tile(tiles: list[Image.Image], captions: Sequence[str] | None, columns: int) -> np.ndarray:
    """Pictures row by row on white; each row and column is as large as its largest picture."""
    if not tiles:
        return np.full((GAP, GAP, 3), 255, np.uint8)
    columns = min(columns, len(tiles))
    rows = [tiles[i : i + columns] for i in range(0, len(tiles), columns)]
    head = CAPTION if captions else 0
    widths = [max(row[c].width for row in rows if c < len(row)) for c in range(columns)]
    heights = [max(tile.height for tile in row) + head for row in rows]
    sheet = Image.new("RGB", (sum(widths) + GAP * (columns + 1), sum(heights) + GAP * (len(rows) + 1)), "white")
    draw = ImageDraw.Draw(sheet)
    y = GAP
    for r, row in enumerate(rows):
        x = GAP
        for c, tile in enumerate(row):
            if captions:
                _caption(draw, captions[r * columns + c], x, y, widths[c])
            sheet.paste(tile, (x, y + head))
            x += widths[c] + GAP
        y += heights[r] + GAP
    return np.asarray(sheet)


def _caption(draw: ImageDraw.ImageDraw, text: str, x: int, y: int, width: int) -> None:
    """One line above a picture; the front of a text that is too long is cut."""
    text = readable(text)
    font, whole = _font(13, text), text
    while text and draw.textlength(text, font=font) > width:
        whole = whole[1:]
        text = "…" + whole
    draw.text((x, y), text, fill="black", font=font)


def batch_sheet(batch: dict[str, Any], names: Sequence[str], limit: int = 16) -> np.ndarray:
    """The first pictures of a training or evaluation batch with their true boxes -> uint8 (H, W, 3)."""
    images = batch["img"][:limit]
    h, w = images.shape[-2:]
    boxes = xywhn_to_xyxy(batch["bboxes"].numpy(), w, h)  # (n, 4)
    owner, classes = batch["batch_idx"].numpy(), batch["cls"].numpy().ravel()
    mine = [owner == i for i in range(len(images))]
    return picture_sheet(images, [boxes[m] for m in mine], [classes[m] for m in mine], names)


def save_sheet(sheet: np.ndarray, path: Path) -> None:
    """Write a sheet as PNG, or as JPEG if the name ends so."""
    Image.fromarray(sheet).save(path)
