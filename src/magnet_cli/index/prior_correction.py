"""Prior correction: the log density of the prior at a volume's latents, and weights divided by the density.

Definition: docs/method.md#prior-correction. The density does not depend on k: one file serves all indices of a volume.
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import cast

import numpy as np

from magnet_cli.errors import SpecError, VolumeError
from magnet_cli.index.build_index import places_of
from magnet_cli.index.index import Ball, Index, Part
from magnet_cli.maths.mixture import Mixture
from magnet_cli.maths.priors import EVEN, Prior
from magnet_cli.volume import Shard, Volume
from magnet_cli.volume.spec import VolumeSpec

DEFAULT_MASS = 0.99


@dataclass(frozen=True)
class LogPrior:
    """log p_z(z) of a volume's rows, up to a constant.

    Attributes:
        fingerprint: of the volume.
        parts: the shards that the rows come from.
        values: [N] float32: −|z|²/2, or the log density of a mixture.
    """

    fingerprint: str
    parts: tuple[Part, ...]
    values: np.ndarray


def is_even(spec: VolumeSpec) -> bool:
    """Return whether the density of the prior is constant where it is not 0: nothing to correct."""
    return spec.prior in EVEN


def check_correction(spec: VolumeSpec, truncation: float) -> None:
    """Check that the weights of a volume can be corrected for the prior, for images rendered at a truncation.

    Raises:
        SpecError: the Jacobian was taken at w, whose density is not known; or the volume has another truncation, and
            the density of the prior is not constant.
    """
    if spec.space == "w":
        message = (
            f"the prior of w = M(z) of {spec.generator} is asked to be corrected for, and its density is not known"
        )
        raise SpecError(message, 'leave `correct_prior` out, or pass `space="z"`')
    if spec.truncation != truncation and not is_even(spec):
        message = (
            f"a volume at truncation {spec.truncation:g} is asked to be corrected for the prior, and its images to "
        )
        message += f"be rendered at {truncation:g}: its weights are those of another function"
        raise SpecError(message, "compute a volume at that truncation, or leave `correct_prior` out")


def has_ball(spec: VolumeSpec) -> bool:
    """Return whether the prior has no bounds, so that rows compete within a ball."""
    return spec.prior in {"normal", "mixture"}


def ball(
    spec: VolumeSpec,
    prior_mass: float,
    mixture: Mixture | None = None,
    label: tuple[int, ...] = (),
    *,
    equal: bool = False,
) -> Ball | None:
    """Return the region of highest density that holds a share of the prior; None if the prior is bounded.

    |z|² of N(0, I) has the chi-square distribution with D degrees of freedom, and so has |L⁻¹(z - μ)|² of a component;
    for a mixture, see `Mixture.lowest`.

    Args:
        spec: of the volume.
        prior_mass: the share.
        mixture: of the volume, if its prior is a mixture.
        label: of the rows that compete, as for `log_prior`.
        equal: classes take turns, as for `log_prior`.
    """
    if spec.prior == "mixture" and not equal:
        return Ball(None, prior_mass, _competing(cast(Mixture, mixture), spec, label).lowest(prior_mass))
    if not has_ball(spec):
        return None
    from scipy.special import gammaincinv  # slow to import

    lowest = -float(gammaincinv(spec.latent_dim / 2, prior_mass))
    return Ball(None, prior_mass, lowest) if equal and mixture else Ball(math.sqrt(-2 * lowest), prior_mass)


def _competing(mixture: Mixture, spec: VolumeSpec, label: tuple[int, ...]) -> Mixture:
    """The mixture of the components of some labels, of those that a volume has."""
    return mixture.of(tuple(spec.classes.index(each) for each in label if each in spec.classes))


def log_prior(
    volume: Volume,
    parts: tuple[Part, ...],
    earlier: LogPrior | None = None,
    label: tuple[int, ...] = (),
    *,
    equal: bool = False,
) -> LogPrior:
    """Return log p_z(z) of the rows of an index, read shard by shard: the density of what competes.

    A mixture's components are the labels: of some labels it is the density of theirs, and where classes take turns,
    each a draw of its own, that of the row's own component.

    Args:
        volume: of the index.
        parts: of the index.
        earlier: log-priors of the same volume and labels when it was shorter; unchanged shards are not read again.
        label: of the rows that compete; empty for all.
        equal: classes take turns.

    Raises:
        VolumeError: a latent is not finite, a shard is damaged, or the mixture is missing.
    """
    spec, mixture = volume.spec, volume.mixture()
    prior = Prior(spec.prior, spec.latent_dim, spec.num_classes) if mixture is None else None
    place_of = {each: place for place, each in enumerate(dict.fromkeys(spec.classes))}

    def log_density(shard: Shard) -> np.ndarray:
        if prior is not None:
            return prior.log_density(shard.latents)
        if equal:
            components = np.array([place_of[each] for each in cast(np.ndarray, shard.labels).tolist()])
            return cast(Mixture, mixture).log_shapes(shard.latents, components)
        return _competing(cast(Mixture, mixture), spec, label).log_density(shard.latents)

    values = np.empty(sum(part.rows for part in parts), np.float32)
    ours, old = places_of(parts), places_of(earlier.parts if earlier else ())
    if earlier:
        for part in ours.keys() & old.keys():
            values[ours[part]] = earlier.values[old[part]]
    for part in (part for part in parts if part not in old):
        logs = log_density(volume.read(part.shard))[: part.rows]
        if not np.isfinite(logs).all():
            message = f"{volume.shard_path(part.shard)} holds latents that are not finite"
            raise VolumeError(message, "remove that shard and its mark, and compute it again")
        values[ours[part]] = logs
    return LogPrior(volume.fingerprint, parts, values)


def corrected(index: Index, log_priors: LogPrior, inside: Ball | None) -> Index:
    """Return the index with weights exp(rho (log-volume − log p_z(z))); only rows inside compete for rho ≠ 0."""
    return dataclasses.replace(index, log_prior=log_priors.values, ball=inside)
