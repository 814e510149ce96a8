"""Draw scored latents so that combinations of attributes come in given shares.

Multi-Attribute Balanced Sampling (Doubinsky et al. 2022, arXiv 2111.00909): of the latents in a contingency table, draw
a random combination of classes that still has latents, then one of its latents, without replacement.
"""

import bisect
from dataclasses import dataclass

import numpy as np

from magnet_cli.editing.contingency import Table
from magnet_cli.errors import SampleError

_STREAM = 0x62616C61  # random stream of the draws
_REDRAWS, _MEMBERS = 1, 2  # its parts
_GOLDEN = (5**0.5 - 1) / 2
_MAX_NAMED = 3  # combinations that an error names


@dataclass(frozen=True)
class Selection:
    """n latents drawn from a table, in the order drawn: the first m are the draw for n = m.

    `rows` [n] int64 are of `cells` [n] int32; `displaced` [n] bool is True where the cell drawn first had no latents
    left, so that another was drawn.
    """

    rows: np.ndarray
    cells: np.ndarray
    displaced: np.ndarray

    def total_variation(self, table: Table) -> float:
        """Return the fraction of the draws that would have to be of another cell to meet the target exactly."""
        drawn = np.bincount(self.cells, minlength=len(table.counts))
        return float(np.abs(drawn / len(self.cells) - table.target).sum() / 2)

    @property
    def displaced_share(self) -> float:
        """Fraction of the draws that come from another cell than the target asks for."""
        return float(self.displaced.mean())


def largest_balanced_n(table: Table, seed: int) -> int:
    """Return the largest n whose draw, a function of seed, meets the target: no cell runs out; 0 if any is missing."""
    if len(table.missing):
        return 0
    cells = _first_choices(table, seed, table.num_kept + 1)
    times = np.bincount(cells, minlength=len(table.counts))
    exhausted = np.flatnonzero(times > table.counts)  # at least one: there are more draws than latents
    starts = np.cumsum(times) - times
    by_cell = np.argsort(cells, kind="stable")
    return int(by_cell[starts[exhausted] + table.counts[exhausted]].min())


def draw(table: Table, n: int, seed: int, *, allow_unbalanced: bool = False) -> Selection:
    """Draw n latents: for each a cell by the target, at random or in turn, then one of its latents, none twice.

    Where the cell has no latents left, another is drawn from those that have; at random and with equal shares this is
    the published algorithm. It never happens up to `largest_balanced_n`; to draw more than that has to be allowed.
    """
    balanced = largest_balanced_n(table, seed)
    if n > balanced and not allow_unbalanced:
        raise _unbalanced(table, n, balanced, seed)
    available = int(table.counts[table.target > 0].sum())
    if n > available:
        raise SampleError(
            f"{n:,} latents are requested, and {available:,} are kept: those with a probability above "
            f"{table.confidence:g} for every attribute, in combinations with a positive share",
            f"request at most {available:,}, lower `confidence`, or score more latents",
        )
    cells = _first_choices(table, seed, n)
    displaced = np.zeros(n, bool)
    if n > balanced:
        cells[balanced:], displaced[balanced:] = _redraw(table, cells, balanced, seed)
    return Selection(_members(table, cells, seed), cells, displaced)


def draw_unbalanced(table: Table, n: int, seed: int) -> np.ndarray:
    """Return rows [n] int64 of those in a cell: all with the same probability, none twice."""
    if n > table.num_kept:
        raise SampleError(
            f"{n:,} latents are requested, and {table.num_kept:,} are kept",
            f"request at most {table.num_kept:,}, or score more latents",
        )
    rows = np.flatnonzero(table.cells >= 0)
    return rows[np.argsort(_keys(table, seed)[rows], kind="stable")[:n]]


def _unbalanced(table: Table, n: int, balanced: int, seed: int) -> SampleError:
    more = "score more latents, lower `confidence`, or pass `allow_unbalanced=True` to use other combinations instead"
    if len(table.missing):
        listed = "; ".join(table.describe(cell) for cell in table.missing[:_MAX_NAMED])
        others = f" and {len(table.missing) - _MAX_NAMED:,} more" if len(table.missing) > _MAX_NAMED else ""
        return SampleError(
            f"{n:,} latents with balanced attributes are requested, and {len(table.missing):,} of "
            f"{np.count_nonzero(table.target):,} combinations never occur above {table.confidence:g}: {listed}{others}",
            f"`cut` or leave out an attribute; {more}",
        )
    cell = int(_first_choices(table, seed, balanced + 1)[-1])
    return SampleError(
        f"{n:,} latents with balanced attributes are requested, and after {balanced:,} the {table.counts[cell]:,} of "
        f"{table.describe(cell)} are used up",
        f"request at most {balanced:,} (`n={balanced}`); {more}",
    )


def _first_choices(table: Table, seed: int, n: int) -> np.ndarray:
    """Return a cell [n] int32 for each draw, as if no cell could run out.

    Cells that take turns follow a sequence that fills [0, 1) evenly (Weyl 1916, with the golden ratio) from a random
    start: after any n, a cell has its share of n to within a few.
    """
    requested = np.flatnonzero(table.target)
    ends = np.cumsum(table.target[requested])
    rng = np.random.default_rng([_STREAM, seed])
    drawn = (rng.random() + np.arange(n) * _GOLDEN) % 1 if table.even else rng.random(n)
    places = np.minimum(np.searchsorted(ends, drawn * ends[-1], side="right"), len(requested) - 1)
    return requested[places].astype(np.int32)


def _redraw(table: Table, cells: np.ndarray, first: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the cells from draw `first` on: where a cell has run out, one of those that have not."""
    supply = (table.counts - np.bincount(cells[:first], minlength=len(table.counts))).tolist()
    redraws = np.random.default_rng([_STREAM, seed, _REDRAWS]).random(len(cells))[first:].tolist()
    chosen, displaced = cells[first:].tolist(), np.zeros(len(cells) - first, bool)
    alive: list[int] = []
    ends: list[float] = []
    for i, cell in enumerate(chosen):
        if not supply[cell]:
            if not alive:  # the first time, or a cell has run out since
                alive = [each for each in np.flatnonzero(table.target).tolist() if supply[each]]
                ends = np.cumsum(table.target[alive]).tolist()
            place = min(bisect.bisect_right(ends, redraws[i] * ends[-1]), len(alive) - 1)
            cell = chosen[i] = alive[place]  # noqa: PLW2901
            displaced[i] = True
        supply[cell] -= 1
        if not supply[cell]:
            alive = []
    return np.array(chosen, np.int32), displaced


def _keys(table: Table, seed: int) -> np.ndarray:
    """Return a random number [N] for each row, a function of seed and row."""
    return np.random.default_rng([_STREAM, seed, _MEMBERS]).random(len(table.cells))


def _members(table: Table, cells: np.ndarray, seed: int) -> np.ndarray:
    """Return the rows [n] int64 of draws from cells [n]: the latents of a cell are taken in a random order."""
    keys, rows = _keys(table, seed), np.empty(len(cells), np.int64)
    starts = np.cumsum(table.counts) - table.counts
    by_cell = np.argsort(cells, kind="stable")
    times = np.bincount(cells, minlength=len(table.counts))
    first = np.cumsum(times) - times
    for cell in np.flatnonzero(times).tolist():
        members = table.rows_by_cell[starts[cell] : starts[cell] + table.counts[cell]]
        places = by_cell[first[cell] : first[cell] + times[cell]]
        rows[places] = members[np.argsort(keys[members], kind="stable")[: len(places)]]
    return rows
