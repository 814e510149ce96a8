"""Draws from an index, by weight, and the report of how far a draw is what the weights ask for.

Rows pass by in blocks: what is worked on does not grow with their number.
"""

from dataclasses import dataclass

import numpy as np

from magnet_cli.errors import VolumeError
from magnet_cli.index.diagnostics import displaced_share, effective_size, largest_useful_rho
from magnet_cli.index.rows import BLOCK, Index

_STREAM = 0x6D61676E  # keeps the draws' random stream apart from the latents'


@dataclass(frozen=True)
class Draw:
    """n rows drawn from an index.

    Attributes:
        rows: [n] int64, numbers of rows in the volume, in the order drawn; the first m are the draw for n = m.
        log_volume: [n] float64, natural log.
        pool: rows that competed.
        effective_size: (Σw)² / Σw² over them, in rows.
        displaced_share: share of the draw that is not where the weights ask, in [0, 1); 0 with replacement.
        largest_useful_rho: of the same sign as rho, the largest in size whose displaced share at this n is at most
            0.05.
    """

    rows: np.ndarray
    log_volume: np.ndarray
    pool: int
    effective_size: float
    displaced_share: float
    largest_useful_rho: float

    @property
    def unique_rows(self) -> int:
        """How many different rows were drawn."""
        return len(np.unique(self.rows))


def draw(index: Index, n: int, rho: float, seed: int, *, replace: bool = False) -> Draw:
    """Draw n rows, each with weight ∝ exp(rho · log-volume), and say how far the draw is what the weights ask for.

    Args:
        index: the rows that compete.
        n: how many are drawn, ≥ 1.
        rho: the polarity, any finite number.
        seed: of the draw, ≥ 0.
        replace: draw with replacement.

    Raises:
        VolumeError: more rows are asked for than compete, without replacement.
    """
    pool = index.pool(rho)
    if n > pool and not replace:
        message = f"{n:,} samples are asked for without replacement, and {pool:,} rows of the volume compete"
        raise VolumeError(
            message, f"make it longer (magnet compute GENERATOR --n {n}), ask for at most {pool}, or pass --replace"
        )
    places = choose(index, rho, n, seed, replace=replace)
    return Draw(
        rows=index.rows(places),
        log_volume=index.log_volume[places],
        pool=pool,
        effective_size=effective_size(index, rho),
        displaced_share=0.0 if replace else displaced_share(index, rho, n),
        largest_useful_rho=rho if replace else largest_useful_rho(index, n, rho),
    )


def choose(index: Index, rho: float, n: int, seed: int, *, replace: bool = False) -> np.ndarray:
    """N places, by weight. The first m of n are those of n = m; rows appended to the pool change no other row's key.

    Without replacement by Gumbel top-n, which is exact sequential sampling (Efraimidis and Spirakis 2006; Kool et al.
    2019, section 2.3). With replacement by inversion of the weights' cumulative sum. Rows pass by in blocks.

    Args:
        index: the rows.
        rho: the polarity.
        n: at most the rows that compete, without replacement.
        seed: of the draw, ≥ 0.
        replace: draw with replacement.

    Returns:
        [n] int64, in the order drawn.
    """
    rng = np.random.default_rng([_STREAM, seed])
    return _with_replacement(index, rho, n, rng) if replace else _top(index, rho, n, rng)


def _top(index: Index, rho: float, n: int, rng: np.random.Generator) -> np.ndarray:
    """The places of the n largest keys, score − log(−log(1 − u)), largest first.

    −log(1 − u) ≥ u, so a key above t has u ≤ exp(score − t): once n keys are known, few rows need the logarithms.
    """
    keys, places = np.empty(0), np.empty(0, np.int64)
    least = -np.finfo(np.float64).max
    start = 0
    for scores in index.scores(rho):
        u = rng.random(len(scores))
        with np.errstate(over="ignore"):
            able = np.flatnonzero(u <= np.exp(scores - least))
        if scores.min() == -np.inf:
            able = able[np.isfinite(scores[able])]
        tested = np.maximum(u[able], 2.0**-54)  # a u of 0 would be an infinite key
        keys = np.concatenate([keys, scores[able] - np.log(-np.log1p(-tested))])
        places = np.concatenate([places, start + able])
        start += len(scores)
        if len(keys) > 2 * n + BLOCK:
            best = np.sort(np.argpartition(-keys, n - 1)[:n])
            keys, places = keys[best], places[best]
            least = keys.min()
    return places[np.argsort(-keys, kind="stable")[:n]]


def _with_replacement(index: Index, rho: float, n: int, rng: np.random.Generator) -> np.ndarray:
    """The places where the weights' cumulative sum passes n uniform numbers."""
    top = max(scores.max() for scores in index.scores(rho))
    total = sum(float(np.exp(scores - top).sum()) for scores in index.scores(rho))
    asked = rng.random(n) * total
    order = np.argsort(asked)
    ascending = asked[order]
    places = np.empty(n, np.int64)
    start, done, last, sum_before = 0, 0, 0, 0.0
    for scores in index.scores(rho):
        ends = sum_before + np.cumsum(np.exp(scores - top))
        here = int(np.searchsorted(ascending, ends[-1], side="left"))
        places[order[done:here]] = start + np.searchsorted(ends, ascending[done:here], side="right")
        if np.isfinite(scores).any():
            last = start + int(np.flatnonzero(np.isfinite(scores))[-1])
        start, done, sum_before = start + len(scores), max(done, here), ends[-1]
    places[order[done:]] = last  # rounding: the blocks' sums may end short of the total
    return places
