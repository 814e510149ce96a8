"""Describe the singular values of a volume: quantiles, numerical rank, participation ratio.

At most one shard and 64 MiB of singular values are in memory.
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from magnet_cli.index import Index
from magnet_cli.volume import Volume

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_MOST_NUMBERS = 1 << 24  # singular values that are read
_BLOCK = 1 << 13  # rows at a time


@dataclass(frozen=True)
class Spectrum:
    """Singular values of rows of a volume.

    Attributes:
        num_rows: N, rows of the volume.
        values: [R, K] float32, descending: all rows, or R evenly chosen ones.
        rank_floor: values below this share of their row's first are rounding (docs/method.md#rank-floor).
    """

    num_rows: int
    values: np.ndarray
    rank_floor: float

    @property
    def rows(self) -> int:
        """R, the number of rows that were read."""
        return len(self.values)

    @cached_property
    def quantiles(self) -> np.ndarray:
        """Quantiles [Q, K] float64 of each singular value over rows, at the Q levels of QUANTILES."""
        columns = (np.quantile(self.values[:, i].astype(np.float64), QUANTILES) for i in range(self.values.shape[1]))
        return np.stack(list(columns), axis=1)

    @cached_property
    def ranks(self) -> np.ndarray:
        """Numerical rank of each row [R] int64: number of leading values above the rank floor."""
        return self._by_blocks(self._ranks)

    @cached_property
    def participation(self) -> np.ndarray:
        """Participation ratio (Σσ²)² / Σσ⁴ of each row [R] float64 in [1, K]; nan where all values are 0.

        K where all values are equal, 1 where only one is not 0.
        """
        return self._by_blocks(_participation)

    def _by_blocks(self, function: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        return np.concatenate([function(self.values[i : i + _BLOCK]) for i in range(0, self.rows, _BLOCK)])

    def _ranks(self, values: np.ndarray) -> np.ndarray:
        real = (values > 0) & (values >= self.rank_floor * values[:, :1])
        return np.logical_and.accumulate(real, axis=1).sum(axis=1)


def chosen(num_rows: int, kept: int) -> np.ndarray:
    """Return the positions [R] int64, ascending, of the rows to read: all, or evenly chosen ones with 2^24 values."""
    most = max(_MOST_NUMBERS // kept, 1)
    if num_rows <= most:
        return np.arange(num_rows)
    return np.arange(most) * num_rows // most


def read(volume: Volume, index: Index) -> Generator[int, None, Spectrum]:
    """Read the spectrum of a volume by an index of it, yielding numbers of rows done."""
    places = chosen(index.num_rows, volume.spec.top_k)
    values = np.empty((len(places), volume.spec.top_k), np.float32)
    start = 0
    for part in index.parts:
        here = slice(*np.searchsorted(places, (start, start + part.rows)))
        if here.start < here.stop:
            values[here] = volume.read(part.shard).singular_values[places[here] - start]
        start += part.rows
        yield part.rows
    return Spectrum(index.num_rows, values, volume.spec.rank_floor)


def _participation(values: np.ndarray) -> np.ndarray:
    scaled = values.astype(np.float64)
    top = scaled[:, :1]
    squares = np.divide(scaled, top, out=np.full_like(scaled, np.nan), where=top > 0) ** 2  # no overflow
    return squares.sum(axis=1) ** 2 / (squares**2).sum(axis=1)
