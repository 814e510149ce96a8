"""Shares of classes, two measures of their imbalance, and tests of whether two sets of images differ.

The gap is the largest share less the smallest: for two classes the difference behind MaGNET's "gender bias" (its paper
prints no formula). Total variation, ½ Σ|share - 1/C|, is the part of the images that would have to change class for
equal shares: for two classes half the gap. Both are larger in few images than in many, and never 0 on average: their
intervals reach from the imbalance of the shares behind the images to that of images at this n
(docs/method.md#intervals).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np

from magnet_cli.maths.metrics.intervals import (
    LEVEL,
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
_EQUAL = 0x6571756C  # of the draws with equal shares
_EQUAL_DRAWS, _EQUAL_COUNTS = 1000, 1 << 20  # so many of them, but no more counts in all


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
        """Return the largest share less the smallest, with its interval.

        The two classes are picked by the same images. So the lower end is Bonferroni's over all pairs of classes that
        these images do not tell from the largest and the smallest; for two classes it is Wilson's.
        """
        shares, n = self.counts / self.n, self.n
        high, low = shares.max(), shares.min()
        every = _critical(len(shares) * (len(shares) - 1))
        top = _difference(high - shares, high + shares, n, -every) <= 0
        bottom = _difference(shares - low, shares + low, n, -every) <= 0
        pairs = top.sum() * bottom.sum() - (top & bottom).sum()
        ends = (_difference(high - low, high + low, n, q) for q in (-_critical(int(pairs)), z()))
        return Estimate(float(high - low), *map(float, ends)).within(0, 1)

    def total_variation(self) -> Estimate:
        """Return ½ Σ|share - 1/C|, which is Σ over classes with share > 1/C of (share - 1/C), with its interval.

        The classes in the sum are picked by the same images, which adds to it on average (`_excess`): from the lower
        end this is taken off. For two classes it is Wilson's.
        """
        n, num = self.n, len(self.counts)
        value = np.abs(self.counts / n - 1 / num).sum() / 2
        above, level = self.counts * num > n, self.counts * num == n
        size = above.sum() + np.clip(round(num / 2 - num * self.counts[above].sum() / n), 0, level.sum())
        joint = wilson(float((value + size / num) * n), n)  # the share of the classes in the sum, of any at 1/C besides
        excess, spread = _excess(self.counts, n) if num > 2 else (0.0, 0.0)
        low = min(joint.low, joint.value - z() * spread) - size / num - excess
        high = max(joint.high, joint.value + z() * spread) - size / num
        return Estimate(float(value), float(low), float(high)).within(0, 1 - 1 / num)


def at_equal_shares(n: int, num_classes: int) -> dict[str, float]:
    """Return the gap and the total variation that n images of equal shares have on average, from a fixed seed.

    >>> {name: round(value, 2) for name, value in at_equal_shares(500, 10).items()}
    {'gap': 0.04, 'total_variation': 0.05}
    """
    return dict(zip(("gap", "total_variation"), _at_equal_shares(n, num_classes), strict=True))


@lru_cache
def _at_equal_shares(n: int, num_classes: int) -> tuple[float, float]:
    draws = max(1, min(_EQUAL_DRAWS, _EQUAL_COUNTS // num_classes))
    equal = np.full(num_classes, 1 / num_classes)
    shares = np.random.default_rng(_EQUAL).multinomial(n, equal, draws) / n
    return float(np.ptp(shares, axis=1).mean()), float(np.abs(shares - equal).sum(axis=1).mean() / 2)


def _critical(pairs: int) -> float:
    """Return q such that so many ordered pairs of normal numbers all lie above -q with a probability of 97.5 %."""
    return NormalDist().inv_cdf(1 - (1 - LEVEL) / max(pairs, 2))


def _difference(value: np.ndarray, both: np.ndarray, n: int, q: float) -> np.ndarray:
    """Return the end of the score interval of a difference of two shares of one draw, whose sum is `both`.

    (value - end)² = q² (both - end²) / n: the lower end for q < 0. With both = 1 the interval is Wilson's.
    """
    wide = 1 + q**2 / n
    return np.asarray(value + np.sign(q) * np.sqrt(value**2 - wide * (value**2 - q**2 * both / n))) / wide


def _excess(counts: np.ndarray, n: int) -> tuple[float, float]:
    """Return by how much total variation at n lies above that of the shares, on average, and its standard deviation.

    Each count is taken as binomial, and its share moved towards 1/C by the largest deviation that C normal numbers
    may have, since most of the excess comes from shares near 1/C: this is too much rather than too little.
    """
    from scipy.special import bdtr  # slow to import

    equal, off = n / len(counts), (counts - n / len(counts)) / n
    noise = np.sqrt(np.maximum(counts, equal) * (1 - 1 / len(counts))) / n
    shares = equal / n + np.sign(off) * np.maximum(np.abs(off) - noise * np.sqrt(2 * np.log(len(counts))), 0)

    def tail(least: float, draws: int) -> np.ndarray:
        """P(X ≥ least) of draws with these shares."""
        return np.asarray(1 - bdtr(least - 1, draws, shares)) if least > 0 else np.ones(len(shares))

    least, shift = np.ceil(equal), n * shares - equal
    distance = 2 * (n * shares * tail(least - 1, n - 1) - equal * tail(least, n)) - shift  # E|X - n/C|
    variance = n * shares * (1 - shares) + shift**2 - distance**2
    return float((distance - np.abs(shift)).sum() / (2 * n)), float(np.sqrt(max(variance.sum(), 0.0)) / (2 * n))


@dataclass(frozen=True)
class Summary:
    """Shares and imbalance, with their intervals.

    Attributes:
        n: number of images of each sample.
        shares: by name of the class.
        gap: the largest share less the smallest.
        total_variation: ½ Σ|share - 1/C|.
        at_equal_shares: gap and total variation that equal shares would give at this n, on average.
    """

    n: int
    shares: dict[str, Estimate]
    gap: Estimate
    total_variation: Estimate
    at_equal_shares: dict[str, float]


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
    pooled, equal = _pooled(tallies), at_equal_shares(tallies[0].n, len(tallies[0].classes))
    if len(tallies) == 1:
        return Summary(pooled.n, pooled.shares(), pooled.gap(), pooled.total_variation(), equal)
    each = [tally.counts / tally.n for tally in tallies]
    within = zip(pooled.shares().items(), np.transpose(each), strict=True)
    shares = {name: over_repeats(values).no_narrower(least).within(0, 1) for (name, least), values in within}
    gap, variation = (_over(tallies, measure) for measure in (Tally.gap, Tally.total_variation))
    return Summary(tallies[0].n, shares, gap, variation, equal)


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
    """The mean of a measure over samples, its interval no narrower, and not above that of all images as one draw."""
    mean, whole = over_repeats(np.array([measure(tally).value for tally in tallies])), measure(_pooled(tallies))
    low = min(whole.low, mean.value - whole.value + whole.low)
    least = Estimate(mean.value, low, mean.value - whole.value + whole.high)
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
