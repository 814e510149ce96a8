"""How many products are enough: solvers' errors of log-volume, from exact JᵀJ at a few latents.

Owns the arithmetic of the choice (METHOD: tolerance). A solver's answer depends on J through JᵀJ alone, so that once
JᵀJ is known at some latents, the error of every solver at every size there costs no further product. Knows nothing of
generators or volumes.
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
        size: m, vectors a pass; D for exact, P for projection.
        power: further passes (sketch).
        sweep: whether reverse products follow (pilot).
    """

    solver: str
    size: int
    power: int = 0
    sweep: bool = False

    @property
    def products(self) -> int:
        """Forward and reverse products a latent."""
        passes = {"exact": 1, "projection": 1, "pilot": 1 + self.sweep, "sketch": 2 * (1 + self.power)}
        return self.size * passes[self.solver]

    def __str__(self) -> str:
        """As people say it: "pilot 50", "pilot 40 + sweep", "sketch 44, power 1"."""
        more = " + sweep" if self.sweep else f", power {self.power}" if self.power else ""
        return self.solver if self.solver == "exact" else f"{self.solver} {self.size}{more}"


def pilot_basis(grams: Tensor) -> Tensor:
    """The eigenvectors of the mean JᵀJ over pilot latents, strongest first: the columns of [D, D] float64.

    Args:
        grams: [B, D, D] float64, JᵀJ at the pilot latents.
    """
    vectors = torch.linalg.eigh(grams.mean(dim=0))[1].flip(1)
    signs = torch.where(vectors.gather(0, vectors.abs().argmax(dim=0, keepdim=True)) < 0, -1.0, 1.0)
    return vectors * signs


def predicted(candidate: Candidate, grams: Tensor, top_k: int, basis: Tensor, tests: Tensor) -> Tensor:
    """The log-volumes a solver would give in exact arithmetic, without a single product.

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


def errors(found: Tensor, truth: Tensor) -> tuple[float, float]:
    """Root mean square and largest error of log-volumes, the mean offset removed: the zero carries no meaning.

    Args:
        found: [B] float64, as a solver gives them.
        truth: [B] float64.
    """
    difference = found - truth
    difference = difference - difference.mean()
    return float(difference.square().mean().sqrt()), float(difference.abs().max())


def smallest(
    kind: Callable[[int], Candidate], top_k: int, dim: int, tolerance: float, rms: Callable[[Candidate], float]
) -> Candidate | None:
    """The smallest size of a kind of solver whose error is within the tolerance; None where none below D is.

    Args:
        kind: the candidate of a given size.
        top_k: k, the smallest size there is.
        dim: D.
        tolerance: nats.
        rms: the error of a candidate.
    """
    low, high = top_k, dim - 1
    if low > high or rms(kind(high)) > tolerance:
        return None
    while low < high:  # errors fall with the size, up to noise: bisection finds a size that is within the tolerance
        middle = (low + high) // 2
        low, high = (low, middle) if rms(kind(middle)) <= tolerance else (middle + 1, high)
    return kind(high)


def _log_volume(grams: Tensor, top_k: int) -> Tensor:
    squares = torch.linalg.eigvalsh(grams)[:, -top_k:]
    return squares.clamp_min(torch.finfo(torch.float64).tiny).log().sum(dim=1) / 2
