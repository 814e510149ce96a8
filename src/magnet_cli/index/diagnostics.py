"""What the weights of an index are worth: effective size, displaced share, top share, the largest useful rho.

Computed from the spread of the log-volumes, in log space. Where classes take turns, each is a draw of its own.
"""

import numpy as np

from magnet_cli.index import slots
from magnet_cli.index.index import Index, log_sum

DISPLACED_WARNING = 0.05  # METHOD: above this share a draw is not where the weights ask
DISPLACED_SELECTION = 0.5  # and above this it is a selection by volume


def effective_size(index: Index, rho: float) -> float:
    """(Σw)² / Σw², in rows: how many equal rows would carry as much."""
    log_w, counts = index.log_weights(rho)
    return float(np.exp(-log_sum(2 * log_w, counts)))


def top_share(index: Index, rho: float) -> float:
    """Share of the weight on the heaviest 1 % of the rows that compete, one row at least; in (0, 1]."""
    log_w, counts = index.log_weights(rho)
    order = np.argsort(-log_w, kind="stable")
    most = np.ceil(counts.sum() / 100)
    before = np.cumsum(counts[order]) - counts[order]
    return float((np.clip(most - before, 0, counts[order]) * np.exp(log_w[order])).sum())


def displaced_share(index: Index, rho: float, n: int, mix: float = 1.0) -> float:
    """Share of a draw of n without replacement that is not where the weights ask (METHOD: displaced share).

    ½ Σ|π_i − n w_i| / n with normalised weights w and inclusion probabilities π_i = 1 − exp(−t w_i), t from Σπ_i = n.

    Args:
        index: the rows.
        rho: the polarity.
        n: rows drawn, at most those that compete.
        mix: share of polarity draws; of these alone it is the share.

    Returns:
        In [0, 1); 0 where there are no polarity draws.
    """
    drawn = [slots.num_polarity(int(turns), mix) for turns in slots.of_classes(n, index.num_classes)]
    pairs = zip(index.class_weights(rho), drawn, strict=True) if any(drawn) else ()
    return sum(count * _displaced(*weights, count) for weights, count in pairs if count) / (sum(drawn) or 1)


def _displaced(log_w: np.ndarray, counts: np.ndarray, n: int) -> float:
    wanted = n * np.exp(log_w)
    if n >= counts.sum():
        return float(0.5 * (counts * np.abs(1 - wanted)).sum() / n)
    # Σπ ≤ n at the first, every π = 1 at the last
    low, log_t, high = np.log(n), np.log(n), np.log(n) - log_w.min() + 50
    for _ in range(200):  # Newton on log Σπ as a function of log t, kept inside the bracket
        expected = np.exp(np.minimum(log_w + log_t, 700))  # t w_i; exp(700) is finite, and π is 1 long before
        inclusion = -np.expm1(-expected)
        total = (counts * inclusion).sum()
        excess = np.log(total / n)
        if abs(excess) < 1e-10:
            break
        low, high = (low, log_t) if excess > 0 else (log_t, high)
        slope = (counts * expected * np.exp(-expected)).sum() / total
        step = log_t - excess / max(slope, 1e-9)  # where it is flat, the step leaves the bracket, which is then halved
        log_t = step if low < step < high else (low + high) / 2
    return float(0.5 * (counts * np.abs(inclusion - wanted)).sum() / n)


def largest_useful_rho(index: Index, n: int, rho: float, mix: float = 1.0) -> float:
    """The largest |rho|, with the sign of rho, whose displaced share for n rows is at most 0.05.

    Returns:
        To two digits or better, at most 8 in size; 0 where nearly equal weights displace more (n close to the pool).
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
