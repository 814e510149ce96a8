"""Moves of latents that keep their prior, and walks of many such moves under a target that is cheap to evaluate."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from magnet_cli.maths.priors import SPHERES, TRUNCATED_AT, Prior

_NARROWEST = 0.125  # of the step: each move takes one of its own, so that some of them are right everywhere

Target = Callable[[np.ndarray], np.ndarray]  # latents [P, D] float32 to the log of the target over the prior [P]


@dataclass(frozen=True)
class Kernel:
    """A proposal that is reversible for the prior, or, with a mean, for a Gaussian that the acceptance corrects for.

    Gaussian priors: preconditioned Crank–Nicolson, z' = m + √(1−b²) (z−m) + b ξ (Cotter et al. 2013; with a mean,
    Rudolf and Sprungk 2018). Sphere: the same with m = 0, scaled to |z'| = √D: a function of the angle between z and
    z' alone, hence symmetric. Box: z + b ξ, reflected at the walls. Mixture: with a component c drawn from p(c | z),
    the move of N(μ_c, Σ_c), z' = μ_c + √(1−b²) (z−μ_c) + b L_c ξ. As p(z) p(c | z) is π_c N(z; μ_c, Σ_c), for which
    that move is reversible, the move as a whole is reversible for the mixture.

    Every move draws its own b, independent of z, between `step` / 8 and `step` in (0, 1]; `mean` [P, D] float64 is m,
    0 where the prior is not Gaussian. `label` are the components that a mixture's latents come from, by default all.
    """

    prior: Prior
    step: float
    mean: np.ndarray
    label: tuple[int, ...] = ()

    def propose(self, rng: np.random.Generator, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Propose z' [P, D] float32; return it and the log of p(z') q(z', z) / p(z) q(z, z'), −inf where p(z') is 0."""
        b = self.step * _NARROWEST ** rng.random((len(z), 1))
        noise = rng.standard_normal(z.shape)
        if self.prior.kind == "uniform":
            folded = 1 - np.abs((z + b * noise + 1) % 4 - 2)  # into [−1, 1], as by mirrors at both ends
            return folded.astype(np.float32), np.zeros(len(z))
        mean = self.mean
        if (mixture := self.prior.mixture) is not None:
            components = mixture.draw_components(rng, z, self.label)
            mean, noise = mixture.means[components], np.einsum("pij,pj->pi", mixture.factors[components], noise)
        moved = mean + np.sqrt(1 - b * b) * (z - mean) + b * noise
        if self.prior.kind in SPHERES:
            moved *= np.sqrt(z.shape[1]) / np.linalg.norm(moved, axis=1, keepdims=True)
        moved = moved.astype(np.float32)
        ratio = -np.einsum("ij,ij->i", self.mean, moved.astype(np.float64) - z)
        if self.prior.kind == "truncated-normal":
            ratio[(np.abs(moved) > TRUNCATED_AT).any(axis=1)] = -np.inf
        return moved, ratio


@dataclass(frozen=True)
class Walk:
    """The ends of walks; `value` [P] float64 is the log of the cheap target over the prior there."""

    latents: np.ndarray
    value: np.ndarray
    moved: np.ndarray
    accepted: float  # share of all moves


def walk(rng: np.random.Generator, z: np.ndarray, kernel: Kernel, target: Target, steps: int) -> Walk:
    """Move latents [P, D] by `steps` moves of one kernel, each accepted by the cheap target (Metropolis–Hastings).

    The kernel is the same at every step and reversible for the cheap target, and so is the walk as a whole: what the
    surrogate transition method needs (Liu 2001, section 9.4.3).
    """
    value, moved, accepted = target(z), np.zeros(len(z), bool), 0
    for _ in range(steps):
        trial, ratio = kernel.propose(rng, z)
        proposed = target(trial)
        with np.errstate(divide="ignore"):
            taken = np.log(rng.random(len(z))) < ratio + proposed - value
        z, value = np.where(taken[:, None], trial, z), np.where(taken, proposed, value)
        moved |= taken
        accepted += int(np.count_nonzero(taken))
    return Walk(z, value, moved, accepted / (steps * len(z)))


def scores(rho: float, log_volume: np.ndarray) -> np.ndarray:
    """Return log-weights rho · log-volume [P]; −inf where a log-volume is not finite and does not compete."""
    return np.where(np.isfinite(log_volume), rho * np.where(np.isfinite(log_volume), log_volume, 0.0), -np.inf)


def systematic(rng: np.random.Generator, log_weights: np.ndarray) -> np.ndarray:
    """Resample systematically: return P places, each as often as P times its share of the weight, to within one.

    In a random order: weights that repeat, as those of classes in turn may, would fall in step with the marks.
    """
    order = rng.permutation(len(log_weights))
    weights = np.exp(log_weights[order] - log_weights.max())
    ends = np.cumsum(weights) / weights.sum()
    marks = (np.arange(len(ends)) + rng.random()) / len(ends)
    return order[np.minimum(np.searchsorted(ends, marks, side="right"), np.flatnonzero(weights)[-1])]


def effective_share(log_weights: np.ndarray) -> float:
    """Return the effective size (Σw)² / Σw² over P, in (0, 1]; 0 where no log-weight [P] is finite."""
    top = log_weights.max()
    if not np.isfinite(top):
        return 0.0
    weights = np.exp(log_weights - top)
    return float(weights.sum() ** 2 / (weights @ weights) / len(weights))


def shrunk_mean(z: np.ndarray) -> np.ndarray:
    """Return the mean [D] float64 of latents [n, D], shrunk towards 0 by the noise in it (James and Stein 1961)."""
    if len(z) < 2:
        return np.zeros(z.shape[1])
    wide = z.astype(np.float64)
    mean, noise = wide.mean(axis=0), wide.var(axis=0, ddof=1).sum() / len(z)
    square = float(mean @ mean)
    return mean * max(0.0, 1 - noise / square) if square > 0 else mean
