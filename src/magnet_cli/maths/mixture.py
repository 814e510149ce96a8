"""A Gaussian mixture: the prior of generators that learned their own imbalance (Hwang et al., ICLR 2022: SLOGAN).

In numpy, because an index evaluates densities without torch.
"""

from dataclasses import dataclass

import numpy as np

from magnet_cli.errors import SpecError

_REGION = 0x726567696F6E  # separates the stream that measures the region from all others
_REGION_DRAWS = 100_000  # the share of the region is right to 3e-4 (one standard deviation, at 0.99)
_BLOCK = 1 << 22  # numbers in a block of work


@dataclass(frozen=True)
class Mixture:
    """Σ_c π_c N(μ_c, Σ_c) in D dimensions.

    Attributes:
        weights: [K] float64, π, > 0, of sum 1.
        means: [K, D] float64, μ.
        factors: [K, D, D] float64, lower triangular with a positive diagonal: Σ_c = L_c L_cᵀ.
    """

    weights: np.ndarray
    means: np.ndarray
    factors: np.ndarray

    def __post_init__(self) -> None:
        """Check shapes and values.

        Raises:
            SpecError: these are not the parameters of a Gaussian mixture.
        """
        k, d = self.means.shape if self.means.ndim == 2 else (0, 0)
        shapes = self.weights.shape == (k,) and self.factors.shape == (k, d, d) and k > 0 and d > 0
        finite = shapes and all(np.isfinite(each).all() for each in (self.weights, self.means, self.factors))
        right = finite and (self.weights > 0).all() and abs(self.weights.sum() - 1) < 1e-6
        if not (
            right and (np.diagonal(self.factors, axis1=1, axis2=2) > 0).all() and not np.triu(self.factors, 1).any()
        ):
            message = f"weights {list(self.weights.shape)}, means {list(self.means.shape)} and factors "
            message += f"{list(self.factors.shape)} are no Gaussian mixture's"
            raise SpecError(message, "weights are > 0 and of sum 1, factors lower triangular with a positive diagonal")

    @property
    def latent_dim(self) -> int:
        """D, length of a latent."""
        return self.means.shape[1]

    @property
    def num_components(self) -> int:
        """K, number of components."""
        return len(self.weights)

    def of(self, label: tuple[int, ...]) -> "Mixture":
        """Return the mixture of some components, their weights in proportion; of all if `label` is empty."""
        if not label:
            return self
        kept = list(dict.fromkeys(label))
        weights = self.weights[kept]
        return Mixture(weights / weights.sum(), self.means[kept], self.factors[kept])

    def draw(self, rng: np.random.Generator, rows: int, label: tuple[int, ...] = ()) -> tuple[np.ndarray, np.ndarray]:
        """Draw latents and their components; fewer rows of a stream are a prefix of more rows.

        Args:
            rng: stream of the latents; the stream of the components is spawned from it.
            rows: number of latents.
            label: components drawn from, in proportion to their weights; empty for all.

        Returns:
            [rows, D] float32, and [rows] int64.
        """
        kept = np.array(tuple(dict.fromkeys(label)) or range(self.num_components))
        ends = np.cumsum(self.weights[kept])
        marks = rng.spawn(1)[0].random(rows) * ends[-1]
        components = kept[np.minimum(np.searchsorted(ends, marks, side="right"), len(kept) - 1)]
        noise = rng.standard_normal((rows, self.latent_dim), dtype=np.float32)
        latents = np.empty_like(noise)
        for c in np.unique(components).tolist():
            ours = components == c
            latents[ours] = self.means[c] + noise[ours].astype(np.float64) @ self.factors[c].T
        return latents, components

    def draw_components(self, rng: np.random.Generator, latents: np.ndarray, label: tuple[int, ...] = ()) -> np.ndarray:
        """Draw the component that each latent came from, given the latent: c with probability p(c | z).

        Args:
            rng: stream of the draws.
            latents: [n, D] floating.
            label: components that latents come from; empty for all.

        Returns:
            [n] int64.
        """
        kept = np.array(tuple(dict.fromkeys(label)) or range(self.num_components))
        logs = self.log_densities(latents)[:, kept]
        return kept[(logs + rng.gumbel(size=logs.shape)).argmax(axis=1)]

    def log_densities(self, latents: np.ndarray) -> np.ndarray:
        """Return log π_c N(z; μ_c, Σ_c) of latents [n, D] for each component: [n, K] float64."""
        from scipy.linalg import solve_triangular  # slow to import

        logs = np.empty((len(latents), self.num_components))
        for c, (weight, mean, factor) in enumerate(zip(self.weights, self.means, self.factors, strict=True)):
            constant = np.log(weight) - np.log(np.diagonal(factor)).sum() - 0.5 * len(mean) * np.log(2 * np.pi)
            size = max(1, _BLOCK // len(mean))
            for start in range(0, len(latents), size):
                away = latents[start : start + size].astype(np.float64) - mean
                white = solve_triangular(factor, away.T, lower=True)
                logs[start : start + size, c] = constant - 0.5 * np.einsum("ij,ij->j", white, white)
        return logs

    def log_density(self, latents: np.ndarray) -> np.ndarray:
        """Return log Σ_c π_c N(z; μ_c, Σ_c) of latents [n, D]: [n] float64."""
        return np.logaddexp.reduce(self.log_densities(latents), axis=1)

    def log_shapes(self, latents: np.ndarray, components: np.ndarray) -> np.ndarray:
        """Return [n] log N(z; μ_c, Σ_c) less its maximum, -|L_c⁻¹ (z - μ_c)|²/2: latents [n, D], components [n]."""
        logs = self.log_densities(latents)[np.arange(len(latents)), components]
        peaks = np.log(self.weights) - np.log(np.diagonal(self.factors, axis1=1, axis2=2)).sum(axis=1)
        return logs - (peaks - 0.5 * self.latent_dim * np.log(2 * np.pi))[components]

    def lowest(self, mass: float) -> float:
        """Return log t such that {z: p(z) ≥ t}, the region of highest density, holds a share of the prior.

        There is no closed form for a mixture: the quantile of log p over 100,000 draws from a fixed stream.
        """
        latents, _ = self.draw(np.random.default_rng(_REGION), _REGION_DRAWS)
        return float(np.quantile(self.log_density(latents), 1 - mass))
