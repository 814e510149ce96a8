"""Fill the missing shards of a volume with latents and the singular values of the generator's Jacobian.

Joins generators, jacobian and volume. The caller owns progress and stopping: `fill` yields once a shard is safe on
disk, and may be dropped at any time.
"""

from collections.abc import Iterator

import numpy as np
import torch

from magnet_cli import jacobian
from magnet_cli.errors import GeneratorError
from magnet_cli.generators import Generator
from magnet_cli.volume import Shard, Volume, VolumeSpec

DEFAULT_ROWS = {"mnist": 20_000}
_SHARD_WORK = 1 << 27  # numbers in a shard's Jacobians: minutes on two cores for a 64x64 face generator
_BATCH_WORK = 1 << 22  # numbers in a batch of Jacobians: tens of MB, and large enough calls to be fast


def default_rows(name: str) -> int:
    """N where none is asked."""
    return DEFAULT_ROWS.get(name, 10_000)


def default_top_k(latent_dim: int) -> int:
    """K where none is asked: D where D ≤ 128, else 30."""
    return latent_dim if latent_dim <= 128 else 30  # noqa: PLR2004


def shard_rows(generator: Generator) -> int:
    """R where none is asked: a fixed number per generator size, 64 to 2,000; never a measured one."""
    return int(np.clip(_SHARD_WORK // _jacobian_size(generator), 64, 2000))


def batch_size(generator: Generator) -> int:
    """Latents whose Jacobians are computed at once; a function of the generator alone, so that runs are repeatable."""
    return int(np.clip(_BATCH_WORK // _jacobian_size(generator), 1, 64))


def _jacobian_size(generator: Generator) -> int:
    return generator.latent_dim * int(np.prod(generator.image_shape))


def spec(
    generator: Generator,
    *,
    top_k: int | None = None,
    truncation: float = 1.0,
    precision: str = "float32",
    seed: int = 0,
    rows_per_shard: int | None = None,
) -> VolumeSpec:
    """The spec of a generator's volume, what was not asked for filled in.

    Raises:
        SpecError: a value outside its range.
    """
    return VolumeSpec(
        generator=generator.name,
        sha256=generator.sha256,
        family=generator.family,
        prior=generator.prior,
        latent_dim=generator.latent_dim,
        space="z",
        output="pixel",
        truncation=truncation,
        top_k=top_k or default_top_k(generator.latent_dim),
        solver="exact",
        precision=precision,
        rank_floor=jacobian.RANK_FLOOR[precision],
        seed=seed,
        shard_rows=rows_per_shard or shard_rows(generator),
    )


def draw_latents(latent_dim: int, seed: int, shard: int, rows: int) -> np.ndarray:
    """The first latents of a shard from N(0, I): a function of (seed, shard) alone.

    Returns:
        [rows, D] float32; fewer rows are a prefix of more.
    """
    return np.random.default_rng([seed, shard]).standard_normal((rows, latent_dim), dtype=np.float32)


def fill(volume: Volume, generator: Generator, num_rows: int, batch: int | None = None) -> Iterator[tuple[int, int]]:
    """Compute what is missing of rows 0..num_rows-1, shard by shard.

    Args:
        volume: where the rows go; its spec is that of `generator`.
        generator: on its device, its weights in the spec's precision.
        num_rows: N, how many rows the volume is to have at least.
        batch: latents at a time; default `batch_size`.

    Yields:
        (shard, new rows in it), once they are safe on disk.

    Raises:
        GeneratorError: singular values are not finite (shard and row are named), or no forward products.
        VolumeError: a stored shard that is to be extended is damaged.
        MagnetError: the volume cannot be written.
    """
    volume.settle()
    size = batch or batch_size(generator)
    for shard, rows in volume.missing(num_rows):
        latents = draw_latents(generator.latent_dim, volume.spec.seed, shard, rows)
        stored = volume.read(shard).singular_values if shard in volume.shards() else None
        done = 0 if stored is None else len(stored)
        new = singular_values(generator, latents[done:], volume.spec, size)
        if not np.isfinite(new).all():
            row = done + int(np.flatnonzero(~np.isfinite(new).all(axis=1))[0])
            message = f"the Jacobian of {generator.name} is not finite at shard {shard}, row {row}"
            raise GeneratorError(message, "check the weights for overflow, or pass --precision float64")
        values = new if stored is None else np.concatenate([stored, new])
        volume.write(shard, Shard(latents, values))
        yield shard, rows - done


def singular_values(generator: Generator, latents: np.ndarray, spec: VolumeSpec, size: int) -> np.ndarray:
    """The singular values at given latents; the last batch is padded, so that every call has the same shape.

    Args:
        generator: on its device, its weights in the spec's precision.
        latents: [r, D] float32.
        spec: top_k, precision and truncation are used.
        size: B, latents at a time.

    Returns:
        [r, K] float32, descending.
    """
    dtype = jacobian.PRECISIONS[spec.precision]
    device = next(generator.module.parameters()).device
    parts = []
    for start in range(0, len(latents), size):
        batch = latents[start : start + size]
        padded = np.concatenate([batch, np.repeat(batch[-1:], size - len(batch), axis=0)])
        z = torch.from_numpy(padded).to(device=device, dtype=dtype)
        values = jacobian.exact(lambda x: generator(x, spec.truncation), z, spec.top_k)
        parts.append(values[: len(batch)].to(device="cpu", dtype=torch.float32).numpy())
    return np.concatenate(parts)
