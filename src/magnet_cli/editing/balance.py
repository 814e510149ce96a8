"""Choose scored latents so that combinations of attributes come in given shares.

Multi-Attribute Balanced Sampling (Doubinsky et al. 2022, arXiv 2111.00909): of the latents whose every attribute is
sure, draw a random combination that still has some, and then one of its latents, without replacement. Owns the table of
combinations and the draw. Knows nothing of images; the sample is written in `writing`.
"""

import bisect
import functools
from dataclasses import dataclass

import numpy as np

from magnet_cli.editing.scored import Attribute
from magnet_cli.editing.scored import Scored as Scored  # noqa: PLC0414
from magnet_cli.errors import SampleError, SpecError

_STREAM = 0x62616C61  # keeps the draws' random stream apart from all others
_AGAIN, _MEMBERS = 1, 2  # and its parts from each other
_GOLDEN = (5**0.5 - 1) / 2
_MOST_CELLS = 1 << 16
_BLOCK = 1 << 18  # rows looked at at a time
_NAMED = 3  # combinations that an error names

Target = dict[str, np.ndarray]  # of each attribute, the shares of its classes, [C] float64 that sum to 1


@dataclass(frozen=True)
class Table:
    """The contingency table: latents by their combination of classes, a cell each.

    Attributes:
        attributes: in the order of the cells' numbers, the last changing fastest.
        cells: [N] int32, the cell of each latent; -1 where an attribute is not sure enough.
        counts: [M] int64, latents in each cell.
        target: [M] float64, the share asked of each; they sum to 1.
        confidence: every attribute of a latent in a cell is surer than this.
        even: whether cells take turns, by the target's shares; else each is drawn at random, as published.
    """

    attributes: tuple[Attribute, ...]
    cells: np.ndarray
    counts: np.ndarray
    target: np.ndarray
    confidence: float
    even: bool = False

    @property
    def kept(self) -> int:
        """Latents that are in a cell."""
        return int(self.counts.sum())

    @property
    def missing(self) -> np.ndarray:
        """[…] int64, the cells that the target asks for, and that no latent is in."""
        return np.flatnonzero((self.target > 0) & (self.counts == 0))

    def classes(self, cell: int) -> dict[str, str]:
        """The class of each attribute in a cell."""
        numbers = np.unravel_index(cell, _shape(self.attributes))
        return {each.name: each.classes[i] for each, i in zip(self.attributes, numbers, strict=True)}

    def words(self, cell: int) -> str:
        """A cell in words."""
        return " ".join(f"{name}={value}" for name, value in self.classes(cell).items())

    @functools.cached_property
    def order(self) -> np.ndarray:
        """[kept] rows that are in a cell; they stand by cell."""
        rows = np.flatnonzero(self.cells >= 0)
        return rows[np.argsort(self.cells[rows], kind="stable")]


@dataclass(frozen=True)
class Selection:
    """n latents drawn from a table.

    Attributes:
        rows: [n] int64, in the order drawn; the first m are the draw for n = m.
        cells: [n] int32, the cell of each.
        displaced: [n] bool, whether the cell drawn first had no latents left, so that another was drawn.
    """

    rows: np.ndarray
    cells: np.ndarray
    displaced: np.ndarray

    @property
    def displaced_share(self) -> float:
        """The part of the draw that is not where the target asks."""
        return float(self.displaced.mean())


def equal(attributes: tuple[Attribute, ...]) -> Target:
    """The same share for each class of each attribute: that of the published algorithm."""
    return {each.name: np.full(len(each.classes), 1 / len(each.classes)) for each in attributes}


def target(attributes: tuple[Attribute, ...], asked: dict[str, float | dict[str, float]]) -> Target:
    """The shares of classes that were asked for; equal where nothing was.

    Args:
        attributes: those there are.
        asked: by attribute, a share for each class by its name (those that are not named share the rest equally), or of
            two classes that of the second.

    Raises:
        SpecError: there is no such attribute or class, or shares that are none or do not sum to 1.
    """
    known, found = {each.name: each for each in attributes}, equal(attributes)
    for name, shares in asked.items():
        if name not in known:
            message = f"a share of {name} is asked for, and the attributes are {', '.join(known)}"
            raise SpecError(message, "pass --target with their names")
        classes = known[name].classes
        if not isinstance(shares, dict):
            if len(classes) != 2:
                message = f"one share of {name} is asked for, and it has {len(classes)} classes: {', '.join(classes)}"
                raise SpecError(message, f"say of which, as --target '{name}:{classes[-1]}=0.3'")
            shares = {classes[1]: shares}  # noqa: PLW2901
        found[name] = _shares(known[name], shares)
    return found


def _shares(attribute: Attribute, asked: dict[str, float]) -> np.ndarray:
    made = np.full(len(attribute.classes), np.nan)
    for name, share in asked.items():
        if not 0 <= share <= 1:
            message = f"a share in [0, 1] is asked for, and {attribute.name} is to be {name} in {share:g}"
            raise SpecError(message, "pass shares, as 0.3 for 30 %")
        made[attribute.number(name)] = share
    rest, others = 1 - np.nansum(made), np.isnan(made)
    if rest < -1e-9 or (not others.any() and abs(rest) > 1e-9):
        message = f"shares of {attribute.name} that sum to 1 are asked for, and these sum to {1 - rest:g}"
        raise SpecError(message, "classes that are not named share the rest equally")
    made[others] = max(rest, 0) / max(others.sum(), 1)
    return made / made.sum()


def tabulate(attributes: tuple[Attribute, ...], confidence: float, asked: Target, *, even: bool = False) -> Table:
    """The table of scored latents.

    Args:
        attributes: of the same N latents.
        confidence: t in [0, 1): latents are kept whose every attribute is surer; of two classes with a score p, where
            p > t or p < 1 - t. 0 keeps all.
        asked: the shares of classes; combinations are asked for in their product.
        even: whether cells take turns.

    Raises:
        SpecError: there are too many combinations.
        SampleError: a class that is asked for never occurs among what is kept.
    """
    shape, num_rows = _shape(attributes), len(attributes[0].labels)
    if np.prod(shape, dtype=float) > _MOST_CELLS:
        message = f"{np.prod(shape, dtype=float):,.0f} combinations of classes are asked for, "
        message += f"and a table has at most {_MOST_CELLS:,}"
        raise SpecError(message, "name fewer --attributes, or --cut those with many classes into two")
    cells = np.empty(num_rows, np.int32)
    for start in range(0, num_rows, _BLOCK):
        here = slice(start, start + _BLOCK)
        numbers = np.ravel_multi_index([each.labels[here] for each in attributes], shape).astype(np.int32)
        kept = np.logical_and.reduce([each.sure[here] > confidence for each in attributes])
        cells[here] = np.where(kept, numbers, -1)
    counts = np.bincount(cells[cells >= 0], minlength=int(np.prod(shape)))
    shares = functools.reduce(np.multiply.outer, [asked[each.name] for each in attributes]).ravel()
    found = Table(attributes, cells, counts, shares / shares.sum(), confidence, even)
    _check_classes(found, asked)
    return found


def _shape(attributes: tuple[Attribute, ...]) -> tuple[int, ...]:
    return tuple(len(each.classes) for each in attributes)


def _check_classes(table: Table, asked: Target) -> None:
    """Whether each class that is asked for occurs."""
    counts = table.counts.reshape(_shape(table.attributes))
    for axis, each in enumerate(table.attributes):
        others = tuple(i for i in range(counts.ndim) if i != axis)
        seen = counts.sum(axis=others)
        absent = [each.classes[i] for i in np.flatnonzero((seen == 0) & (asked[each.name] > 0))]
        if absent:
            every = np.bincount(each.labels, minlength=len(each.classes))
            among = f"of {len(each.labels):,} latents {table.kept:,} are surer than {table.confidence:g} of everything"
            message = f"{each.name} is to be balanced, and no latent is of {', '.join(absent)}: {among}; "
            message += "without that " + ", ".join(f"{c} {n:,}" for c, n in zip(each.classes, every, strict=True))
            hint = "score more latents, pass a lower --confidence, --cut the attribute, or ask for none of that class "
            raise SampleError(message, hint + f"(--target '{each.name}:{absent[0]}=0')")


def largest(table: Table, seed: int) -> int:
    """The largest n whose draw is all where the target asks: no cell that it draws has run out. 0 where one is missing.

    A function of the seed, like the draw: before that n it is the draw from cells that never run out.
    """
    if len(table.missing):
        return 0
    drawn = _first_choices(table, seed, table.kept + 1)
    times = np.bincount(drawn, minlength=len(table.counts))
    over = np.flatnonzero(times > table.counts)  # one at least: there are more draws than latents
    starts = np.cumsum(times) - times
    by_cell = np.argsort(drawn, kind="stable")
    return int(by_cell[starts[over] + table.counts[over]].min())


def draw(table: Table, n: int, seed: int, *, allow_unbalanced: bool = False) -> Selection:
    """Draw n latents: for each a cell, at random or in turn, by the target, then one of its latents, none twice.

    Where the cell has none left, another is drawn from those that have: the published algorithm, where the target is
    equal. Up to `largest` that never happens.

    Args:
        table: what is drawn from.
        n: how many, ≥ 1. The first m of n are those of n = m.
        seed: of the draw, ≥ 0.
        allow_unbalanced: draw more than `largest`; the rest is not where the target asks.

    Raises:
        SampleError: n is more than `largest`, and that is not allowed; or more than there are.
    """
    most = largest(table, seed)
    if n > most and not allow_unbalanced:
        raise SampleError(*_too_many(table, n, most, seed))
    left = int(table.counts[table.target > 0].sum())
    if n > left:
        message = f"{n:,} latents are asked for, and {left:,} are kept: those surer than {table.confidence:g} of "
        message += "every attribute, in combinations that are asked for"
        raise SampleError(message, f"ask for at most {left:,}, pass a lower --confidence, or score more latents")
    cells = _first_choices(table, seed, n)
    displaced = np.zeros(n, bool)
    if n > most:
        cells[most:], displaced[most:] = _what_is_left(table, cells, most, seed)
    return Selection(_members(table, cells, seed), cells, displaced)


def evenly(table: Table, n: int, seed: int) -> np.ndarray:
    """N rows [n] int64 of those in a cell, without balance: each with the same probability, none twice.

    Raises:
        SampleError: there are fewer.
    """
    if n > table.kept:
        message = f"{n:,} latents are asked for, and {table.kept:,} are kept"
        raise SampleError(message, f"ask for at most {table.kept:,}, or score more latents")
    rows = np.flatnonzero(table.cells >= 0)
    return rows[np.argsort(_keys(table, seed)[rows], kind="stable")[:n]]


def _too_many(table: Table, n: int, most: int, seed: int) -> tuple[str, str]:
    """What is wrong, and what to do."""
    more = "score more latents, pass a lower --confidence, or --allow-unbalanced to take other combinations for these"
    if len(table.missing):
        listed = "; ".join(table.words(cell) for cell in table.missing[:_NAMED])
        others = f" and {len(table.missing) - _NAMED:,} more" if len(table.missing) > _NAMED else ""
        message = f"{n:,} latents of balanced attributes are asked for, and {len(table.missing):,} of "
        message += f"{np.count_nonzero(table.target):,} combinations never occur above {table.confidence:g}: "
        return message + listed + others, f"--cut or leave out an attribute; {more}"
    cell = int(_first_choices(table, seed, most + 1)[-1])
    message = f"{n:,} latents of balanced attributes are asked for, and after {most:,} the {table.counts[cell]:,} of "
    return f"{message}{table.words(cell)} are used up", f"ask for at most {most:,} (--n {most}); {more}"


def _first_choices(table: Table, seed: int, n: int) -> np.ndarray:
    """A cell [n] int32 for each draw, as if none could run out.

    Where cells take turns, by a sequence that fills [0, 1) evenly (Weyl 1916, with the golden ratio) from a random
    start: after any n, each cell has its share of n to within a few.
    """
    asked = np.flatnonzero(table.target)
    ends = np.cumsum(table.target[asked])
    rng = np.random.default_rng([_STREAM, seed])
    drawn = (rng.random() + np.arange(n) * _GOLDEN) % 1 if table.even else rng.random(n)
    places = np.minimum(np.searchsorted(ends, drawn * ends[-1], side="right"), len(asked) - 1)
    return asked[places].astype(np.int32)


def _what_is_left(table: Table, cells: np.ndarray, first: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The cells from draw `first` on, one after the other: where a cell has run out, one of those that have not."""
    supply = (table.counts - np.bincount(cells[:first], minlength=len(table.counts))).tolist()
    again = np.random.default_rng([_STREAM, seed, _AGAIN]).random(len(cells))[first:].tolist()
    chosen, displaced = cells[first:].tolist(), np.zeros(len(cells) - first, bool)
    alive: list[int] = []
    ends: list[float] = []
    for i, cell in enumerate(chosen):
        if not supply[cell]:
            if not alive:  # the first time, or one of them has run out since
                alive = [each for each in np.flatnonzero(table.target).tolist() if supply[each]]
                ends = np.cumsum(table.target[alive]).tolist()
            place = min(bisect.bisect_right(ends, again[i] * ends[-1]), len(alive) - 1)
            cell = chosen[i] = alive[place]  # noqa: PLW2901
            displaced[i] = True
        supply[cell] -= 1
        if not supply[cell]:
            alive = []
    return np.array(chosen, np.int32), displaced


def _keys(table: Table, seed: int) -> np.ndarray:
    """A random number [N] for each row: a function of seed and row, so that a longer source keeps them."""
    return np.random.default_rng([_STREAM, seed, _MEMBERS]).random(len(table.cells))


def _members(table: Table, cells: np.ndarray, seed: int) -> np.ndarray:
    """The rows [n] int64 that draws from cells [n] take: of each cell's latents, in a random order, the next."""
    keys, made = _keys(table, seed), np.empty(len(cells), np.int64)
    starts = np.cumsum(table.counts) - table.counts
    by_cell = np.argsort(cells, kind="stable")
    times = np.bincount(cells, minlength=len(table.counts))
    first = np.cumsum(times) - times
    for cell in np.flatnonzero(times).tolist():
        members = table.order[starts[cell] : starts[cell] + table.counts[cell]]
        places = by_cell[first[cell] : first[cell] + times[cell]]
        made[places] = members[np.argsort(keys[members], kind="stable")[: len(places)]]
    return made
