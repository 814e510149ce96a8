"""Index: the log-volumes of a volume's rows, the rows that compete in a draw, and their weights, in log space."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, cast

import numpy as np

if TYPE_CHECKING:
    from magnet_cli.index.draws import Draw
    from magnet_cli.volume import Volume

BLOCK = 1 << 16  # rows in a block of work
_BINS = 1 << 16  # bins of log-volume, for diagnostics of more rows than this
_WIDEST = 2e-3  # nats that a bin may span: at |rho| 8, weights are right to 3e-5

Group = tuple[np.ndarray, np.ndarray]  # values of rows [M] float64, and how many rows each stands for


@dataclass(frozen=True)
class Part:
    """The rows of an index that come from one shard.

    Attributes:
        shard: its number.
        first_row: number of its first row in the volume.
        rows: number of rows.
        sha256: of the shard's bytes.
    """

    shard: int
    first_row: int
    rows: int
    sha256: str


@dataclass(frozen=True)
class Ball:
    """The region of highest prior density, outside which rows do not compete (docs/method.md#prior-correction).

    A ball around 0 for N(0, I); another region for a mixture.

    Attributes:
        radius: largest |z| inside; None if the region is no ball.
        prior_mass: share of the prior inside.
        lowest: log p_z(z) at the edge; None for a ball.
    """

    radius: float | None
    prior_mass: float
    lowest: float | None = None

    @property
    def edge(self) -> float:
        """The lowest log p_z(z) inside."""
        return -0.5 * cast(float, self.radius) ** 2 if self.lowest is None else self.lowest

    @property
    def fields(self) -> dict[str, float | None]:
        """The fields for sample.json."""
        return {name: value for name, value in asdict(self).items() if name != "lowest" or value is not None}


@dataclass(frozen=True, repr=False)
class Index:
    """The log-volumes of a volume's rows for one k, ready to draw from.

    The weight of a row is exp(rho · log-volume) (Polarity Sampling, Humayun et al. 2022; see
    docs/method.md#what-rho-1-means).

    Attributes:
        fingerprint: of the volume.
        top_k: k.
        parts: the shards that the rows come from, ascending; rows are contiguous except for missing shards.
        log_volume: [N] float64, natural log.
        above_floor: [N] bool, False if one of the k values is rounding (docs/method.md#rank-floor); such rows do not
            compete for rho ≠ 0.
        competing: [N] bool, the rows that may be drawn; None for all.
        log_prior: [N] float32, log p_z(z) up to a constant, by which weights are corrected; None without correction.
        ball: the region in which rows compete for rho ≠ 0; None for all latents.
        classes: labels of the C classes that have equal shares of a draw; empty if shares follow the weights.
        class_of: [N] int64 or shorter, position in `classes` of the label of each row; None without classes.

    Examples:
        >>> from magnet_cli.models import load
        >>> from magnet_cli.computing import compute
        >>> index = Index.of(compute("mnist", 100, path="rows.vol", solver="exact"))
        >>> index
        Index(100 rows, top_k=16)
        >>> round(float(index.weights(rho=0.5).sum()), 6), round(index.effective_size(rho=0), 3)
        (1.0, 100.0)
        >>> len(index.draw(10, rho=0.5).rows)
        10
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

    @classmethod
    def of(cls, volume: "Volume", top_k: int | None = None) -> "Index":
        """Return the index of all rows of a volume; shards are read one by one.

        Args:
            volume: the volume.
            top_k: k, number of leading singular values in the log-volume; default min(K, 30), all K if D ≤ 32.

        Raises:
            SpecError: top_k is outside 1..K.
            VolumeError: the volume is empty or damaged, or in more than 0.1 % of the rows the k-th value is rounding.
        """
        from magnet_cli.index import build_index  # stands on this module

        return build_index.build(volume, top_k or build_index.default_top_k(volume.spec.top_k, volume.spec.latent_dim))

    def weights(self, rho: float) -> np.ndarray:
        """Return the weight of each row in a draw: [N] float64, in sum 1; 0 for rows that do not compete.

        Args:
            rho: the polarity; 0 the generator as it is, below 0 towards modes, above 0 towards anti-modes.
        """
        scores = np.concatenate(list(self.scores(rho)))
        weights = np.zeros(self.num_rows)
        for number in range(self.num_classes):
            ours = np.isfinite(scores) & (True if self.class_of is None else self.class_of == number)
            if ours.any():
                weights[ours] = np.exp(scores[ours] - scores[ours].max())
                weights[ours] /= weights[ours].sum() * self.num_classes
        return weights

    def effective_size(self, rho: float) -> float:
        """Return (Σw)² / Σw², in rows: the number of equal weights that carry the same information."""
        from magnet_cli.index import diagnostics  # stands on this module

        return diagnostics.effective_size(self, rho)

    def draw(self, n: int, rho: float, seed: int = 0, *, replace: bool = False) -> "Draw":
        """Draw n rows by weight; the first m rows of a draw of n are the draw of m.

        Args:
            n: number of rows, ≥ 1.
            rho: the polarity.
            seed: of the draw, ≥ 0.
            replace: draw with replacement.

        Returns:
            The rows, and how far the draw is what the weights ask for: see `Draw`.

        Raises:
            VolumeError: n is more than the rows that compete, without replacement.
        """
        from magnet_cli.index import draws  # stands on this module

        return draws.draw(self, n, rho, seed, replace=replace)

    def __repr__(self) -> str:
        return f"Index({self.num_rows:,} rows, top_k={self.top_k})"

    def _repr_html_(self) -> str:
        """The effective size at some rho, as a table for notebooks."""
        rhos: Sequence[float] = (-1, -0.5, -0.1, 0, 0.1, 0.5, 1)
        head = "".join(f"<th>{rho:g}</th>" for rho in rhos)
        sizes = "".join(f"<td>{self.effective_size(rho):,.0f}</td>" for rho in rhos)
        caption = f"<caption>Index: {self.num_rows:,} rows, top_k {self.top_k}</caption>"
        rows = f"<tr><th>rho</th>{head}</tr><tr><th>effective size</th>{sizes}</tr>"
        return f"<table>{caption}{rows}</table>"

    @property
    def num_rows(self) -> int:
        """N, number of rows."""
        return len(self.log_volume)

    @property
    def num_classes(self) -> int:
        """C, number of classes that take turns; 1 without classes."""
        return len(self.classes) or 1

    def pool(self, rho: float) -> int:
        """Return the number of rows that compete."""
        return int(self.pools(rho).sum())

    def pools(self, rho: float) -> np.ndarray:
        """Return the number of rows of each class that compete: [C] int64."""
        counts = np.zeros(self.num_classes, np.int64)
        for start in range(0, self.num_rows, BLOCK):
            inside = self._in_pool(rho, start)
            if self.class_of is None:
                counts += np.count_nonzero(inside)
            else:
                counts += np.bincount(self.class_of[start : start + BLOCK][inside], minlength=self.num_classes)
        return counts

    def _in_pool(self, rho: float, start: int) -> np.ndarray:
        """[b] bool: whether the rows of the block from `start` compete."""
        block = slice(start, start + BLOCK)
        real = self.above_floor[block] if rho else np.ones(len(self.above_floor[block]), bool)
        if rho and self.ball is not None:
            real = real & (cast(np.ndarray, self.log_prior)[block] >= self.ball.edge)
        return real if self.competing is None else real & self.competing[block]

    def rows(self, places: np.ndarray) -> np.ndarray:
        """Return the numbers in the volume, int64, of rows at places of the index."""
        ends = np.cumsum([part.rows for part in self.parts])
        shifts = np.array([part.first_row for part in self.parts]) - ends + [part.rows for part in self.parts]
        return np.asarray(places + shifts[np.searchsorted(ends, places, side="right")])

    def _tilts(self, start: int) -> np.ndarray:
        """[b] float64: log-volume, less log p_z(z) with prior correction, of the block from `start`."""
        block = slice(start, start + BLOCK)
        return self.log_volume[block] if self.log_prior is None else self.log_volume[block] - self.log_prior[block]

    def scores(self, rho: float) -> Iterator[np.ndarray]:
        """Yield the log of each row's weight, up to a constant, in blocks [b] float64; -inf for rows not competing."""
        for start in range(0, self.num_rows, BLOCK):
            block = self._tilts(start)
            block = rho * block if rho else np.zeros(len(block))  # 0 times infinity would be nan
            block[~self._in_pool(rho, start)] = -np.inf
            yield block

    def members(self, start: int) -> Iterator[tuple[int, np.ndarray | None]]:
        """Yield (class, places of its rows in the block from `start`, ascending); without classes (0, None).

        The rows include rows that do not compete.
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
        """For each class, log-volumes of the rows that compete, and how many rows have each; for diagnostics.

        Exact up to 65,536 rows, and with classes. With more rows, the range is divided into 65,536 bins, and the rows
        of a bin stand at their mean, unless a bin would span more than 0.002 nats.
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
        class_of = cast(np.ndarray, self.class_of)
        numbers = [class_of[s : s + BLOCK][self._in_pool(1.0, s)] for s in range(0, self.num_rows, BLOCK)]
        order = np.argsort(classes := np.concatenate(numbers), kind="stable")
        edges = np.searchsorted(classes[order], np.arange(1, self.num_classes))
        return [(group, np.ones(len(group))) for group in np.split(values[order], edges)]

    def class_weights(self, rho: float) -> list[Group]:
        """Return, for each class, the logs of weights with sum 1 in the class, and how many rows have each.

        Args:
            rho: the polarity; 0 the generator as it is, below 0 towards modes, above 0 towards anti-modes.

        Returns:
            C pairs of [M] float64, ≤ 0, and [M] float64 numbers of rows, for the groups of `spread`.
        """
        groups = self.spread if rho else [(np.zeros(1), np.array([float(pool)])) for pool in self.pools(0.0).tolist()]
        scores = [(rho * values, counts) for values, counts in groups]
        return [(s - log_sum(s, counts), counts) if counts.any() else (s[:0], counts[:0]) for s, counts in scores]

    def log_weights(self, rho: float) -> Group:
        """Return the logs of weights with sum 1 over all classes, [M] float64, and how many rows have each, [M]."""
        log_w, counts = zip(*self.class_weights(rho), strict=True)
        return np.concatenate(log_w) - np.log(self.num_classes), np.concatenate(counts)


def log_sum(scores: np.ndarray, counts: np.ndarray) -> float:
    """Return log Σ counts · exp(scores), without overflow."""
    top = scores.max()
    return float(top + np.log((counts * np.exp(scores - top)).sum()))
