"""Contact sheets: blocks of small images under captions, with gaps and labels; and the small images alone.

Owns their layout. Knows nothing of generators or samples.
"""

import io
import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from magnet_cli.files.pictures import encoded, picture

COLUMNS = 16
_SMALLEST, _LARGEST = 64, 128  # side of a tile in pixels
_CAPTION, _LABEL = 28, 14  # heights of a caption and of a label in pixels
_MARGIN = 8
_BETWEEN, _GAP = 2, 8  # between the images of a group, and between the groups of a block

Tile = np.ndarray | tuple[np.ndarray, str]  # an image, or an image and its label


def contact_sheet(blocks: Sequence[tuple[str, *tuple[Sequence[Tile], ...]]], columns: int = COLUMNS) -> bytes:
    """Return the PNG bytes of a sheet: for each block a caption and its groups of images, each group in new rows.

    Args:
        blocks: (caption, group, …) from top to bottom; a group is images [H, W, C] uint8, all of one size, each alone
            or with the label that stands below it.
        columns: images in a row; a sheet is never narrower than its captions.
    """
    captions = [caption for caption, *_ in blocks]
    tiles = [[[each if isinstance(each, tuple) else (each, "") for each in group] for group in gs] for _, *gs in blocks]
    side = _tile(next(group[0][0].shape[0] for groups in tiles for group in groups if group))
    step, label = side + _BETWEEN, _LABEL * any(text for groups in tiles for group in groups for _, text in group)
    font, small_font = ImageFont.load_default(15), ImageFont.load_default(11)
    wide = max(columns * step - _BETWEEN, *(math.ceil(font.getlength(caption)) for caption in captions))
    heights = [[-(-len(group) // columns) * (step + label) - _BETWEEN for group in groups] for groups in tiles]
    height = sum(_CAPTION + sum(each) + (len(each) - 1) * _GAP + _MARGIN for each in heights) + _MARGIN
    page = Image.new("RGB", (wide + 2 * _MARGIN, height), "white")
    pen = ImageDraw.Draw(page)
    top = _MARGIN
    for caption, groups, rows in zip(captions, tiles, heights, strict=True):
        pen.text((_MARGIN, top + 4), caption, fill="black", font=font)
        top += _CAPTION
        for group, high in zip(groups, rows, strict=True):
            for i, (image, text) in enumerate(group):
                resample = Image.Resampling.NEAREST if side >= image.shape[0] else Image.Resampling.LANCZOS
                left, upper = _MARGIN + i % columns * step, top + i // columns * (step + label)
                page.paste(picture(image).resize((side, side), resample), (left, upper))
                pen.text((left, upper + side), _fitting(text, small_font, side), fill="black", font=small_font)
            top += high + _GAP
        top += _MARGIN - _GAP
    buffer = io.BytesIO()
    page.save(buffer, format="PNG")
    return buffer.getvalue()


def _fitting(text: str, font: "ImageFont.FreeTypeFont | ImageFont.ImageFont", width: int) -> str:
    """Cut a label to the width of its image."""
    cut = [text, *(text[:n] + "…" for n in range(len(text) - 1, -1, -1))]
    return next((each for each in cut if font.getlength(each) <= width), "")


def _tile(side: int) -> int:
    """Small images are enlarged by a whole number, large ones reduced."""
    return min(side * -(-_SMALLEST // side), _LARGEST) if side < _SMALLEST else min(side, _LARGEST)


def small(image: np.ndarray, most: int = _LARGEST) -> bytes:
    """The PNG bytes of an image [H, W, C] uint8, reduced where its longer side has more than `most` pixels."""
    height, width = image.shape[:2]
    scale = most / max(height, width)
    if scale < 1:
        size = max(round(width * scale), 1), max(round(height * scale), 1)
        reduced = np.asarray(picture(image).resize(size, Image.Resampling.LANCZOS))
        image = reduced if reduced.ndim == image.ndim else reduced[:, :, None]
    return encoded(image, "png")
