"""Convert image intensity to pixels, and pixels to the bytes of a file, which depend on the pixels alone."""

import io
import warnings
from typing import Any

import numpy as np
from PIL import Image

FORMATS: dict[str, dict[str, Any]] = {  # how Pillow is to write each
    "png": {"format": "PNG", "compress_level": 3},  # of photographs half the time of Pillow's 6, files 7 % larger
    "jpg": {"format": "JPEG", "quality": 95, "subsampling": 0},
    "webp": {"format": "WEBP", "lossless": True},
}
READ = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "PPM")  # Pillow's other decoders run programs, or are seldom looked after
_LOWEST, _STEP = 1.0, 127.5  # intensity -1 is the pixel value 0, intensity 1 is 255


def pixels(intensity: np.ndarray) -> np.ndarray:
    """Convert intensity to pixels.

    Args:
        intensity: [b, C, H, W] float32 in about [-1, 1].

    Returns:
        [b, H, W, C] uint8: [-1, 1] mapped to 0..255, rounded, clipped.
    """
    scaled = (intensity + _LOWEST) * _STEP
    return np.clip(np.rint(scaled, out=scaled), 0, 255, out=scaled).astype(np.uint8).transpose(0, 2, 3, 1)


def picture(image: np.ndarray) -> Image.Image:
    """Return an image [H, W, C] uint8, C 1 or 3, as a Pillow image."""
    return Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else np.ascontiguousarray(image))


def encoded(image: np.ndarray, ending: str) -> bytes:
    """Return the bytes of an image [H, W, C] uint8, C 1 or 3, in one of FORMATS."""
    buffer = io.BytesIO()
    picture(image).save(buffer, **FORMATS[ending])
    return buffer.getvalue()


def npy(array: np.ndarray) -> bytes:
    """The NPY file of an array: a function of its numbers alone."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def opened(data: bytes) -> Image.Image:
    """Open bytes with the decoders of the formats in READ alone, whatever the name of their file.

    Raises:
        OSError, SyntaxError, ValueError, Image.DecompressionBombError: the bytes are no image of these formats.
    """
    return Image.open(io.BytesIO(data), formats=READ)


def is_whole(data: bytes) -> bool:
    """Whether bytes are those of a whole picture or NPY file: what a power cut leaves of one is not."""
    try:
        if data.startswith(np.lib.format.MAGIC_PREFIX):
            np.load(io.BytesIO(data), allow_pickle=False)
            return True
        with warnings.catch_warnings(action="error"), opened(data) as image:
            image.load()
    except (
        OSError,
        ValueError,
        SyntaxError,
        EOFError,
        Warning,
        Image.DecompressionBombError,
    ):  # what Pillow and numpy raise for damaged files
        return False
    return True
