"""Shares of classes, how far they are from equal, and whether two sets differ in that.

Owns two measures of imbalance. The gap is the largest share less the smallest: for two classes the difference that
MaGNET's "gender bias" is about (its paper prints no formula). Total variation, ½ Σ|share - 1/C|, is the part of the
images that would have to change class for the shares to be equal: for two classes half the gap.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from magnet_cli.maths.metrics.intervals import (
    Estimate,
    difference_of_means,
    difference_of_pairs,
    over_repeats,
    wilson,
    z,
)

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
        if len(shares) == 2:
            major = wilson(int(self.counts.max()), self.n)
            return Estimate(float(high - low), 2 * major.low - 1, 2 * major.high - 1).within(0, 1)
        reach = z() * np.sqrt((high + low - (high - low) ** 2) / self.n)
        return Estimate(float(high - low), float(high - low - reach), float(high - low + reach)).within(0, 1)

    def total_variation(self) -> Estimate:
        """½ Σ|share - 1/C|: the joint share of the classes above 1/C, less what they would have were all equal."""
        above = self.counts * len(self.counts) > self.n
        joint, equal = wilson(int(self.counts[above].sum()), self.n), above.sum() / len(self.counts)
        return Estimate(float(joint.value - equal), float(joint.low - equal), float(joint.high - equal)).within(0, 1)


@dataclass(frozen=True)
class Summary:
    """Shares and imbalance, with their intervals.

    Attributes:
        n: images; of each sample, where there are several.
        shares: of each class, by its name.
        gap: the largest share less the smallest.
        total_variation: ½ Σ|share - 1/C|.
    """

    n: int
    shares: dict[str, Estimate]
    gap: Estimate
    total_variation: Estimate


@dataclass(frozen=True)
class Change:
    """How shares and imbalance differ between two sets of images.

    Attributes:
        shares: of each class, by its name, that of the one less that of the other.
        gap: of the one less that of the other.
        total_variation: likewise.
        p_value: how often a change in total variation as large as this comes up where there is none.
    """

    shares: dict[str, Estimate]
    gap: Estimate
    total_variation: Estimate
    p_value: float


def summary(tallies: Sequence[Tally]) -> Summary:
    """Shares and imbalance of one sample, with intervals within it; of several of one length, with Student's over them.

    The imbalance of several is the mean of theirs, for few images look less equal than many. No interval is narrower
    than if all images were one draw: where all samples agree, Student's has no width.
    """
    pooled = _pooled(tallies)
    if len(tallies) == 1:
        return Summary(pooled.n, pooled.shares(), pooled.gap(), pooled.total_variation())
    each = [tally.counts / tally.n for tally in tallies]
    within = zip(pooled.shares().items(), np.transpose(each), strict=True)
    shares = {name: over_repeats(values).no_narrower(least).within(0, 1) for (name, least), values in within}
    gap, variation = (_over(tallies, measure) for measure in (Tally.gap, Tally.total_variation))
    return Summary(tallies[0].n, shares, gap, variation)


def change(ones: Sequence[Tally], others: Sequence[Tally], *, paired: bool = False) -> Change:
    """How shares and imbalance change from others to ones.

    One sample each: Newcombe's intervals, and the permutation test. Several each: Student's over the differences of
    pairs, or Welch's where they are no pairs.

    Args:
        ones: of a sample; or of several of one length, from independent pools.
        others: likewise.
        paired: whether the i-th of both come from one pool.
    """
    classes = ones[0].classes
    each = {name: _changed(ones, others, lambda t, name=name: t.shares()[name], paired=paired)[0] for name in classes}
    gap, _ = _changed(ones, others, Tally.gap, paired=paired)
    variation, p = _changed(ones, others, Tally.total_variation, paired=paired)
    return Change(each, gap, variation, p_value(_pooled(ones), _pooled(others)) if p is None else p)


def _changed(
    ones: Sequence[Tally], others: Sequence[Tally], measure: Callable[[Tally], Estimate], *, paired: bool
) -> tuple[Estimate, float | None]:
    """The change of a measure, and the p-value of its t-test; None where there is no spread over samples to go by."""
    values = [np.array([measure(tally).value for tally in side]) for side in (ones, others)]
    found = None
    if len(ones) > 1:
        found = difference_of_pairs(*values) if paired else difference_of_means(*values)
    return found or (joined(measure(_pooled(ones)), measure(_pooled(others))), None)


def _pooled(tallies: Sequence[Tally]) -> Tally:
    return Tally(tallies[0].classes, np.sum([tally.counts for tally in tallies], axis=0))


def _over(tallies: Sequence[Tally], measure: Callable[[Tally], Estimate]) -> Estimate:
    """The mean of a measure over samples, its interval no narrower than that of all images as one draw."""
    found, whole = over_repeats(np.array([measure(tally).value for tally in tallies])), measure(_pooled(tallies))
    least = Estimate(found.value, found.value - whole.value + whole.low, found.value - whole.value + whole.high)
    return found.no_narrower(least).within(0, 1)


def joined(one: Estimate, other: Estimate) -> Estimate:
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
