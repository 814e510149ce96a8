"""The prior of a generator: draws of latents and labels, and the density of latents.

A draw is a function of its stream of random numbers alone: fewer rows of one stream are the first of more. Numpy alone:
an index evaluates densities where torch is not installed.
"""

from dataclasses import dataclass

import numpy as np

from magnet_cli.errors import SpecError
from magnet_cli.maths.mixture import Mixture

KINDS = ("normal", "sphere", "fixed-length", "truncated-normal", "uniform", "mixture")
SPHERES = ("sphere", "fixed-length")  # |z| = √D
EVEN = (*SPHERES, "uniform")  # the same density wherever there is any
TRUNCATED_AT = 2.0  # of each |zᵢ| of a truncated normal


@dataclass(frozen=True)
class Prior:
    """The distribution of a generator's latents, and of the labels that go with them.

    >>> latents, labels = Prior("normal", 16, num_classes=3).draw(4, seed=0)
    >>> latents.shape, labels.tolist()
    ((4, 16), [0, 1, 2, 0])

    Attributes:
        kind: "normal" is N(0, I); "truncated-normal" that where all |zᵢ| ≤ 2; "sphere" uniform on |z| = √D, for
            generators that normalise z, whatever they draw it from; "fixed-length" the same, for generators that take
            z as it is, whose images depend on |z|; "uniform" uniform on all |zᵢ| ≤ 1; "mixture" a
            Gaussian mixture, whose components are the labels.
        latent_dim: D.
        num_classes: of labels; 0 where the generator takes none. Of a mixture, the number of its components.
        mixture: of the kind "mixture"; None for all others.
    """

    kind: str
    latent_dim: int
    num_classes: int = 0
    mixture: Mixture | None = None

    def __post_init__(self) -> None:
        """Check that the fields fit.

        Raises:
            SpecError: the kind is unknown, a mixture is missing or left over, or it has other sizes.
        """
        if self.kind not in KINDS:
            raise SpecError(f"prior {self.kind!r} is none of {', '.join(KINDS)}", "pass one of these")
        if (self.mixture is not None) != (self.kind == "mixture"):
            message = f"a prior of the kind {self.kind!r} is {'given a' if self.mixture else 'given no'} mixture"
            raise SpecError(message, "pass `mixture` with the kind 'mixture', and with no other")
        sizes = (self.latent_dim, self.num_classes)
        if self.mixture and sizes != (self.mixture.latent_dim, self.mixture.num_components):
            message = f"a mixture of {self.mixture.num_components} components in {self.mixture.latent_dim} dimensions "
            message += f"is given with {sizes[1]} classes and latents of {sizes[0]} numbers"
            raise SpecError(message, "use `Prior.of_mixture`")

    @classmethod
    def of_mixture(cls, mixture: Mixture) -> "Prior":
        """Return the prior that a mixture is; its components are the labels."""
        return cls("mixture", mixture.latent_dim, mixture.num_components, mixture)

    @property
    def is_even(self) -> bool:
        """Whether the density is the same wherever it is not 0."""
        return self.kind in EVEN

    def draw(
        self, n: int, seed: int | np.random.Generator = 0, label: tuple[int, ...] = (), first: int = 0
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Draw latents, and their labels; fewer of one seed are a prefix of more.

        Args:
            n: number of latents.
            seed: a seed, or the stream of the latents; components of a mixture come from a stream that it spawns.
            label: of a mixture, the components drawn from, in proportion to their weights; of other conditional
                generators, the labels that take turns. Empty for all.
            first: number of the first latent, where labels take turns: row i has the (i mod their number)-th.

        Returns:
            [n, D] float32, and [n] int64; None in place of the labels where there are none.
        """
        rng = np.random.default_rng(seed)
        if self.mixture is not None:
            return self.mixture.draw(rng, n, label)
        labels = labels_in_turn(label or tuple(range(self.num_classes)), n, first) if self.num_classes else None
        return self._latents(rng, n), labels

    def draw_shard(
        self, seed: int, shard: int, n: int, label: tuple[int, ...] = (), first: int = 0
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Draw the first n latents of a shard, a function of (seed, shard) alone, and their labels, as `draw`."""
        return self.draw(n, np.random.default_rng([seed, shard]), label, first)

    def log_density(self, latents: np.ndarray) -> np.ndarray:
        """Return the log of the density at latents that the prior can draw: [n] float64.

        Normal and truncated normal: −|z|²/2, a constant left out; spheres and uniform: 0, a constant left out. Mixture:
        log Σ_c π_c N(z; μ_c, Σ_c), nothing left out. Whether a latent is within the bounds of the prior is not checked.

        Args:
            latents: [n, D] floating.
        """
        if self.mixture is not None:
            return self.mixture.log_density(latents)
        if self.is_even:
            return np.zeros(len(latents))
        squares: np.ndarray = np.einsum("ij,ij->i", latents, latents, dtype=np.float64)
        return -0.5 * squares

    def _latents(self, rng: np.random.Generator, n: int) -> np.ndarray:
        size = (n, self.latent_dim)
        if self.kind == "uniform":
            return 2 * rng.random(size, dtype=np.float32) - 1
        if self.kind == "truncated-normal":
            return _truncated(rng, n * self.latent_dim).reshape(size)
        z = rng.standard_normal(size, dtype=np.float32)
        return on_sphere(z) if self.kind in SPHERES else z


def labels_in_turn(classes: tuple[int, ...], n: int, first: int = 0) -> np.ndarray:
    """Return labels [n] int64 that take turns: number i of a sequence has the (i mod their number)-th.

    Args:
        classes: the labels, one or more.
        n: how many.
        first: number of the first in the sequence.
    """
    return np.array(classes, np.int64)[(first + np.arange(n)) % len(classes)]


def on_sphere(z: np.ndarray) -> np.ndarray:
    """Return latents [n, D] float32 scaled to |z| = √D."""
    length = np.linalg.norm(z.astype(np.float64), axis=1, keepdims=True)
    scaled: np.ndarray = z * (np.sqrt(z.shape[1]) / length)
    return scaled.astype(np.float32)


def _truncated(rng: np.random.Generator, count: int) -> np.ndarray:
    """The first [count] float32 of a stream of N(0, 1) that are within the bound, in their order."""
    kept = np.empty(0, np.float32)
    while len(kept) < count:
        drawn = rng.standard_normal(count, dtype=np.float32)
        kept = np.concatenate([kept, drawn[np.abs(drawn) <= TRUNCATED_AT]])
    return kept[:count]
