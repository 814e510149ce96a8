"""The rows of an index: their log-volumes, which of them compete, and the weights they give, in log space.

Owns the noun alone. Knows nothing of files or generators.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

BLOCK = 1 << 16  # rows worked on at a time
_BINS = 1 << 18  # groups of near log-volumes, for diagnostics of more rows than this
_WIDEST = 2e-3  # nats a group may span: at |rho| 8, weights are right to 3e-5


@dataclass(frozen=True)
class Part:
    """The rows of an index that come from one shard.

    Attributes:
        shard: its number.
        first_row: number of its first row in the volume.
        rows: how many there are.
        sha256: of the shard's bytes.
    """

    shard: int
    first_row: int
    rows: int
    sha256: str


@dataclass(frozen=True)
class Index:
    """The log-volumes of a volume's rows for one k.

    Attributes:
        fingerprint: of the volume.
        top_k: k.
        parts: where the rows come from, ascending: rows are contiguous but for shards that are missing.
        log_volume: [N] float64, natural log.
        above_floor: [N] bool, False where one of the k values is rounding (METHOD: rank floor); such rows do not
            compete for rho ≠ 0.
        competing: [N] bool, the rows that were asked for; None for all.
    """

    fingerprint: str
    top_k: int
    parts: tuple[Part, ...]
    log_volume: np.ndarray
    above_floor: np.ndarray
    competing: np.ndarray | None = None

    @property
    def num_rows(self) -> int:
        """N."""
        return len(self.log_volume)

    def pool(self, rho: float) -> int:
        """Rows that compete."""
        return sum(int(np.count_nonzero(self._in_pool(rho, start))) for start in range(0, self.num_rows, BLOCK))

    def _in_pool(self, rho: float, start: int) -> np.ndarray:
        """Which rows of the block from `start` compete: [b] bool."""
        block = slice(start, start + BLOCK)
        real = self.above_floor[block] if rho else np.ones(len(self.above_floor[block]), bool)
        return real if self.competing is None else real & self.competing[block]

    def rows(self, places: np.ndarray) -> np.ndarray:
        """The numbers in the volume, int64, of the rows at given places of the index."""
        ends = np.cumsum([part.rows for part in self.parts])
        shifts = np.array([part.first_row for part in self.parts]) - ends + [part.rows for part in self.parts]
        return places + shifts[np.searchsorted(ends, places, side="right")]

    def scores(self, rho: float) -> Iterator[np.ndarray]:
        """The log of each row's weight, up to a constant, in blocks [b] float64; -inf for rows that do not compete."""
        for start in range(0, self.num_rows, BLOCK):
            block = self.log_volume[start : start + BLOCK]
            block = rho * block if rho else np.zeros(len(block))  # 0 times an infinity would be no number
            block[~self._in_pool(rho, start)] = -np.inf
            yield block

    @cached_property
    def spread(self) -> tuple[np.ndarray, np.ndarray]:
        """The log-volumes of the rows that compete, near ones together: values [M] float64 and how many rows each.

        What every diagnostic is computed from. Up to 262,144 rows it is exact. Beyond, rows that lie within 1/262,144
        of the range stand at their mean, unless that is more than 0.002 nats: then it is every row again.
        """

        def competing() -> Iterator[np.ndarray]:
            for start in range(0, self.num_rows, BLOCK):
                yield self.log_volume[start : start + BLOCK][self._in_pool(1.0, start)]

        ends = [(block.min(), block.max()) for block in competing() if len(block)]
        low, high = (np.min(ends), np.max(ends)) if ends else (0.0, 0.0)
        width = (high - low) / _BINS
        if self.num_rows <= _BINS or not 0 < width <= _WIDEST:
            values = np.concatenate(list(competing()))
            return values, np.ones(len(values))
        counts, sums = np.zeros(_BINS + 1), np.zeros(_BINS + 1)
        for block in competing():
            bins = ((block - low) / width).astype(np.int64)
            counts += np.bincount(bins, minlength=_BINS + 1)
            sums += np.bincount(bins, block - low, minlength=_BINS + 1)
        there = counts > 0
        return low + sums[there] / counts[there], counts[there]

    def log_weights(self, rho: float) -> tuple[np.ndarray, np.ndarray]:
        """The log of a row's weight, weights summing to 1, for the groups of `spread`, and how many rows each.

        Args:
            rho: the polarity; 0 the generator as it is, negative towards modes, positive away from them.

        Returns:
            [M] float64, ≤ 0, and [M] float64 rows; rows that do not compete are left out.
        """
        if rho == 0:
            pool = self.pool(0.0)
            return np.array([-np.log(pool)]), np.array([float(pool)])
        values, counts = self.spread
        scores = rho * values
        return scores - log_sum(scores, counts), counts


def log_sum(scores: np.ndarray, counts: np.ndarray) -> float:
    """Log Σ counts · exp(scores), without overflow."""
    top = scores.max()
    return float(top + np.log((counts * np.exp(scores - top)).sum()))
