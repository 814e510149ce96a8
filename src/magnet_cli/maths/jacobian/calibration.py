"""Predict the errors of solvers from exact JᵀJ at a few latents (docs/method.md#tolerance).

The result of a solver depends on J through JᵀJ alone. So once JᵀJ is computed at some latents, the error of every
solver at every size costs no further product.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Candidate:
    """A solver with its sizes.

    Attributes:
        solver: "exact", "pilot", "sketch" or "projection".
        size: m, number of vectors of a pass; D for exact, P for projection.
        power: number of further passes of a sketch.
        sweep: whether the forward products of a pilot are followed by reverse products.
    """

    solver: str
    size: int
    power: int = 0
    sweep: bool = False

    @property
    def products(self) -> int:
        """Number of forward and reverse products for each latent."""
        passes = {"exact": 1, "projection": 1, "pilot": 1 + self.sweep, "sketch": 2 * (1 + self.power)}
        return self.size * passes[self.solver]

    def __str__(self) -> str:
        """Return "pilot 50", "pilot 40 + sweep", "sketch 44, power 1"."""
        more = " + sweep" if self.sweep else f", power {self.power}" if self.power else ""
        return self.solver if self.solver == "exact" else f"{self.solver} {self.size}{more}"


def pilot_basis(grams: Tensor) -> Tensor:
    """Return the eigenvectors of the mean JᵀJ over pilot latents: columns of [D, D] float64, strongest first.

    Args:
        grams: [B, D, D] float64, JᵀJ at the pilot latents.
    """
    vectors = torch.linalg.eigh(grams.mean(dim=0))[1].flip(1)
    signs = torch.where(vectors.gather(0, vectors.abs().argmax(dim=0, keepdim=True)) < 0, -1.0, 1.0)
    return vectors * signs


def predicted(candidate: Candidate, grams: Tensor, top_k: int, basis: Tensor, tests: Tensor) -> Tensor:
    """Return the log-volumes that a solver gives in exact arithmetic.

    Args:
        candidate: pilot, sketch or exact.
        grams: [B, D, D] float64, JᵀJ at some latents.
        top_k: k.
        basis: [D, D], columns: the pilot basis.
        tests: [B, D, D], columns: the random test matrices of these latents.

    Returns:
        [B] float64, natural log.
    """
    if candidate.solver == "exact":
        return _log_volume(grams, top_k)
    if candidate.solver == "pilot":
        span = basis[:, : candidate.size].expand(len(grams), -1, -1)
        if not candidate.sweep:
            return _log_volume(span.mT @ grams @ span, top_k)
    else:
        span = tests[:, :, : candidate.size]
        for _ in range(candidate.power):
            span = torch.linalg.qr(grams @ span)[0]
    # Q spans J A, so (QᵀJ)(QᵀJ)ᵀ has the eigenvalues of R^-1 Aᵀ(JᵀJ)²A R^-T with RᵀR = Aᵀ(JᵀJ)A
    span = torch.linalg.qr(span)[0]
    image = grams @ span
    values, rotation = torch.linalg.eigh(span.mT @ image)
    scale = values.clamp_min(values[:, -1:] * 1e-14).rsqrt()
    whitened = (image @ rotation) * scale[:, None, :]
    return _log_volume(whitened.mT @ whitened, top_k)


def errors(values: Tensor, truth: Tensor) -> tuple[float, float]:
    """Return the rms and the largest error of log-volumes, in nats, after the mean offset is removed.

    Args:
        values: [B] float64, by a solver.
        truth: [B] float64.
    """
    difference = values - truth
    difference = difference - difference.mean()
    return float(difference.square().mean().sqrt()), float(difference.abs().max())


def smallest(
    kind: Callable[[int], Candidate], top_k: int, dim: int, tolerance: float, rms: Callable[[Candidate], float]
) -> Candidate | None:
    """Return the candidate of the smallest size below D whose error is within the tolerance; None if there is none.

    Args:
        kind: returns the candidate of a size.
        top_k: k, the smallest size.
        dim: D.
        tolerance: in nats.
        rms: returns the error of a candidate.
    """
    low, high = top_k, dim - 1
    if low > high or rms(kind(high)) > tolerance:
        return None
    while low < high:  # errors fall with the size up to noise, so that bisection finds a size within the tolerance
        middle = (low + high) // 2
        low, high = (low, middle) if rms(kind(middle)) <= tolerance else (middle + 1, high)
    return kind(high)


def _log_volume(grams: Tensor, top_k: int) -> Tensor:
    squares = torch.linalg.eigvalsh(grams)[:, -top_k:]
    return squares.clamp_min(torch.finfo(torch.float64).tiny).log().sum(dim=1) / 2
