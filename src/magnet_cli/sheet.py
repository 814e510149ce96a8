"""Contact sheets: blocks of small images, each under a caption.

Owns their layout. Knows nothing of generators or samples.
"""

import io

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from magnet_cli.render import picture

_COLUMNS = 16
_SMALLEST, _LARGEST = 64, 128  # side of a tile in pixels
_CAPTION = 28  # height of a caption in pixels
_MARGIN = 8


def contact_sheet(blocks: list[tuple[str, list[np.ndarray]]]) -> bytes:
    """The PNG bytes of a sheet: per block a caption, then its images in rows of 16.

    Args:
        blocks: (caption, images [H, W, C] uint8) pairs, from top to bottom; images of one size.
    """
    side = _tile(blocks[0][1][0].shape[0])
    lines = [-(-len(images) // _COLUMNS) for _, images in blocks]
    width = _COLUMNS * side + 2 * _MARGIN
    height = sum(_CAPTION + n * side + _MARGIN for n in lines) + _MARGIN
    page = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(page)
    top = _MARGIN
    for (caption, images), n in zip(blocks, lines, strict=True):
        pen.text((_MARGIN, top + 4), caption, fill="black", font=ImageFont.load_default(15))
        top += _CAPTION
        for i, image in enumerate(images):
            resample = Image.Resampling.NEAREST if side >= image.shape[0] else Image.Resampling.LANCZOS
            place = (_MARGIN + i % _COLUMNS * side, top + i // _COLUMNS * side)
            page.paste(picture(image).resize((side, side), resample), place)
        top += n * side + _MARGIN
    buffer = io.BytesIO()
    page.save(buffer, format="PNG")
    return buffer.getvalue()


def _tile(side: int) -> int:
    """Small images are enlarged by a whole number, large ones reduced."""
    return min(side * -(-_SMALLEST // side), _LARGEST) if side < _SMALLEST else min(side, _LARGEST)
