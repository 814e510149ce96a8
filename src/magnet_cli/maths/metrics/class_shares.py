"""Shares of classes, two measures of their imbalance, and tests of whether two sets of images differ.

The gap is the largest share less the smallest: for two classes the difference behind MaGNET's "gender bias" (its paper
prints no formula). Total variation, ½ Σ|share - 1/C|, is the part of the images that would have to change class for
equal shares: for two classes half the gap. Intervals: docs/method.md#intervals.
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
    """Number of images in each class.

    Attributes:
        classes: names of the classes, two or more.
        counts: [C] int64.
    """

    classes: tuple[str, ...]
    counts: np.ndarray

    @classmethod
    def of(cls, classes: tuple[str, ...], probabilities: np.ndarray) -> "Tally":
        """Count each image for its most probable class, from probabilities [n, C]."""
        return cls(classes, np.bincount(probabilities.argmax(axis=1), minlength=len(classes)))

    @property
    def n(self) -> int:
        """Number of images."""
        return int(self.counts.sum())

    def shares(self) -> dict[str, Estimate]:
        """Return the share of each class, with Wilson's interval."""
        return {name: wilson(int(count), self.n) for name, count in zip(self.classes, self.counts, strict=True)}

    def gap(self) -> Estimate:
        """Return the largest share less the smallest, with its interval."""
        shares = self.counts / self.n
        high, low = shares.max(), shares.min()
        if len(shares) == 2:
            major = wilson(int(self.counts.max()), self.n)
            return Estimate(float(high - low), 2 * major.low - 1, 2 * major.high - 1).within(0, 1)
        reach = z() * np.sqrt((high + low - (high - low) ** 2) / self.n)
        return Estimate(float(high - low), float(high - low - reach), float(high - low + reach)).within(0, 1)

    def total_variation(self) -> Estimate:
        """Return ½ Σ|share - 1/C|, which is Σ over classes with share > 1/C of (share - 1/C), with its interval."""
        above = self.counts * len(self.counts) > self.n
        joint, equal = wilson(int(self.counts[above].sum()), self.n), above.sum() / len(self.counts)
        return Estimate(float(joint.value - equal), float(joint.low - equal), float(joint.high - equal)).within(0, 1)


@dataclass(frozen=True)
class Summary:
    """Shares and imbalance, with their intervals.

    Attributes:
        n: number of images of each sample.
        shares: by name of the class.
        gap: the largest share less the smallest.
        total_variation: ½ Σ|share - 1/C|.
    """

    n: int
    shares: dict[str, Estimate]
    gap: Estimate
    total_variation: Estimate


@dataclass(frozen=True)
class Change:
    """Differences of shares and imbalance between two sets of images, the first less the second.

    Attributes:
        shares: by name of the class.
        gap: the largest share less the smallest.
        total_variation: ½ Σ|share - 1/C|.
        p_value: probability of a change in total variation as large as this if both sets have the same shares.
    """

    shares: dict[str, Estimate]
    gap: Estimate
    total_variation: Estimate
    p_value: float


def summary(tallies: Sequence[Tally]) -> Summary:
    """Return shares and imbalance of one sample, or of several samples of one length with Student's intervals.

    The imbalance of several samples is the mean over samples, because few images look less equal than many. No interval
    is narrower than for all images as one draw: if all samples agree, Student's interval has no width.
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
    """Return how shares and imbalance change from `others` to `ones`.

    One sample each: Newcombe's intervals (1998), and a permutation test. Several samples each: Student's intervals over
    differences of pairs, or Welch's without pairs.

    Args:
        ones: one sample; or several of one length, from independent pools.
        others: the same for the other side.
        paired: the i-th samples of both sides come from one pool.
    """
    classes = ones[0].classes
    each = {name: _changed(ones, others, _Share(name), paired=paired)[0] for name in classes}
    gap, _ = _changed(ones, others, Tally.gap, paired=paired)
    variation, p = _changed(ones, others, Tally.total_variation, paired=paired)
    return Change(each, gap, variation, p_value(_pooled(ones), _pooled(others)) if p is None else p)


@dataclass(frozen=True)
class _Share:
    """The share of one class, as a measure of a tally."""

    name: str

    def __call__(self, tally: Tally) -> Estimate:
        return tally.shares()[self.name]


def _changed(
    ones: Sequence[Tally], others: Sequence[Tally], measure: Callable[[Tally], Estimate], *, paired: bool
) -> tuple[Estimate, float | None]:
    """The change of a measure, and the p-value of its t-test; None if there is no spread over samples."""
    one, other = (np.array([measure(tally).value for tally in side]) for side in (ones, others))
    tested = None
    if len(ones) > 1:
        tested = difference_of_pairs(one, other) if paired else difference_of_means(one, other)
    return tested or (joined(measure(_pooled(ones)), measure(_pooled(others))), None)


def _pooled(tallies: Sequence[Tally]) -> Tally:
    return Tally(tallies[0].classes, np.sum([tally.counts for tally in tallies], axis=0))


def _over(tallies: Sequence[Tally], measure: Callable[[Tally], Estimate]) -> Estimate:
    """The mean of a measure over samples, its interval no narrower than that of all images as one draw."""
    mean, whole = over_repeats(np.array([measure(tally).value for tally in tallies])), measure(_pooled(tallies))
    least = Estimate(mean.value, mean.value - whole.value + whole.low, mean.value - whole.value + whole.high)
    return mean.no_narrower(least).within(0, 1)


def joined(one: Estimate, other: Estimate) -> Estimate:
    """Return one - other of two independent estimates, with Newcombe's interval (1998)."""
    value = one.value - other.value
    down = np.hypot(one.value - one.low, other.high - other.value)
    up = np.hypot(one.high - one.value, other.value - other.low)
    return Estimate(value, float(value - down), float(value + up))


def p_value(one: Tally, other: Tally) -> float:
    """Return the p-value of a permutation test of total variation, with 9,999 permutations from a fixed seed.

    All images are dealt at random to two sets of these sizes.
    """
    pooled = one.counts + other.counts
    equal = 1 / len(pooled)

    def variation(counts: np.ndarray) -> np.ndarray:
        return np.abs(counts / counts.sum(axis=-1, keepdims=True) - equal).sum(axis=-1) / 2

    observed = abs(variation(one.counts) - variation(other.counts))
    rng, as_large, left = np.random.default_rng(_STREAM), 0, PERMUTATIONS
    while left:
        dealt = rng.multivariate_hypergeometric(pooled, one.n, size=min(left, _AT_ONCE), method="marginals")
        as_large += int((np.abs(variation(dealt) - variation(pooled - dealt)) >= observed - 1e-12).sum())
        left -= len(dealt)
    return (1 + as_large) / (1 + PERMUTATIONS)
