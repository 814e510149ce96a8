"""Intervals: the delete-d jackknife within one draw, Student's t over repeats, Wilson's for shares.

Definition: docs/method.md#intervals. There is no naive bootstrap: repeated rows in a resample bias FID, precision and
recall, and its intervals miss the truth.
"""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from magnet_cli.errors import require

GROUPS = 20  # of the jackknife: a twentieth of the rows is left out at a time
LEVEL = 0.95
_Z = NormalDist().inv_cdf((1 + LEVEL) / 2)
_ROUNDING = 1e-12  # smaller differences of shares are rounding
_STREAM = 0x67726F75  # separates the stream that deals rows to groups from all others


@dataclass(frozen=True)
class Estimate:
    """A number with its interval.

    Attributes:
        value: the estimate.
        low: lower end of the 95 % interval.
        high: upper end.
    """

    value: float
    low: float
    high: float

    def within(self, lowest: float, highest: float = np.inf) -> "Estimate":
        """Return the estimate with its interval cut to the range of the quantity."""
        return Estimate(self.value, max(self.low, lowest), min(self.high, highest))

    def no_narrower(self, other: "Estimate") -> "Estimate":
        """Return the estimate with its interval widened to include another interval."""
        return Estimate(self.value, min(self.low, other.low), max(self.high, other.high))


def groups(n: int, side: int) -> np.ndarray:
    """Return the group of each row, [n] int64 from 0 to GROUPS-1, a function of n and side alone.

    Groups are dealt at random because rows come in an order: by weight in a sample, by class in many folders.
    """
    return np.random.default_rng([_STREAM, side]).permutation(n) % GROUPS


def jackknife(value: float, replicas: np.ndarray) -> Estimate:
    """Return a value with its delete-d jackknife interval (Shao and Wu 1989).

    With two independent sets of rows, group j is left out of both at once, and their variances add.

    Args:
        value: the metric on all rows.
        replicas: [g], the metric without each group of rows.
    """
    g = len(replicas)
    error = np.sqrt((g - 1) / g * np.sum((replicas - replicas.mean()) ** 2))
    reach = _student(g - 1) * error
    return Estimate(float(value), float(value - reach), float(value + reach))


def over_repeats(values: np.ndarray) -> Estimate:
    """Return the mean of independent repeats [r], r ≥ 2, with Student's interval."""
    reach = _student(len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    mean = float(np.mean(values))
    return Estimate(mean, mean - float(reach), mean + float(reach))


def difference_of_pairs(ones: np.ndarray, others: np.ndarray) -> tuple[Estimate, float] | None:
    """Return the mean of ones - others [r], r ≥ 2 pairs, with Student's interval and the p-value of its t-test.

    None if all differences are equal: there is no spread.
    """
    differences = np.asarray(ones) - np.asarray(others)
    if np.ptp(differences) < _ROUNDING:
        return None
    test = require("scipy.stats", "evaluate").ttest_1samp(differences, 0)
    return over_repeats(differences), float(test.pvalue)


def difference_of_means(ones: np.ndarray, others: np.ndarray) -> tuple[Estimate, float] | None:
    """Return the mean of ones [r] less the mean of others [s], r and s ≥ 2, with Welch's interval and p-value.

    None if neither side has any spread.
    """
    if max(np.ptp(ones), np.ptp(others)) < _ROUNDING:
        return None
    test = require("scipy.stats", "evaluate").ttest_ind(ones, others, equal_var=False)
    reach = test.confidence_interval(LEVEL)
    value = float(np.mean(ones) - np.mean(others))
    return Estimate(value, float(reach.low), float(reach.high)), float(test.pvalue)


def wilson(count: float, n: int) -> Estimate:
    """Return the share count / n of n independent draws, with Wilson's interval (1927)."""
    share, z2 = count / n, _Z**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    reach = _Z / (1 + z2 / n) * np.sqrt(share * (1 - share) / n + z2 / (4 * n**2))
    low, high = (0.0 if count == 0 else centre - reach), (1.0 if count == n else centre + reach)
    return Estimate(float(share), float(low), float(high))


def z() -> float:
    """Return z such that 95 % of N(0, 1) lies in [-z, z]."""
    return _Z


def _student(freedom: int) -> float:
    """T such that 95 % of Student's distribution lies in [-t, t]."""
    return float(require("scipy.special", "evaluate").stdtrit(freedom, (1 + LEVEL) / 2))
