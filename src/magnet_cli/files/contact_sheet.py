"""Contact sheets: blocks of small images, each under a caption; and the small images alone.

Owns their layout. Knows nothing of generators or samples.
"""

import io
import math

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from magnet_cli.files.pictures import encoded, picture

COLUMNS = 16
_SMALLEST, _LARGEST = 64, 128  # side of a tile in pixels
_CAPTION = 28  # height of a caption in pixels
_MARGIN = 8
_GAP = 3  # between the groups of a block


def contact_sheet(blocks: list[tuple[str, *tuple[list[np.ndarray], ...]]], columns: int = COLUMNS) -> bytes:
    """Return the PNG bytes of a sheet: for each block a caption and its groups of images, each group in new rows.

    Args:
        blocks: (caption, group, …) from top to bottom; a group is images [H, W, C] uint8, all of one size.
        columns: images in a row; a sheet is never narrower than its captions.
    """
    first = next(images[0] for _, *groups in blocks for images in groups)
    side = _tile(first.shape[0])
    lines = [sum(-(-len(images) // columns) for images in groups) for _, *groups in blocks]
    font = ImageFont.load_default(15)
    wide = max(columns * side, *(math.ceil(font.getlength(caption)) for caption, *_ in blocks))
    width = wide + 2 * _MARGIN
    gaps = [(len(groups) - 1) * _GAP for _, *groups in blocks]
    height = sum(_CAPTION + n * side + gap + _MARGIN for n, gap in zip(lines, gaps, strict=True)) + _MARGIN
    page = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(page)
    top = _MARGIN
    for caption, *groups in blocks:
        pen.text((_MARGIN, top + 4), caption, fill="black", font=font)
        top += _CAPTION
        for images in groups:
            for i, image in enumerate(images):
                resample = Image.Resampling.NEAREST if side >= image.shape[0] else Image.Resampling.LANCZOS
                place = (_MARGIN + i % columns * side, top + i // columns * side)
                page.paste(picture(image).resize((side, side), resample), place)
            top += -(-len(images) // columns) * side + _GAP
        top += _MARGIN - _GAP
    buffer = io.BytesIO()
    page.save(buffer, format="PNG")
    return buffer.getvalue()


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
