"""Means over all pairs of points: KID (Bińkowski et al. 2018) and diversity, the mean pairwise distance.

Sums over pairs of groups give every replica of the jackknife from one pass. All pairs are used, so that the numbers are
repeatable. Time O((n + m)² F); memory is that of one block.
"""

from collections.abc import Callable

import numpy as np

from magnet_cli.maths.metrics.intervals import GROUPS

_BLOCK = 1 << 22  # numbers in a block of products: 32 MB
_DEGREE = 3


def kid_and_diversity(
    points: np.ndarray,
    reference: np.ndarray,
    dealt: tuple[np.ndarray, np.ndarray],
    advance: Callable[[int], None] = lambda _: None,
) -> dict[str, np.ndarray]:
    """Return unbiased KID with the kernel (x·y/F + 1)³, and the mean distance of two points of each side.

    Args:
        points: [n, F] float64.
        reference: [m, F] float64.
        dealt: groups of both sides, [n] and [m].
        advance: called with the number of pairs that are done.

    Returns:
        "kid", "diversity", "reference_diversity": [GROUPS + 1]; entry g leaves group g out, the last uses all points.
    """
    ours, theirs = ([side[of == g] for g in range(GROUPS)] for side, of in zip((points, reference), dealt, strict=True))
    sizes, other_sizes = (np.array([len(part) for part in parts]) for parts in (ours, theirs))
    kernel, distances = _within(ours, advance)
    other_kernel, other_distances = _within(theirs, advance)
    crossed = np.zeros((GROUPS, GROUPS))
    for i, part in enumerate(ours):
        for j, other in enumerate(theirs):
            crossed[i, j], _ = _sums(part, other)
            advance(len(part) * len(other))
    own, other = (_mean_pair(table, s) for table, s in ((kernel, sizes), (other_kernel, other_sizes)))
    cross = _without(crossed) / _without(np.outer(sizes, other_sizes).astype(np.float64))
    return {
        "kid": own + other - 2 * cross,
        "diversity": _mean_pair(distances, sizes),
        "reference_diversity": _mean_pair(other_distances, other_sizes),
    }


def _within(parts: list[np.ndarray], advance: Callable[[int], None]) -> tuple[np.ndarray, np.ndarray]:
    """Sums of kernel and distance over pairs of different points, [GROUPS, GROUPS], symmetric."""
    kernel, distances = np.zeros((GROUPS, GROUPS)), np.zeros((GROUPS, GROUPS))
    for i, part in enumerate(parts):
        for j in range(i + 1):
            kernel[i, j], distances[i, j] = _sums(part, parts[j], same=i == j)
            kernel[j, i], distances[j, i] = kernel[i, j], distances[i, j]
            advance(len(part) * len(parts[j]) // (1 + (i == j)))
    return kernel, distances


def _sums(one: np.ndarray, other: np.ndarray, *, same: bool = False) -> tuple[float, float]:
    """Sums of kernel and distance over all pairs of two groups; over pairs of different points of the same group."""
    features = one.shape[1]
    norms, other_norms = (np.einsum("ij,ij->i", side, side) for side in (one, other))
    kernel = distances = 0.0
    rows = max(1, _BLOCK // max(len(other), 1))
    for start in range(0, len(one), rows):
        block = slice(start, start + rows)
        products = one[block] @ other.T
        squares = np.maximum(norms[block, None] + other_norms - 2 * products, 0)
        if same:
            squares[np.arange(len(squares)), np.arange(start, start + len(squares))] = 0
        kernel += float(((products / features + 1) ** _DEGREE).sum())
        distances += float(np.sqrt(squares).sum())
    if same:
        kernel -= float(((norms / features + 1) ** _DEGREE).sum())
    return kernel, distances


def _without(table: np.ndarray) -> np.ndarray:
    """[G + 1] sums of a table [G, G]: entry g leaves row and column g out, the last is the sum of all."""
    whole = table.sum()
    return np.append(whole - table.sum(axis=0) - table.sum(axis=1) + np.diag(table), whole)


def _mean_pair(table: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """[G + 1] means over pairs of different points, from sums over pairs of groups, as `_without`."""
    n = sizes.sum() - np.append(sizes, 0)
    return _without(table) / (n * (n - 1.0))
