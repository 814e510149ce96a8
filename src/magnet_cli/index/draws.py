"""Draw rows from an index by weight, and report how far a draw is what the weights ask for.

Rows are processed in blocks: memory does not grow with their number.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from magnet_cli.errors import VolumeError
from magnet_cli.index import slots
from magnet_cli.index.diagnostics import displaced_share, effective_size, largest_useful_rho, top_share
from magnet_cli.index.index import BLOCK, Ball, Index

_STREAM = 0x6D61676E  # separates the random stream of draws from that of latents
_EVENLY = 1  # separates the stream of prior draws from that of polarity draws


@dataclass(frozen=True)
class Draw:
    """n rows drawn from an index.

    Attributes:
        rows: [n] int64, numbers of rows in the volume, in the order drawn; the first m are the draw for n = m.
        log_volume: [n] float64, natural log.
        prior: [n] bool, True for a prior draw, chosen evenly; the others are polarity draws, by weight.
        pool: number of rows that competed.
        effective_size: (Σw)² / Σw² over them, in rows.
        top_share: share of the weight on the heaviest 1 % of them.
        displaced_share: share of the polarity draws that is not where the weights ask (docs/method.md#displaced-share),
            in [0, 1); 0 with replacement.
        largest_useful_rho: the largest |rho|, with the sign of rho, whose displaced share at this n, without
            replacement, is at most 0.05.
        ball: the region of polarity draws; None for all latents.
    """

    rows: np.ndarray
    log_volume: np.ndarray
    prior: np.ndarray
    pool: int
    effective_size: float
    top_share: float
    displaced_share: float
    largest_useful_rho: float
    ball: Ball | None = None

    @property
    def unique_rows(self) -> int:
        """Number of different rows."""
        return len(np.unique(self.rows))

    @property
    def num_polarity(self) -> int:
        """Number of rows drawn by weight."""
        return int(np.count_nonzero(~self.prior))


def draw(index: Index, n: int, rho: float, seed: int, *, replace: bool = False, mix: float = 1.0) -> Draw:
    """Draw n rows with weight ∝ exp(rho · log-volume), and report how far the draw is what the weights ask for.

    Args:
        index: the rows; it says which compete, and whether classes take turns.
        n: number of rows drawn, ≥ 1.
        rho: the polarity, any finite number.
        seed: of the draw, ≥ 0.
        replace: draw with replacement.
        mix: share of polarity draws, in [0, 1]; the rest are prior draws (docs/method.md#prefix).

    Raises:
        VolumeError: n is more than the rows that compete, of a class or in all, without replacement; or none competes.
    """
    drawn_at = rho if slots.num_polarity(n, mix) else 0.0
    pools = index.pools(drawn_at)
    _check(index, n, pools, replace=replace)
    places = choose(index, rho, n, seed, replace=replace, mix=mix)
    useful = min(n, int(pools.sum()))
    return Draw(
        rows=index.rows(places),
        log_volume=index.log_volume[places],
        prior=~slots.are_polarity(n, mix, index.num_classes),
        pool=int(pools.sum()),
        effective_size=effective_size(index, rho),
        top_share=top_share(index, rho),
        displaced_share=0.0 if replace else displaced_share(index, rho, n, mix),
        largest_useful_rho=largest_useful_rho(index, useful, rho, mix),
        ball=index.ball if drawn_at else None,
    )


def _check(index: Index, n: int, pools: np.ndarray, *, replace: bool) -> None:
    """Check that n rows can be drawn if so many of each class compete: [C] int64."""
    needed = slots.of_classes(n, index.num_classes)
    short = np.flatnonzero(np.minimum(needed, 1) > pools if replace else needed > pools)
    if not len(short):
        return
    most = int((pools * index.num_classes + np.arange(index.num_classes)).min())
    more = f"let more rows compete: a longer volume (magnet compute GENERATOR --n {n} or more), or a larger `pool`"
    hint = f"ask for at most {most}, pass `replace=True`, or {more}" if most else more
    if index.classes:
        first = short[0]
        message = f"{n:,} samples of {index.num_classes} classes in equal shares are {needed[first]:,} of class "
        message += f"{index.classes[first]}, and {pools[first]:,} rows of it compete"
        raise VolumeError(message, f'{hint}; or pass `classes="natural"`')
    without = "" if replace else " without replacement"
    message = f"{n:,} samples are asked for{without}, and {most:,} rows of the volume compete"
    raise VolumeError(message, hint)


def choose(index: Index, rho: float, n: int, seed: int, *, replace: bool = False, mix: float = 1.0) -> np.ndarray:
    """Draw n places of an index, by weight; the first m of n are those of n = m (docs/method.md#prefix).

    Without replacement by Gumbel top-n, which is exact sequential sampling (Efraimidis and Spirakis 2006; Kool et al.
    2019, section 2.3): rows appended to the pool change no other row's key. With replacement by inversion of the
    cumulative sum of the weights. Prior draws have an order of their own, of equal weights; a slot takes the next row
    of its order that is not drawn yet. This is exact too, because the two orders are independent.

    Args:
        index: all rows.
        rho: the polarity.
        n: number of places; without replacement at most the rows that compete, of each class if classes take turns.
        seed: of the draw, ≥ 0.
        replace: draw with replacement.
        mix: share of polarity draws.

    Returns:
        [n] int64, in the order drawn.
    """
    order = _with_replacement if replace else _top
    polarity = slots.are_polarity(n, mix, index.num_classes)
    if polarity.all():
        return order(index, rho, n, np.random.default_rng([_STREAM, seed]))
    evenly = order(index, 0.0, n, np.random.default_rng([_STREAM, seed, _EVENLY]))
    if not polarity.any():
        return evenly
    weighted = order(index, rho, n, np.random.default_rng([_STREAM, seed]))
    if replace:
        return np.where(polarity, weighted, evenly)
    step = index.num_classes
    for turn in range(min(step, n)):
        weighted[turn::step] = _merged(weighted[turn::step], evenly[turn::step], polarity[turn::step])
    return weighted


def _merged(weighted: np.ndarray, evenly: np.ndarray, polarity: np.ndarray) -> list[int]:
    """Places that slots take, each from one of two orders, without those drawn before."""
    orders = iter(evenly.tolist()), iter(weighted.tolist())
    drawn: dict[int, None] = {}
    for by_weight in polarity.tolist():
        drawn[next(place for place in orders[by_weight] if place not in drawn)] = None
    return list(drawn)


def _top(index: Index, rho: float, n: int, rng: np.random.Generator) -> np.ndarray:
    """Places of the n largest Gumbel keys, score − log(−log(1 − u)), largest first; with classes, each in turn."""
    turns = slots.of_classes(n, index.num_classes).tolist()
    best = [_Largest(count, BLOCK // index.num_classes) for count in turns]
    for start, scores in _blocks(index, rho):
        u = rng.random(len(scores))
        for number, here in index.members(start):
            if turns[number]:
                best[number].take(start, here, *(x if here is None else x[here] for x in (scores, u)))
    return _in_turn([each.places() for each in best], n)


def _blocks(index: Index, rho: float) -> Iterator[tuple[int, np.ndarray]]:
    return zip(range(0, index.num_rows, BLOCK), index.scores(rho), strict=True)


def _in_turn(places: list[np.ndarray], n: int) -> np.ndarray:
    """Places [n] from those of each class, the classes taking turns."""
    if len(places) == 1:
        return places[0]
    merged = np.empty(n, np.int64)
    for turn, of_class in enumerate(places[:n]):
        merged[turn :: len(places)] = of_class
    return merged


class _Largest:
    """Collects the n ≥ 1 largest Gumbel keys of rows that arrive in blocks; up to `room` more may wait.

    −log(1 − u) ≥ u, so a key above t has u ≤ exp(score − t): once there are n keys, few rows need logarithms.
    """

    def __init__(self, n: int, room: int) -> None:
        self._n = n
        self._room = room
        self._keys, self._places = np.empty(0), np.empty(0, np.int64)
        self._least = -np.finfo(np.float64).max

    def take(self, start: int, here: np.ndarray | None, scores: np.ndarray, u: np.ndarray) -> None:
        """Add rows at places start + here, or from start on, with their scores and uniform numbers u."""
        with np.errstate(over="ignore"):
            able = np.flatnonzero(u <= np.exp(scores - self._least))
        if scores.min() == -np.inf:
            able = able[np.isfinite(scores[able])]
        tested = np.maximum(u[able], 2.0**-54)  # u = 0 would give an infinite key
        self._keys = np.concatenate([self._keys, scores[able] - np.log(-np.log1p(-tested))])
        self._places = np.concatenate([self._places, start + (able if here is None else here[able])])
        if len(self._keys) > 2 * self._n + self._room:
            best = np.sort(np.argpartition(-self._keys, self._n - 1)[: self._n])
            self._keys, self._places = self._keys[best], self._places[best]
            self._least = self._keys.min()

    def places(self) -> np.ndarray:
        """Return the places of the n largest keys, largest first."""
        return self._places[np.argsort(-self._keys, kind="stable")[: self._n]]


def _with_replacement(index: Index, rho: float, n: int, rng: np.random.Generator) -> np.ndarray:
    """Places where the cumulative sum of weights passes n uniform numbers; with classes, the sum of each in turn."""
    tops, totals = np.full(index.num_classes, -np.inf), np.zeros(index.num_classes)
    for start, scores in _blocks(index, rho):
        for number, here in index.members(start):
            tops[number] = max(tops[number], (scores if here is None else scores[here]).max())
    tops[np.isneginf(tops)] = 0.0  # a class without rows
    for start, scores in _blocks(index, rho):
        for number, here in index.members(start):
            totals[number] += np.exp((scores if here is None else scores[here]) - tops[number]).sum()
    u = rng.random(n)
    targets = [u[turn :: index.num_classes] * total for turn, total in enumerate(totals.tolist())]
    sums = [_CumulativeSum(each) for each in targets]
    for start, scores in _blocks(index, rho):
        for number, here in index.members(start):
            if len(targets[number]):
                weights = np.exp((scores if here is None else scores[here]) - tops[number])
                sums[number].take(start, here, weights)
    return _in_turn([each.places() for each in sums], n)


class _CumulativeSum:
    """Finds the places where the cumulative sum of weights passes targets [n] float64, from 0 to the total."""

    def __init__(self, targets: np.ndarray) -> None:
        self._order = np.argsort(targets)
        self._ascending = targets[self._order]
        self._places = np.empty(len(targets), np.int64)
        self._done, self._last, self._before = 0, 0, 0.0

    def take(self, start: int, here: np.ndarray | None, weights: np.ndarray) -> None:
        """Add rows at places start + here, or from start on, with their weights."""
        ends = self._before + np.cumsum(weights)
        reached = max(self._done, int(np.searchsorted(self._ascending, ends[-1], side="left")))
        now = slice(self._done, reached)
        passed = np.searchsorted(ends, self._ascending[now], side="right")
        self._places[self._order[now]] = start + (passed if here is None else here[passed])
        if weights.any():
            last = int(np.flatnonzero(weights)[-1])
            self._last = start + (last if here is None else int(here[last]))
        self._done, self._before = reached, ends[-1]

    def places(self) -> np.ndarray:
        """Return the places in the order of the targets; the last row, if rounding left the sum below a target."""
        self._places[self._order[self._done :]] = self._last
        return self._places
