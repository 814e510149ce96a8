"""Draws from the prior of a generator: the latents of a volume's rows, and any others.

Owns the priors and their random streams; a latent is a function of its seed and place alone. Needs numpy, and nothing
of the generator but its prior.
"""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from magnet_cli.models import Generator


def draw(rng: np.random.Generator, rows: int, latent_dim: int, prior: str) -> np.ndarray:
    """Latents [rows, D] float32 from a prior.

    N(0, I), for "sphere" scaled to |z| = √D, for "truncated-normal" within 2 of 0; or "uniform" on [-1, 1].
    """
    if prior == "uniform":
        return 2 * rng.random((rows, latent_dim), dtype=np.float32) - 1
    if prior == "truncated-normal":
        return _within_two(rng, rows * latent_dim).reshape(rows, latent_dim)
    z = rng.standard_normal((rows, latent_dim), dtype=np.float32)
    return on_sphere(z) if prior == "sphere" else z


def _within_two(rng: np.random.Generator, count: int) -> np.ndarray:
    """The first [count] float32 of a stream of N(0, 1) that are within 2 of 0, in their order."""
    kept = np.empty(0, np.float32)
    while len(kept) < count:
        drawn = rng.standard_normal(count, dtype=np.float32)
        kept = np.concatenate([kept, drawn[np.abs(drawn) <= 2]])
    return kept[:count]


def on_sphere(z: np.ndarray) -> np.ndarray:
    """Latents [r, D] float32 scaled to |z| = √D."""
    length = np.linalg.norm(z.astype(np.float64), axis=1, keepdims=True)
    return (z * (np.sqrt(z.shape[1]) / length)).astype(np.float32)


def draw_latents(latent_dim: int, seed: int, shard: int, rows: int, prior: str = "normal") -> np.ndarray:
    """The first latents of a shard: a function of (seed, shard) alone.

    Returns:
        [rows, D] float32 from the prior; fewer rows are a prefix of more.
    """
    return draw(np.random.default_rng([seed, shard]), rows, latent_dim, prior)


def draw_rows(
    generator: "Generator", seed: int, shard: int, rows: int, label: tuple[int, ...] = ()
) -> tuple[np.ndarray, np.ndarray | None]:
    """The first latents of a shard and, of a mixture prior, the component of each: a function of (seed, shard) alone.

    Args:
        generator: whose prior.
        seed: of the volume.
        shard: its number.
        rows: how many; fewer are a prefix of more.
        label: of a mixture, the components drawn from; empty for all.

    Returns:
        [rows, D] float32, and [rows] int64 or None.
    """
    return some_rows(generator, np.random.default_rng([seed, shard]), rows, label)


def some_rows(
    generator: "Generator", rng: np.random.Generator, rows: int, label: tuple[int, ...] = ()
) -> tuple[np.ndarray, np.ndarray | None]:
    """Latents of a generator's prior [rows, D] float32 and, of a mixture, the component of each, as `draw_rows`."""
    if generator.mixture is None:
        return draw(rng, rows, generator.latent_dim, generator.prior), None
    return generator.mixture.draw(rng, rows, label)
