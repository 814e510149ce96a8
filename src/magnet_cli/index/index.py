"""The rows of an index: their log-volumes, which of them compete, and the weights they give, in log space.

Owns the noun alone. Knows nothing of files or generators.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import cast

import numpy as np

BLOCK = 1 << 16  # rows worked on at a time
_BINS = 1 << 16  # groups of near log-volumes, for diagnostics of more rows than this
_WIDEST = 2e-3  # nats a group may span: at |rho| 8, weights are right to 3e-5

Group = tuple[np.ndarray, np.ndarray]  # values of rows [M] float64, and how many rows each stands for


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
class Ball:
    """The region outside which rows do not compete: where the prior's density is highest (METHOD: prior correction).

    Of N(0, I) it is a ball around 0, of a mixture whatever its density makes it.

    Attributes:
        radius: largest |z| inside it; None where it is no ball.
        prior_mass: share of the prior that it holds.
        lowest: log p_z(z) at its edge, where that is not told by the radius.
    """

    radius: float | None
    prior_mass: float
    lowest: float | None = None

    @property
    def edge(self) -> float:
        """The least log-prior of a row inside it."""
        return -0.5 * cast(float, self.radius) ** 2 if self.lowest is None else self.lowest

    @property
    def fields(self) -> dict[str, float | None]:
        """What sample.json says of it."""
        return {name: value for name, value in asdict(self).items() if name != "lowest" or value is not None}


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
        log_prior: [N] float32, log p_z(z) up to a constant, by which weights are corrected; None where they are not.
        ball: what rows have to lie in to compete for rho ≠ 0; None for anywhere.
        classes: labels of the C classes that have equal shares of a draw, in turn; empty where rows have what their
            weights give them.
        class_of: [N] int64 or shorter, the place in `classes` of the label of each row that competes; None without.
    """

    fingerprint: str
    top_k: int
    parts: tuple[Part, ...]
    log_volume: np.ndarray
    above_floor: np.ndarray
    competing: np.ndarray | None = None
    log_prior: np.ndarray | None = None
    ball: Ball | None = None
    classes: tuple[int, ...] = ()
    class_of: np.ndarray | None = None

    @property
    def num_rows(self) -> int:
        """N."""
        return len(self.log_volume)

    @property
    def num_classes(self) -> int:
        """C, the classes that take turns; 1 where none do."""
        return len(self.classes) or 1

    def pool(self, rho: float) -> int:
        """Rows that compete."""
        return int(self.pools(rho).sum())

    def pools(self, rho: float) -> np.ndarray:
        """Rows of each class that compete: [C] int64."""
        found = np.zeros(self.num_classes, np.int64)
        for start in range(0, self.num_rows, BLOCK):
            inside = self._in_pool(rho, start)
            if self.class_of is None:
                found += np.count_nonzero(inside)
            else:
                found += np.bincount(self.class_of[start : start + BLOCK][inside], minlength=self.num_classes)
        return found

    def _in_pool(self, rho: float, start: int) -> np.ndarray:
        """Which rows of the block from `start` compete: [b] bool."""
        block = slice(start, start + BLOCK)
        real = self.above_floor[block] if rho else np.ones(len(self.above_floor[block]), bool)
        if rho and self.ball is not None:
            real = real & (self.log_prior[block] >= self.ball.edge)
        return real if self.competing is None else real & self.competing[block]

    def rows(self, places: np.ndarray) -> np.ndarray:
        """The numbers in the volume, int64, of the rows at given places of the index."""
        ends = np.cumsum([part.rows for part in self.parts])
        shifts = np.array([part.first_row for part in self.parts]) - ends + [part.rows for part in self.parts]
        return places + shifts[np.searchsorted(ends, places, side="right")]

    def _tilts(self, start: int) -> np.ndarray:
        """What rho multiplies, of the block from `start`: log-volume, less log p_z(z) where that is corrected for."""
        block = slice(start, start + BLOCK)
        return self.log_volume[block] if self.log_prior is None else self.log_volume[block] - self.log_prior[block]

    def scores(self, rho: float) -> Iterator[np.ndarray]:
        """The log of each row's weight, up to a constant, in blocks [b] float64; -inf for rows that do not compete."""
        for start in range(0, self.num_rows, BLOCK):
            block = self._tilts(start)
            block = rho * block if rho else np.zeros(len(block))  # 0 times an infinity would be no number
            block[~self._in_pool(rho, start)] = -np.inf
            yield block

    def members(self, start: int) -> Iterator[tuple[int, np.ndarray | None]]:
        """The classes in the block from `start`, and where in it their rows are, ascending; (0, None) without classes.

        Rows that do not compete may be among them.
        """
        if self.class_of is None:
            yield 0, None
            return
        here = self.class_of[start : start + BLOCK]
        order = np.argsort(here, kind="stable")
        edges = np.searchsorted(here[order], np.arange(self.num_classes + 1))
        for number in np.flatnonzero(np.diff(edges)).tolist():
            yield number, order[edges[number] : edges[number + 1]]

    @cached_property
    def spread(self) -> list[Group]:
        """For each class, what rho multiplies of the rows that compete, near ones together.

        What every diagnostic is computed from. Up to 65,536 rows it is exact, and where classes take turns. Beyond,
        rows that lie within 1/65,536 of the range stand at their mean, unless that is more than 0.002 nats: then it is
        every row again.
        """

        def competing() -> Iterator[np.ndarray]:
            for start in range(0, self.num_rows, BLOCK):
                yield self._tilts(start)[self._in_pool(1.0, start)]

        if self.class_of is not None:
            return self._spread_of_classes(np.concatenate(list(competing())))
        ends = [(block.min(), block.max()) for block in competing() if len(block)]
        low, high = (np.min(ends), np.max(ends)) if ends else (0.0, 0.0)
        width = (high - low) / _BINS
        if self.num_rows <= _BINS or not 0 < width <= _WIDEST:
            values = np.concatenate(list(competing()))
            return [(values, np.ones(len(values)))]
        counts, sums = np.zeros(_BINS + 1), np.zeros(_BINS + 1)
        for block in competing():
            bins = ((block - low) / width).astype(np.int64)
            counts += np.bincount(bins, minlength=_BINS + 1)
            sums += np.bincount(bins, block - low, minlength=_BINS + 1)
        there = counts > 0
        return [(low + sums[there] / counts[there], counts[there])]

    def _spread_of_classes(self, values: np.ndarray) -> list[Group]:
        numbers = [self.class_of[s : s + BLOCK][self._in_pool(1.0, s)] for s in range(0, self.num_rows, BLOCK)]
        order = np.argsort(found := np.concatenate(numbers), kind="stable")
        edges = np.searchsorted(found[order], np.arange(1, self.num_classes))
        return [(group, np.ones(len(group))) for group in np.split(values[order], edges)]

    def class_weights(self, rho: float) -> list[Group]:
        """For each class, the log of a row's weight, weights summing to 1 in it, and how many rows have it.

        Args:
            rho: the polarity; 0 the generator as it is, negative towards modes, positive away from them.

        Returns:
            C pairs of [M] float64, ≤ 0, and [M] float64 rows, for the groups of `spread`; rows that do not compete are
            left out.
        """
        groups = self.spread if rho else [(np.zeros(1), np.array([float(pool)])) for pool in self.pools(0.0).tolist()]
        scores = [(rho * values, counts) for values, counts in groups]
        return [(s - log_sum(s, counts), counts) if counts.any() else (s[:0], counts[:0]) for s, counts in scores]

    def log_weights(self, rho: float) -> Group:
        """The log of a row's weight in the whole draw, weights summing to 1, and how many rows have it.

        Args:
            rho: the polarity.

        Returns:
            [M] float64, ≤ 0, and [M] float64 rows, the classes' one behind the other.
        """
        log_w, counts = zip(*self.class_weights(rho), strict=True)
        return np.concatenate(log_w) - np.log(self.num_classes), np.concatenate(counts)


def log_sum(scores: np.ndarray, counts: np.ndarray) -> float:
    """Log Σ counts · exp(scores), without overflow."""
    top = scores.max()
    return float(top + np.log((counts * np.exp(scores - top)).sum()))
