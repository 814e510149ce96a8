"""Render latents: from a generator to pixels and PNG bytes.

Owns the map from image intensity to bytes and the batches it is made in. Knows nothing of folders or of where latents
come from.
"""

import io
from collections.abc import Iterator

import numpy as np
import torch
from PIL import Image

from magnet_cli.generators import Generator

_BATCH_WORK = 1 << 22  # numbers in a batch of images


def batch_size(generator: Generator) -> int:
    """Images rendered at once; a function of the generator alone, so that runs are repeatable."""
    return int(np.clip(_BATCH_WORK // int(np.prod(generator.image_shape)), 1, 256))


def arrays(
    generator: Generator, latents: np.ndarray, truncation: float, size: int, labels: np.ndarray | None = None
) -> np.ndarray:
    """What a generator gives; a short batch is padded to full size, so that a row does not depend on the others.

    Args:
        generator: on its device.
        latents: [b, D] float32, 1 ≤ b ≤ size.
        truncation: ψ in (0, 1].
        size: B.
        labels: [b] int64, where the generator takes labels.

    Returns:
        [b, C, H, W] float32 in about [-1, 1]; of a generator of the user's own, [b, ...].
    """
    weight = next(generator.module.parameters())
    z = torch.from_numpy(_padded(latents, size)).to(weight)
    given = None if labels is None else torch.from_numpy(_padded(labels, size)).to(weight.device)
    with torch.inference_mode():
        return generator(z, truncation, given)[: len(latents)].to(device="cpu", dtype=torch.float32).numpy()


def images(
    generator: Generator, latents: np.ndarray, truncation: float, size: int, labels: np.ndarray | None = None
) -> np.ndarray:
    """The images of latents, as `arrays`, as pixels.

    Returns:
        [b, H, W, C] uint8: [-1, 1] mapped to 0..255, rounded, clipped.
    """
    intensity = arrays(generator, latents, truncation, size, labels)
    return np.clip(np.rint((intensity + 1) * 127.5), 0, 255).astype(np.uint8).transpose(0, 2, 3, 1)


def _padded(rows: np.ndarray, size: int) -> np.ndarray:
    return np.concatenate([rows, np.repeat(rows[-1:], size - len(rows), axis=0)])


def batches(
    generator: Generator, latents: np.ndarray, truncation: float, size: int, labels: np.ndarray | None = None
) -> Iterator[np.ndarray]:
    """Each image [H, W, C] uint8 of any number of latents [n, D], in order; labels [n] int64 where it takes them."""
    for start in range(0, len(latents), size):
        places = slice(start, start + size)
        yield from images(generator, latents[places], truncation, size, None if labels is None else labels[places])


def png(image: np.ndarray) -> bytes:
    """The PNG file of an image [H, W, C] uint8, C 1 or 3: a function of the pixels alone."""
    buffer = io.BytesIO()
    picture(image).save(buffer, format="PNG")
    return buffer.getvalue()


def npy(array: np.ndarray) -> bytes:
    """The NPY file of an array: a function of its numbers alone."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def picture(image: np.ndarray) -> Image.Image:
    """An image [H, W, C] uint8 as Pillow has it."""
    return Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
