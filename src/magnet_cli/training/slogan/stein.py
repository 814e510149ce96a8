"""Gradients of a mixture prior by Stein's lemma, from the slopes of a loss at latents, and steps along them.

Hwang et al. 2022, section 3, in float64 on the CPU. Every random number comes from a torch.Generator that is passed in.

With q(z) = Σ_c π_c N(z; μ_c, Σ_c), π the softmax of the logits ρ, and responsibilities r_c(z) = π_c N(z; μ_c, Σ_c) /
q(z), the gradients of E_q[ℓ(z)] are

    of μ_c: E_q[r_c ∇ℓ]      of Σ_c: ½ E_q[r_c Σ_c⁻¹ (z − μ_c) ∇ℓᵀ], made symmetric      of ρ_c: E_q[(r_c − π_c) ℓ]

They need ∂ℓ/∂z only, not the component that a latent was drawn from.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class LearnedMixture:
    """A Gaussian mixture with learnable parameters: float64 tensors on the CPU.

    Attributes:
        logits: [K], ρ: the weights are their softmax.
        means: [K, D], μ.
        factors: [K, D, D], lower triangular with a positive diagonal: Σ_c = L_c L_cᵀ.
    """

    logits: Tensor
    means: Tensor
    factors: Tensor

    @classmethod
    def first(cls, components: int, latent_dim: int, spread: float, rng: torch.Generator) -> "LearnedMixture":
        """Return the initial mixture: equal weights, means from N(0, spread² I), covariances I."""
        means = spread * torch.randn(components, latent_dim, dtype=torch.float64, generator=rng)
        eye = torch.eye(latent_dim, dtype=torch.float64)
        return cls(torch.zeros(components, dtype=torch.float64), means, eye.repeat(components, 1, 1))

    @property
    def weights(self) -> Tensor:
        """Weights [K], π."""
        return self.logits.softmax(0)

    @property
    def covariances(self) -> Tensor:
        """Covariances [K, D, D], Σ."""
        return self.factors @ self.factors.mT

    def draw(self, count: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw latents [count, D] and their components [count]."""
        components = torch.multinomial(self.weights, count, replacement=True, generator=rng)
        noise = torch.randn(count, self.means.shape[1], dtype=torch.float64, generator=rng)
        return self.at(components, noise), components

    def at(self, components: Tensor, noise: Tensor) -> Tensor:
        """Return the latents [n, D] of components [n] and standard normal noise [n, D]: μ_c + L_c ε."""
        z = self.means[components]
        for c, factor in enumerate(self.factors):
            ours = components == c
            z[ours] += noise[ours] @ factor.T
        return z

    def whitened(self, z: Tensor) -> Tensor:
        """Return L_c⁻¹ (z − μ_c) of latents [n, D] for each component: [K, D, n]."""
        away = (z[None] - self.means[:, None]).mT
        return torch.linalg.solve_triangular(self.factors, away, upper=False)

    def log_densities(self, z: Tensor) -> Tensor:
        """Return log π_c N(z; μ_c, Σ_c) of latents [n, D] up to a constant: [n, K]."""
        return self._log_densities(self.whitened(z))

    def _log_densities(self, white: Tensor) -> Tensor:
        determinants = self.factors.diagonal(dim1=1, dim2=2).log().sum(1)
        return (self.logits - determinants)[None] - 0.5 * white.square().sum(1).mT


@dataclass(frozen=True)
class Gradients:
    """Gradients of an expected loss: of logits [K], means [K, D] and covariances [K, D, D], symmetric."""

    logits: Tensor
    means: Tensor
    covariances: Tensor


def gradients(prior: LearnedMixture, z: Tensor, slopes: Tensor, losses: Tensor) -> Gradients:
    """Return unbiased estimates of the gradients from a batch of draws.

    For the logits the mean of the other losses is subtracted from each loss: E[r_c − π_c] = 0, so the expectation is
    the same and the variance smaller.

    Args:
        prior: the mixture that z was drawn from.
        z: [B, D], B ≥ 2.
        slopes: [B, D], ∂ℓ/∂z of the loss for means and covariances.
        losses: [B], the loss for the logits: the adversarial one only, since a contrastive loss tells nothing about the
            size of a component (the paper).
    """
    count = len(z)
    white = prior.whitened(z)
    share = prior._log_densities(white).softmax(1)
    of_means = share.mT @ slopes / count
    # Σ⁻¹(z − μ) = L⁻ᵀ [L⁻¹ (z − μ)]
    steep = torch.linalg.solve_triangular(prior.factors.mT, white, upper=True)
    of_covariances = (steep * share.mT[:, None]) @ slopes / (2 * count)
    centred = (losses - losses.mean()) * (count / (count - 1))
    of_logits = (share - prior.weights).mT @ centred / count
    return Gradients(of_logits, of_means, (of_covariances + of_covariances.mT) / 2)


@dataclass(frozen=True)
class Rates:
    """Learning rates of logits, means and covariances."""

    logits: float
    means: float
    covariances: float


def step(prior: LearnedMixture, slope: Gradients, rates: Rates) -> LearnedMixture:
    """Return the mixture after one descent step; its covariances stay positive definite for any gradient."""
    return LearnedMixture(
        prior.logits - rates.logits * slope.logits,
        prior.means - rates.means * slope.means,
        covariance_step(prior.factors, slope.covariances, rates.covariances),
    )


def covariance_step(factors: Tensor, gradient: Tensor, rate: float) -> Tensor:
    """Return the factors after a second-order step that keeps covariances positive definite.

    Lin et al. 2020; the paper's Theorem 3.

    With Δ = −gradient, Σ' = Σ + γ Δ + γ²/2 Δ Σ⁻¹ Δ = ½ (L Lᵀ + M Mᵀ), where M = (Σ + γ Δ) L⁻ᵀ. Σ' is never formed: its
    Cholesky factor is the triangle of a QR decomposition of [L M]ᵀ / √2, positive definite despite rounding.

    Args:
        factors: [K, D, D], L.
        gradient: [K, D, D], symmetric.
        rate: γ.

    Returns:
        [K, D, D], lower triangular with a positive diagonal.
    """
    moved = factors @ factors.mT - rate * gradient
    m = torch.linalg.solve_triangular(factors, moved, upper=False).mT
    triangle = torch.linalg.qr(torch.cat([factors, m], dim=2).mT / 2**0.5, mode="r").R
    signs = torch.where(triangle.diagonal(dim1=1, dim2=2) < 0, -1.0, 1.0)
    return (triangle * signs[:, :, None]).mT.contiguous()


def assigned(prior: LearnedMixture, z: Tensor, temperature: float, rng: torch.Generator) -> Tensor:
    """Assign a component to each latent z [n, D], drawn from its responsibilities: `gumbel_softmax` weights [n, K]."""
    return gumbel_softmax(prior.log_densities(z), temperature, rng)


def gumbel_softmax(log_weights: Tensor, temperature: float, rng: torch.Generator) -> Tensor:
    """Return rows [n, K] of sum 1 that tend to one-hot draws for τ → 0 (Jang et al. 2017), differentiable.

    Args:
        log_weights: [n, K], up to a constant per row.
        temperature: τ > 0.
        rng: random stream of the Gumbel noise.
    """
    uniform = torch.rand(log_weights.shape, dtype=log_weights.dtype, generator=rng)
    gumbel = -torch.log(-torch.log(uniform.clamp(min=torch.finfo(uniform.dtype).tiny)))
    return ((log_weights + gumbel) / temperature).softmax(-1)


class Explicit:
    """The paper's ablation of Stein's lemma: z as a differentiable function of the parameters.

    z = Σ_c y_c (μ_c + L_c ε), y by Gumbel-softmax from the logits, one-hot forward and soft backward; gradients are
    those of backpropagation.

    Attributes:
        z: latents [n, D], differentiable.
        components: [n].

    Args:
        prior: the mixture to draw from.
        count: n.
        temperature: τ.
        rng: random stream of all noise.
    """

    def __init__(self, prior: LearnedMixture, count: int, temperature: float, rng: torch.Generator) -> None:
        self._prior = LearnedMixture(*(t.clone().requires_grad_() for t in (prior.logits, prior.means, prior.factors)))
        soft = gumbel_softmax(self._prior.logits.expand(count, -1), temperature, rng)
        self.components = soft.argmax(1)
        hard = torch.nn.functional.one_hot(self.components, len(prior.logits)).to(soft) + soft - soft.detach()
        noise = torch.randn(count, prior.means.shape[1], dtype=torch.float64, generator=rng)
        every = self._prior.means[None] + torch.einsum("kij,nj->nki", self._prior.factors, noise)
        self.z = torch.einsum("nk,nki->ni", hard, every)

    def step(self, slopes: Tensor, adversarial: Tensor, rates: Rates) -> LearnedMixture:
        """Return the mixture after one descent step.

        Args:
            slopes: [n, D], ∂ℓ/∂z of the loss for means and factors, not divided by n.
            adversarial: [n, D], ∂ℓ/∂z of the loss for the logits.
            rates: learning rates; that of the covariances applies to their factors here.
        """
        logits, means, factors = self._prior.logits, self._prior.means, self._prior.factors
        down = torch.autograd.grad(self.z, [means, factors], slopes / len(slopes), retain_graph=True)
        (of_logits,) = torch.autograd.grad(self.z, logits, adversarial / len(slopes))
        lower = (factors - rates.covariances * down[1].tril()).detach()
        diagonal = lower.diagonal(dim1=1, dim2=2).clamp(min=1e-3)
        lower = lower.tril(-1) + torch.diag_embed(diagonal)
        return LearnedMixture(
            (logits - rates.logits * of_logits).detach(), (means - rates.means * down[0]).detach(), lower
        )
