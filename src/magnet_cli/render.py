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


def images(generator: Generator, latents: np.ndarray, truncation: float, size: int) -> np.ndarray:
    """The images of latents; a short batch is padded to full size, so that an image does not depend on the others.

    Args:
        generator: on its device.
        latents: [b, D] float32, 1 ≤ b ≤ size.
        truncation: ψ in (0, 1].
        size: B.

    Returns:
        [b, H, W, C] uint8: [-1, 1] mapped to 0..255, rounded, clipped.
    """
    weight = next(generator.module.parameters())
    padded = np.concatenate([latents, np.repeat(latents[-1:], size - len(latents), axis=0)])
    with torch.inference_mode():
        intensity = generator(torch.from_numpy(padded).to(weight), truncation)[: len(latents)]
        return ((intensity + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


def batches(generator: Generator, latents: np.ndarray, truncation: float, size: int) -> Iterator[np.ndarray]:
    """Each image [H, W, C] uint8 of any number of latents [n, D], in order."""
    for start in range(0, len(latents), size):
        yield from images(generator, latents[start : start + size], truncation, size)


def png(image: np.ndarray) -> bytes:
    """The PNG file of an image [H, W, C] uint8, C 1 or 3: a function of the pixels alone."""
    buffer = io.BytesIO()
    picture(image).save(buffer, format="PNG")
    return buffer.getvalue()


def picture(image: np.ndarray) -> Image.Image:
    """An image [H, W, C] uint8 as Pillow has it."""
    return Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
