"""The Fréchet distance of two Gaussians fitted to features: FID (Heusel et al. 2017) with features of any kind.

In float64. Needs more rows than features on each side: with fewer rows a covariance does not have full rank, and the
distance measures the number of rows.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from magnet_cli.maths.metrics.intervals import GROUPS


@dataclass(frozen=True)
class Moments:
    """Sums over rows, which can be added and subtracted.

    Attributes:
        n: number of rows.
        first: [F] sum.
        second: [F, F] sum of outer products.
    """

    n: int
    first: np.ndarray
    second: np.ndarray

    @classmethod
    def of(cls, points: np.ndarray) -> "Moments":
        """Return the sums over points [n, F] float64."""
        return cls(len(points), points.sum(axis=0), points.T @ points)

    def __add__(self, other: "Moments") -> "Moments":
        return Moments(self.n + other.n, self.first + other.first, self.second + other.second)

    def __sub__(self, other: "Moments") -> "Moments":
        return Moments(self.n - other.n, self.first - other.first, self.second - other.second)

    def gaussian(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the mean [F] and the covariance [F, F], with denominator n - 1."""
        mean = self.first / self.n
        return mean, (self.second - self.n * np.outer(mean, mean)) / (self.n - 1)


def distance(one: tuple[np.ndarray, np.ndarray], other: tuple[np.ndarray, np.ndarray]) -> float:
    """Return |m₁ - m₂|² + tr(S₁ + S₂ - 2 (S₁ S₂)^½) of two Gaussians (mean [F], covariance [F, F]), float64.

    The trace of the root is the sum of the roots of the eigenvalues of R S₂ R, with R the root of S₁. These matrices
    are symmetric, so that rounding gives no imaginary part.
    """
    (mean, covariance), (other_mean, other_covariance) = one, other
    values, vectors = np.linalg.eigh(covariance)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    inner = np.linalg.eigvalsh(root @ other_covariance @ root)
    trace = np.trace(covariance) + np.trace(other_covariance) - 2 * np.sqrt(np.maximum(inner, 0)).sum()
    return float(max(np.sum((mean - other_mean) ** 2) + trace, 0.0))


def fid(
    points: np.ndarray,
    reference: np.ndarray,
    dealt: tuple[np.ndarray, np.ndarray] | None,
    advance: Callable[[int], None] = lambda _: None,
) -> tuple[float, np.ndarray]:
    """Return the Fréchet distance, and the distance without each group.

    Args:
        points: [n, F] float64, n > F.
        reference: [m, F] float64, m > F.
        dealt: the groups of both, [n] and [m]; None for no replicas.
        advance: called with 1 for each of the GROUPS + 1 distances.

    Returns:
        The distance; [GROUPS] of replicas, or [0].
    """
    centre = reference.mean(axis=0)  # near 0 sums of squares lose no digits
    sides = (points - centre, reference - centre)
    sums = [Moments.of(side) for side in sides]
    value = distance(*(m.gaussian() for m in sums))
    advance(1)
    if dealt is None:
        return value, np.empty(0)
    replicas = []
    for group in range(GROUPS):
        parts = (Moments.of(side[of == group]) for side, of in zip(sides, dealt, strict=True))
        replicas.append(distance(*((m - part).gaussian() for m, part in zip(sums, parts, strict=True))))
        advance(1)
    return value, np.array(replicas)
