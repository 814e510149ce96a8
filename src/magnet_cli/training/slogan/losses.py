"""What the networks are trained by: the adversarial loss, its penalty on slopes, the contrastive one, the probe's.

Owns the formulas. Knows nothing of the prior beyond the means that it is told.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

Network = Callable[[Tensor], Tensor]


def critic_loss(real: Tensor, fake: Tensor) -> Tensor:
    """The logistic loss of scores [B, 1] of data and of draws: 0 where it tells them apart."""
    return functional.softplus(-real).mean() + functional.softplus(fake).mean()


def slope_penalty(critic: Network, real: Tensor) -> tuple[Tensor, Tensor]:
    """Scores of data [B, 1], and R1: half the mean squared slope of the score there (Mescheder et al. 2018)."""
    real = real.detach().requires_grad_()
    scores = critic(real)
    (slope,) = torch.autograd.grad(scores.sum(), real, create_graph=True)
    return scores, slope.flatten(1).square().sum(1).mean() / 2


def adversarial(fake: Tensor) -> Tensor:
    """What the generator is to lower, a draw: minus the score that the critic gives it. [B, 1] to [B].

    The score of a logistic critic is the log of the density of data over that of draws; its mean over the draws of a
    component says whether that component has too much weight.
    """
    return -fake[:, 0]


def contrastive(encoded: Tensor, targets: Tensor, margin: float, scale: float) -> Tensor:
    """The unsupervised conditional contrastive loss (U2C), a draw.

    −log exp(s cos(θ_ii + m)) / mean_j exp(s cos θ_ij), θ_ij the angle between the encoding of draw i and the target of
    draw j, with the margin m on the own one (Deng et al. 2019). A draw is to be recognised as one of its component.

    Args:
        encoded: [B, D], E(G(z)).
        targets: [B, D], of each draw the mean of the component it was assigned to; constants.
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
    """cos(θ + m); beyond θ = π − m, where it would turn, a line with the same slope sign."""
    sine = (1 - cosine.square()).clamp(min=1e-6).sqrt()
    return torch.where(
        cosine > -math.cos(margin),
        cosine * math.cos(margin) - sine * math.sin(margin),
        cosine - margin * math.sin(margin),
    )


def probe(encoded: Tensor, labels: Tensor, means: Tensor, scale: float) -> Tensor:
    """Cross-entropy of labelled samples over their cosines to the means of the components.

    Args:
        encoded: [n, D].
        labels: [n] int64, of components.
        means: [K, D].
        scale: of the cosines.
    """
    cosines = functional.normalize(encoded, dim=1) @ functional.normalize(means, dim=1).T
    return functional.cross_entropy(scale * cosines, labels)


def annealed(whole: float, done: float) -> float:
    """The weight of the contrastive loss when a share of the steps is done: it falls in a line to half.

    Components have to come apart early; late, the adversarial loss is to say what samples look like.
    """
    return whole * (1 - 0.5 * done)
