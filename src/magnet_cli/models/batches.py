"""Render latents in batches, to arrays or pixels: the output for a latent does not depend on the rest of its batch."""

from collections.abc import Callable, Iterator

import numpy as np
import torch

from magnet_cli.files import pictures
from magnet_cli.models.generator import Generator

_BATCH_WORK = 1 << 22  # numbers in a batch of images
_MOST_IMAGES = 64  # in a batch: more leave a CPU's caches


def batch_size(generator: Generator) -> int:
    """Return the number of images rendered at once, a function of the generator alone, so that runs are repeatable."""
    return int(np.clip(_BATCH_WORK // int(np.prod(generator.image_shape)), 1, _MOST_IMAGES))


def arrays(
    generator: Generator,
    latents: np.ndarray,
    truncation: float,
    size: int,
    labels: np.ndarray | None = None,
    space: str = "z",
) -> np.ndarray:
    """Render latents [b, D], b ≤ size, to [b, C, H, W] float32 in about [-1, 1]; code of the user's own, to [b, ...].

    A short batch is padded to `size`, so that a row does not depend on the number of rows. Labels are [b] int64. In the
    space "w" latents are [b, Dw], as the mapping network gives them.
    """
    weight = next(generator.module.parameters())
    z = torch.from_numpy(_padded(latents, size).astype(np.float32)).to(weight)
    named = None if labels is None else torch.from_numpy(_padded(labels, size)).to(weight.device)
    with torch.inference_mode():
        output = generator(z, truncation, named) if space == "z" else generator.module.synthesis(z, truncation)  # type: ignore[operator]
        return output[: len(latents)].to(device="cpu", dtype=torch.float32).numpy()


def _padded(rows: np.ndarray, size: int) -> np.ndarray:
    return np.concatenate([rows, np.repeat(rows[-1:], size - len(rows), axis=0)])


def arrays_of(
    generator: Generator,
    latents: np.ndarray,
    truncation: float,
    size: int,
    labels: np.ndarray | None = None,
    space: str = "z",
) -> Callable[[slice], np.ndarray]:
    """Return a function that renders a slice of at most `size` latents, as `arrays`."""
    return lambda rows: arrays(
        generator, latents[rows], truncation, size, None if labels is None else labels[rows], space
    )


def images(
    generator: Generator, latents: np.ndarray, truncation: float, size: int, labels: np.ndarray | None = None
) -> np.ndarray:
    """Render one batch, as `arrays`, to pixels [b, H, W, C] uint8."""
    return pictures.pixels(arrays(generator, latents, truncation, size, labels))


def each_image(
    generator: Generator, latents: np.ndarray, truncation: float, size: int, labels: np.ndarray | None = None
) -> Iterator[np.ndarray]:
    """Yield the image [H, W, C] uint8 of each of any number of latents [n, D], in order; labels are [n] int64."""
    render = arrays_of(generator, latents, truncation, size, labels)
    for start in range(0, len(latents), size):
        yield from pictures.pixels(render(slice(start, start + size)))
