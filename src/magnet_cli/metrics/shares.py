"""Shares of classes, how far they are from equal, and whether two sets differ in that.

Owns two measures of imbalance. The gap is the largest share less the smallest: for two classes the difference that
MaGNET's "gender bias" is about (its paper prints no formula). Total variation, ½ Σ|share - 1/C|, is the part of the
images that would have to change class for the shares to be equal: for two classes half the gap.
"""

from dataclasses import asdict, dataclass

import numpy as np

from magnet_cli.metrics.intervals import Estimate, wilson, z

PERMUTATIONS = 9_999
_STREAM = 0x7065726D  # of the permutations
_AT_ONCE = 1000


@dataclass(frozen=True)
class Tally:
    """How many images fell into each class.

    Attributes:
        classes: their names, two or more.
        counts: [C] int64.
    """

    classes: tuple[str, ...]
    counts: np.ndarray

    @classmethod
    def of(cls, classes: tuple[str, ...], probabilities: np.ndarray) -> "Tally":
        """Of probabilities [n, C]: each image counts for its most probable class."""
        return cls(classes, np.bincount(probabilities.argmax(axis=1), minlength=len(classes)))

    @property
    def n(self) -> int:
        """Images."""
        return int(self.counts.sum())

    def shares(self) -> dict[str, Estimate]:
        """Each class's share, with Wilson's interval."""
        return {name: wilson(int(count), self.n) for name, count in zip(self.classes, self.counts, strict=True)}

    def gap(self) -> Estimate:
        """The largest share less the smallest."""
        shares = self.counts / self.n
        high, low = shares.max(), shares.min()
        if len(shares) == 2:  # noqa: PLR2004
            major = wilson(int(self.counts.max()), self.n)
            return Estimate(float(high - low), 2 * major.low - 1, 2 * major.high - 1).within(0, 1)
        reach = z() * np.sqrt((high + low - (high - low) ** 2) / self.n)
        return Estimate(float(high - low), float(high - low - reach), float(high - low + reach)).within(0, 1)

    def total_variation(self) -> Estimate:
        """½ Σ|share - 1/C|: the joint share of the classes above 1/C, less what they would have were all equal."""
        above = self.counts * len(self.counts) > self.n
        joint, equal = wilson(int(self.counts[above].sum()), self.n), above.sum() / len(self.counts)
        return Estimate(float(joint.value - equal), float(joint.low - equal), float(joint.high - equal)).within(0, 1)

    def fields(self) -> dict:
        """Shares and imbalance as a report has them."""
        shares = {name: asdict(share) for name, share in self.shares().items()}
        imbalance = {"gap": asdict(self.gap()), "total_variation": asdict(self.total_variation())}
        return {"n": self.n, "shares": shares} | imbalance


def change(one: Estimate, other: Estimate) -> Estimate:
    """One - other of two independent estimates, their intervals joined by Newcombe's method (1998)."""
    value = one.value - other.value
    down = np.hypot(one.value - one.low, other.high - other.value)
    up = np.hypot(one.high - one.value, other.value - other.low)
    return Estimate(value, float(value - down), float(value + up))


def p_value(one: Tally, other: Tally) -> float:
    """How often a change in total variation as large as this comes up if both are draws of the same shares.

    The permutation test: all images are dealt anew to two sets of these sizes, 9,999 times, from a fixed seed.
    """
    pooled = one.counts + other.counts
    equal = 1 / len(pooled)

    def variation(counts: np.ndarray) -> np.ndarray:
        return np.abs(counts / counts.sum(axis=-1, keepdims=True) - equal).sum(axis=-1) / 2

    found = abs(variation(one.counts) - variation(other.counts))
    rng, as_large, left = np.random.default_rng(_STREAM), 0, PERMUTATIONS
    while left:
        dealt = rng.multivariate_hypergeometric(pooled, one.n, size=min(left, _AT_ONCE), method="marginals")
        as_large += int((np.abs(variation(dealt) - variation(pooled - dealt)) >= found - 1e-12).sum())
        left -= len(dealt)
    return (1 + as_large) / (1 + PERMUTATIONS)
