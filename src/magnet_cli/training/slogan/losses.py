"""Losses of SLOGAN's networks: adversarial, gradient penalty, contrastive, and that of the labelled probe."""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

Network = Callable[[Tensor], Tensor]


def critic_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Return the logistic loss of the critic's scores [B, 1] of data and of draws, a scalar."""
    return functional.softplus(-real).mean() + functional.softplus(fake).mean()


def slope_penalty(critic: Network, real: Tensor) -> tuple[Tensor, Tensor]:
    """Return the scores of data [B, 1] and R1, half the mean squared gradient of the score (Mescheder et al. 2018)."""
    real = real.detach().requires_grad_()
    scores = critic(real)
    (slope,) = torch.autograd.grad(scores.sum(), real, create_graph=True)
    return scores, slope.flatten(1).square().sum(1).mean() / 2


def adversarial(fake: Tensor) -> Tensor:
    """Return the generator's loss for each draw, minus the critic's score: [B, 1] to [B].

    The score of a logistic critic estimates log(density of data / density of draws), so its mean over the draws of a
    component tells whether that component has too much weight.
    """
    return -fake[:, 0]


def contrastive(encoded: Tensor, targets: Tensor, margin: float, scale: float) -> Tensor:
    """Return the unsupervised conditional contrastive loss (U2C) of each draw.

    −log [exp(s cos(θ_ii + m)) / mean_j exp(s cos θ_ij)], θ_ij the angle between the encoding of draw i and the target
    of draw j; the margin m is added to the draw's own angle only (Deng et al. 2019).

    Args:
        encoded: [B, D], E(G(z)).
        targets: [B, D], the mean of the component that each draw was assigned to; constants.
        margin: m, in radians.
        scale: s.

    Returns:
        [B].
    """
    cosines = functional.normalize(encoded, dim=1) @ functional.normalize(targets, dim=1).T
    own = cosines.diagonal()
    moved = _with_margin(own, margin) if margin else own
    logits = scale * (cosines - torch.diag(own) + torch.diag(moved))
    return torch.logsumexp(logits, dim=1) - math.log(len(encoded)) - scale * moved


def _with_margin(cosine: Tensor, margin: float) -> Tensor:
    """Return cos(θ + m), continued monotonically beyond θ = π − m."""
    sine = (1 - cosine.square()).clamp(min=1e-6).sqrt()
    return torch.where(
        cosine > -math.cos(margin),
        cosine * math.cos(margin) - sine * math.sin(margin),
        cosine - margin * math.sin(margin),
    )


def probe(encoded: Tensor, labels: Tensor, means: Tensor, scale: float) -> Tensor:
    """Return the cross-entropy of labels [n] over scaled cosines of codes [n, D] to the components' means [K, D]."""
    cosines = functional.normalize(encoded, dim=1) @ functional.normalize(means, dim=1).T
    return functional.cross_entropy(scale * cosines, labels)


def annealed(whole: float, done: float) -> float:
    """Return the weight of the contrastive loss after a share `done` of the steps: it falls linearly to half.

    Components must separate early; later the adversarial loss decides what samples look like.
    """
    return whole * (1 - 0.5 * done)
