"""Diagnostics of the weights of an index: effective size, displaced share, top share, the largest useful rho.

Computed in log space from `Index.spread`. If classes take turns, each class is a draw of its own.
"""

import numpy as np

from magnet_cli.index import slots
from magnet_cli.index.index import Index, log_sum

DISPLACED_WARNING = 0.05  # a draw with a larger share gets a warning (docs/method.md#displaced-share)
_STEPS = 32  # of the integral over a draw with prior draws: the share is right to 1e-3
DISPLACED_SELECTION = 0.5  # and with one above this is called a selection by volume


def effective_size(index: Index, rho: float) -> float:
    """Return (Σw)² / Σw², in rows: the number of equal weights that carry the same information (Kish 1965)."""
    log_w, counts = index.log_weights(rho)
    return float(np.exp(-log_sum(2 * log_w, counts)))


def top_share(index: Index, rho: float) -> float:
    """Return the share of the weight on the heaviest 1 % of the rows that compete, at least one row; in (0, 1]."""
    log_w, counts = index.log_weights(rho)
    order = np.argsort(-log_w, kind="stable")
    most = np.ceil(counts.sum() / 100)
    before = np.cumsum(counts[order]) - counts[order]
    return float((np.clip(most - before, 0, counts[order]) * np.exp(log_w[order])).sum())


def displaced_share(index: Index, rho: float, n: int, mix: float = 1.0) -> float:
    """Return the share of a draw of n rows without replacement that is not where the weights ask.

    ½ Σ|πᵢ − n wᵢ| / n with normalised weights w and inclusion probabilities πᵢ = 1 − exp(−t wᵢ), t such that Σπᵢ = n
    (docs/method.md#displaced-share). With a mix, πᵢ is the probability that a polarity draw takes row i, and n the
    number of polarity draws; what prior draws take before is lost to them.

    Args:
        index: all rows.
        rho: the polarity.
        n: number of rows drawn, at most the rows that compete.
        mix: share of polarity draws; the displaced share is that of the polarity draws.

    Returns:
        In [0, 1); 0 without polarity draws.
    """
    turns = slots.of_classes(n, index.num_classes).tolist()
    drawn = [slots.num_polarity(each, mix) for each in turns]
    if not any(drawn):
        return 0.0
    classes = zip(index.class_weights(rho), drawn, turns, index.pools(0.0).tolist(), strict=True)
    return sum(count * _displaced(*weights, count, *rest) for weights, count, *rest in classes if count) / sum(drawn)


def _displaced(log_w: np.ndarray, counts: np.ndarray, n: int, turns: int, pool: int) -> float:
    """The displaced share of n polarity draws among so many turns, whose prior draws are from `pool` rows."""
    if n < turns:
        inclusion = _beside_prior_draws(log_w, counts, n / turns, turns, pool)
    elif n >= counts.sum():
        inclusion = np.ones(len(log_w))
    else:
        inclusion = -np.expm1(-_scaled(log_w, _log_t(log_w, counts, n)))
    return float(0.5 * (counts * np.abs(inclusion - n * np.exp(log_w))).sum() / n)


def _beside_prior_draws(log_w: np.ndarray, counts: np.ndarray, mix: float, turns: int, pool: int) -> np.ndarray:
    """The probability that a polarity draw takes each row, where it takes a share `mix` of the turns.

    Each row has two clocks, of rate wᵢ and of the same rate for all; polarity draws take rows as the first ring, prior
    draws as the second. When a share x of the first has not rung, x^(1/mix − 1) of the second have not, so that the two
    take their shares of the turns.
    """
    left = max(1 - turns / pool, 0.5 / pool)
    rung = min(pool * (1 - left**mix), counts.sum() - 0.5)
    log_t = _log_t(log_w, counts, rung)
    inclusion, before, x_before = np.zeros(len(log_w)), np.ones(len(log_w)), 1.0
    for step in np.linspace(0, 1, _STEPS + 1)[1:]:  # small steps first, when heavy rows are taken
        still = np.exp(-_scaled(log_w, log_t + 2 * np.log(step)))
        x = 1 - (counts * (1 - still)).sum() / pool
        if x < x_before:
            free = mix * (x_before ** (1 / mix) - x ** (1 / mix)) / (x_before - x)  # no prior draw took them: the mean
            inclusion += free * (before - still)
        before, x_before = still, x
    return inclusion


def _scaled(log_w: np.ndarray, log_t: float) -> np.ndarray:
    """T wᵢ; exp(700) is finite, and a row is drawn long before."""
    return np.exp(np.minimum(log_w + log_t, 700))


def _log_t(log_w: np.ndarray, counts: np.ndarray, n: float) -> float:
    """Log t such that Σ(1 − exp(−t wᵢ)) = n."""
    # bracket: Σπ ≤ n at the lower end, every π = 1 at the upper end
    low, log_t, high = np.log(n), np.log(n), np.log(n) - log_w.min() + 50
    for _ in range(200):  # Newton on log Σπ as a function of log t, kept inside the bracket
        expected = _scaled(log_w, log_t)
        total = (counts * -np.expm1(-expected)).sum()
        excess = np.log(total / n)
        if abs(excess) < 1e-10:
            break
        low, high = (low, log_t) if excess > 0 else (log_t, high)
        slope = (counts * expected * np.exp(-expected)).sum() / total
        step = log_t - excess / max(slope, 1e-9)  # where the curve is flat the step leaves the bracket: halve it
        log_t = step if low < step < high else (low + high) / 2
    return float(log_t)


def useful_draw(index: Index, n: int) -> tuple[int, float]:
    """Return a number of rows up to n, and a rho up to 1 that is useful for them, rounded down to two digits.

    At most a quarter of the rows that compete are drawn.
    """
    n = max(1, min(n, index.pool(1.0) // 4))
    rho = min(largest_useful_rho(index, n, 1.0), 1.0)
    unit = 10.0 ** (np.floor(np.log10(rho)) - 1) if rho else 1.0
    return n, float(f"{np.floor(rho / unit + 1e-9) * unit:.2g}")


def largest_useful_rho(index: Index, n: int, rho: float, mix: float = 1.0) -> float:
    """Return the largest |rho|, with the sign of rho, whose displaced share for n rows is at most 0.05.

    Returns:
        Accurate to two digits, at most 8 in size; 0 if even nearly equal weights displace more (n close to the pool).
    """
    sign = -1.0 if rho < 0 else 1.0
    high = 8.0

    def useful(size: float) -> bool:
        return displaced_share(index, sign * size, n, mix) <= DISPLACED_WARNING

    if useful(high):
        return sign * high
    low = high / 2
    while not useful(low):
        low, high = low / 2, low
        if low < 1e-4:
            return 0.0
    for _ in range(7):
        middle = (low + high) / 2
        low, high = (middle, high) if useful(middle) else (low, middle)
    return sign * low
