"""Precision and recall (Kynkäänniemi et al. 2019), density and coverage (Naeem et al. 2020), by nearest neighbours.

Owns the balls around points, to their k-th nearest other, and who lies in whose. Equal to the `prdc` package, with
every replica of the jackknife from one pass over the distances: without a group, balls of few points change, and pairs
that count for no replica are dropped at once.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from magnet_cli.errors import require
from magnet_cli.maths.metrics.intervals import GROUPS

METRICS = ("precision", "recall", "density", "coverage")
_BLOCK = 1 << 23  # distances held at once: 64 MB
_ROWS = 1024  # whose neighbours are asked for at once
_PAIRS = 1 << 17  # pairs held against all replicas at once


def radii(points: np.ndarray, k: int, dealt: np.ndarray, advance: Callable[[int], None] = lambda _: None) -> np.ndarray:
    """Distance of each point to its k-th nearest other: among those of all groups but one, and last among all.

    Args:
        points: [n, F] float64; without any group more than k are left.
        k: which neighbour.
        dealt: the group of each, [n].
        advance: called with the number of points that are done.

    Returns:
        [n, GROUPS + 1] float64.
    """
    library = require("sklearn.neighbors", "evaluate")
    search = library.NearestNeighbors().fit(points)
    found = np.empty((len(points), GROUPS + 1))
    for start in range(0, len(points), _ROWS):
        rows = np.arange(start, min(start + _ROWS, len(points)))
        asked = min(3 * k + 10, len(points) - 1)
        while len(rows):
            distances, places = _others(search, points, rows, asked)
            found[rows] = values = _kth(distances, dealt[places], k)
            rows = rows[np.isnan(values).any(axis=1)]  # too many neighbours of one group: look further
            asked = min(2 * asked, len(points) - 1)
        advance(min(_ROWS, len(points) - start))
    return found


def _others(
    search: Any,  # noqa: ANN401
    points: np.ndarray,
    rows: np.ndarray,
    asked: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Distances and places [r, asked] of the nearest others of some rows, the rows themselves left out."""
    distances, places = search.kneighbors(points[rows], asked + 1)
    keep = places != rows[:, None]
    keep[keep.all(axis=1), -1] = False  # more than `asked` points lie on it: any of them stands for it
    return distances[keep].reshape(-1, asked), places[keep].reshape(-1, asked)


def _kth(distances: np.ndarray, of: np.ndarray, k: int) -> np.ndarray:
    """[r, GROUPS + 1]: the k-th distance among those not of a group; NaN where fewer are known."""
    columns = [distances[:, k - 1]]
    for group in reversed(range(GROUPS)):
        place = np.cumsum(of != group, axis=1) == k
        at = place.argmax(axis=1)
        columns.append(np.where(place.any(axis=1), distances[np.arange(len(distances)), at], np.nan))
    return np.stack(columns[::-1], axis=1)


def prdc(
    points: np.ndarray,
    reference: np.ndarray,
    k: int,
    dealt: tuple[np.ndarray, np.ndarray],
    advance: Callable[[int], None] = lambda _: None,
) -> dict[str, np.ndarray]:
    """Precision, recall, density and coverage of points against a reference.

    Args:
        points: [n, F] float64.
        reference: [m, F] float64.
        k: balls reach to the k-th nearest other.
        dealt: the groups of both, [n] and [m].
        advance: called with the number of points that are done: n + 2 m in all.

    Returns:
        METRICS, [GROUPS + 1] each: without each group on either side, and last without none.
    """
    library = require("sklearn.metrics", "evaluate")
    own, theirs = dealt
    reach = radii(points, k, own, advance)
    other_reach = radii(reference, k, theirs, advance)
    largest, other_largest = reach.max(axis=1), other_reach.max(axis=1)
    inside = np.zeros((len(points), GROUPS + 1), bool)  # points in a ball of the reference
    covered = np.zeros((len(reference), GROUPS + 1), bool)  # balls of the reference with a point in them
    reached = np.zeros((len(reference), GROUPS + 1), bool)  # the reference's points in a ball of the points
    counts = np.zeros(GROUPS + 1)
    rows = max(1, _BLOCK // len(points))
    for start in range(0, len(reference), rows):
        block = slice(start, min(start + rows, len(reference)))
        distances = library.pairwise_distances(reference[block], points)
        for r, p, d in _pairs(distances, distances < other_largest[block, None], start):
            held = (d[:, None] < other_reach[r]) & _left(own[p], theirs[r])
            counts += held.sum(axis=0)
            _mark(inside, p, held)
            _mark(covered, r, held)
        for r, p, d in _pairs(distances, distances < largest, start):
            _mark(reached, r, (d[:, None] < reach[p]) & _left(own[p], theirs[r]))
        advance(block.stop - block.start)
    kept, other_kept = (_left(of) for of in dealt)
    return {
        "precision": (inside & kept).sum(axis=0) / kept.sum(axis=0),
        "recall": (reached & other_kept).sum(axis=0) / other_kept.sum(axis=0),
        "density": counts / (k * kept.sum(axis=0)),
        "coverage": (covered & other_kept).sum(axis=0) / other_kept.sum(axis=0),
    }


def _left(*groups: np.ndarray) -> np.ndarray:
    """Whether rows [p], of one group or two each, are there without each group, and without none; [p, GROUPS + 1]."""
    places = np.arange(GROUPS + 1)
    return np.logical_and.reduce([of[:, None] != places for of in groups])


def _pairs(distances: np.ndarray, mask: np.ndarray, start: int):  # noqa: ANN202
    """Rows of the reference, points and distances where a mask is set, in pieces."""
    places = np.flatnonzero(mask)
    for first in range(0, len(places), _PAIRS):
        piece = places[first : first + _PAIRS]
        r, p = np.divmod(piece, distances.shape[1])
        yield r + start, p, distances.ravel()[piece]


def _mark(table: np.ndarray, rows: np.ndarray, held: np.ndarray) -> None:
    """Set table[rows[i], j] wherever held[i, j]; rows repeat."""
    for j in range(held.shape[1]):
        table[rows[held[:, j]], j] = True
