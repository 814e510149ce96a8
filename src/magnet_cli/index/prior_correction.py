"""The log of the prior's density at a volume's latents, and weights corrected by it (METHOD: prior correction).

Owns which priors have a density that is not the same everywhere, and the ball that holds a share of one without bounds.
The density does not depend on k: one file beside the indices serves all of a volume.
"""

import dataclasses
import math
from dataclasses import dataclass

import numpy as np

from magnet_cli.errors import SpecError, VolumeError
from magnet_cli.index.build_index import places_of
from magnet_cli.index.index import Ball, Index, Part
from magnet_cli.maths.mixture import Mixture
from magnet_cli.maths.priors import EVEN, Prior
from magnet_cli.volume import Volume
from magnet_cli.volume.spec import VolumeSpec

DEFAULT_MASS = 0.99


@dataclass(frozen=True)
class LogPrior:
    """log p_z(z) of a volume's rows, up to a constant.

    Attributes:
        fingerprint: of the volume.
        parts: where the rows come from.
        values: [N] float32, −|z|²/2; of a mixture, the log of its density.
    """

    fingerprint: str
    parts: tuple[Part, ...]
    values: np.ndarray


def is_even(spec: VolumeSpec) -> bool:
    """Whether the prior has the same density wherever it has any: then there is nothing to correct for."""
    return spec.prior in EVEN


def check_correction(spec: VolumeSpec, truncation: float) -> None:
    """Whether a volume's weights can be corrected for the prior, its images being rendered at a truncation.

    Truncation itself is no hindrance: it is part of the function whose Jacobian was taken, and z is drawn as ever.

    Raises:
        SpecError: its log-volumes are those of w, whose density nobody knows; or of another truncation, where there is
            something to correct for.
    """
    if spec.space == "w":
        message = (
            f"the prior of w = M(z) of {spec.generator} is asked to be corrected for, and its density is not known"
        )
        raise SpecError(message, "leave --correct-prior out, or pass --space z")
    if spec.truncation != truncation and not is_even(spec):
        message = (
            f"a volume at truncation {spec.truncation:g} is asked to be corrected for the prior, and its images to "
        )
        message += f"be rendered at {truncation:g}: its weights are those of another function"
        raise SpecError(message, "compute a volume at that truncation, or leave --correct-prior out")


def ball(spec: VolumeSpec, prior_mass: float, mixture: Mixture | None = None) -> Ball | None:
    """The region of highest density that holds a share of the prior; None where the prior has bounds of its own.

    |z|² of N(0, I) in D dimensions has the chi-square distribution of D degrees of freedom. Of a mixture it is measured
    (`Mixture.lowest`).

    Args:
        spec: of the volume.
        prior_mass: the share.
        mixture: of the volume, where the prior is one.
    """
    if spec.prior == "mixture":
        return Ball(None, prior_mass, mixture.lowest(prior_mass))
    if spec.prior != "normal":
        return None
    from scipy.special import gammaincinv  # it takes its time to load, which nothing else pays

    return Ball(math.sqrt(2 * float(gammaincinv(spec.latent_dim / 2, prior_mass))), prior_mass)


def log_prior(volume: Volume, parts: tuple[Part, ...], known: LogPrior | None = None) -> LogPrior:
    """Log p_z(z) of the rows of an index, read shard by shard.

    Args:
        volume: whose rows.
        parts: of the index.
        known: that of the same volume when it was shorter; shards that are still what they were are not read again.

    Raises:
        VolumeError: a latent is not finite, a shard is damaged, or the mixture is not there.
    """
    spec, mixture = volume.spec, volume.mixture()
    prior = Prior.of_mixture(mixture) if mixture else Prior(spec.prior, spec.latent_dim, spec.num_classes)
    values = np.empty(sum(part.rows for part in parts), np.float32)
    ours, theirs = places_of(parts), places_of(known.parts if known else ())
    for part in ours.keys() & theirs.keys():
        values[ours[part]] = known.values[theirs[part]]
    new = [part for part in parts if part not in theirs]
    for part, shard in ((part, volume.read(part.shard)) for part in new):
        found = prior.log_density(shard.latents[: part.rows])
        if not np.isfinite(found).all():
            message = f"{volume.shard_path(part.shard)} holds latents that are not finite"
            raise VolumeError(message, "remove that shard and its mark, and compute it again")
        values[ours[part]] = found
    return LogPrior(volume.fingerprint, parts, values)


def corrected(index: Index, found: LogPrior, inside: Ball | None) -> Index:
    """The index of weights exp(rho (log-volume − log p_z(z))); for rho ≠ 0 only rows inside the ball compete."""
    return dataclasses.replace(index, log_prior=found.values, ball=inside)
