"""ICFID: the mean FID between the labels of one set and the matching classes of another (Hwang et al. 2022, SLOGAN).

Values with different numbers of classes cannot be compared.
"""

from collections.abc import Callable

import numpy as np

from magnet_cli.maths.metrics import frechet


def matched(table: np.ndarray) -> list[tuple[int, int]]:
    """Return pairs (row, column) of a table [K, C] of distances: the smallest, then the smallest of the rest, …."""
    left, pairs = table.copy(), []
    for _ in range(min(table.shape)):
        row, column = np.unravel_index(np.argmin(left), left.shape)
        pairs.append((int(row), int(column)))
        left[row], left[:, column] = np.inf, np.inf
    return pairs


def icfid(
    sides: tuple[np.ndarray, np.ndarray],
    labels: tuple[np.ndarray, np.ndarray],
    dealt: tuple[np.ndarray, np.ndarray],
    advance: Callable[[int], None] = lambda _: None,
) -> tuple[float, np.ndarray, list[tuple[int, int]]]:
    """Return the mean Fréchet distance of matched labels and classes.

    Args:
        sides: features [n, F] and reference features [m, F], float64.
        labels: [n] and [m] int64; each value has more rows than there are features.
        dealt: groups of both sides, [n] and [m].
        advance: called with 1 for each distance of the table.

    Returns:
        The mean; the mean without each group, [GROUPS], with the pairs of the whole; the pairs (label, class).
    """
    named = [np.unique(each).tolist() for each in labels]
    rows = [[np.flatnonzero(each == name) for name in names] for each, names in zip(labels, named, strict=True)]
    table = np.empty((len(named[0]), len(named[1])))
    for i, j in np.ndindex(*table.shape):
        table[i, j], _ = frechet.fid(sides[0][rows[0][i]], sides[1][rows[1][j]], None)
        advance(1)
    distances = []
    pairs = matched(table)
    for i, j in pairs:
        ours, theirs = rows[0][i], rows[1][j]
        distances.append(frechet.fid(sides[0][ours], sides[1][theirs], (dealt[0][ours], dealt[1][theirs])))
    values, replicas = zip(*distances, strict=True)
    return float(np.mean(values)), np.mean(replicas, axis=0), [(named[0][i], named[1][j]) for i, j in pairs]
