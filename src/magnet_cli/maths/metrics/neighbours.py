"""Precision and recall (Kynkäänniemi et al. 2019), density and coverage (Naeem et al. 2020), by nearest neighbours.

Each point has a ball that reaches to its k-th nearest other point. The values equal those of the `prdc` package; all
replicas of the jackknife come from one pass over the distances.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from magnet_cli.errors import require
from magnet_cli.maths.metrics.intervals import GROUPS

METRICS = ("precision", "recall", "density", "coverage")
_BLOCK = 1 << 23  # distances in memory: 64 MB
_ROWS = 1024  # rows in a neighbour query
_PAIRS = 1 << 17  # pairs compared with all replicas at once


def radii(points: np.ndarray, k: int, dealt: np.ndarray, advance: Callable[[int], None] = lambda _: None) -> np.ndarray:
    """Return the distance of each point to its k-th nearest other point.

    Args:
        points: [n, F] float64; without any one group more than k points are left.
        k: number of the neighbour.
        dealt: group of each point, [n].
        advance: called with the number of points that are done.

    Returns:
        [n, GROUPS + 1] float64; column g leaves group g out, the last uses all points.
    """
    library = require("sklearn.neighbors", "evaluate")
    search = library.NearestNeighbors().fit(points)
    radius = np.empty((len(points), GROUPS + 1))
    for start in range(0, len(points), _ROWS):
        rows = np.arange(start, min(start + _ROWS, len(points)))
        count = min(3 * k + 10, len(points) - 1)
        while len(rows):
            distances, places = _others(search, points, rows, count)
            radius[rows] = values = _kth(distances, dealt[places], k)
            rows = rows[np.isnan(values).any(axis=1)]  # too many neighbours of one group: look further
            count = min(2 * count, len(points) - 1)
        advance(min(_ROWS, len(points) - start))
    return radius


def _others(
    search: Any,
    points: np.ndarray,
    rows: np.ndarray,
    count: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Distances and places [r, count] of the nearest other points of some rows."""
    distances, places = search.kneighbors(points[rows], count + 1)
    keep = places != rows[:, None]
    keep[keep.all(axis=1), -1] = False  # more than `count` points coincide with it: any of them will do
    return distances[keep].reshape(-1, count), places[keep].reshape(-1, count)


def _kth(distances: np.ndarray, of: np.ndarray, k: int) -> np.ndarray:
    """[r, GROUPS + 1]: the k-th distance without each group, the last with all; NaN if there are fewer."""
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
    """Return precision, recall, density and coverage of points against a reference.

    Args:
        points: [n, F] float64.
        reference: [m, F] float64.
        k: balls reach to the k-th nearest other.
        dealt: groups of both sides, [n] and [m].
        advance: called with the number of points that are done: n + 2 m in all.

    Returns:
        {metric: [GROUPS + 1]}; entry g leaves group g out on both sides, the last uses all points.
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
    """mask[p, g]: row p is kept when group g is left out; the last column is all True. [p, GROUPS + 1]."""
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
