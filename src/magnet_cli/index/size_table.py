"""Effective sizes of a volume for several rho and k, in one pass over its shards and in constant memory."""

from collections.abc import Sequence

import numpy as np

from magnet_cli.index.build_index import FLOOR_SHARE, above_floor, log_volumes
from magnet_cli.index.index import Index
from magnet_cli.volume import Volume

SOME_RHOS = (-2, -1, -0.5, -0.3, -0.1, 0, 0.1, 0.3, 0.5, 1, 2)  # polarities in tables
_KS = (1, 2, 3, 5, 10, 20, 30, 50, 100, 200, 300, 500, 1000)


def some_top_ks(kept: int, top_k: int) -> list[int]:
    """Return values of k for tables, up to K, with `top_k` and K among them."""
    return sorted({k for k in _KS if k < kept} | {top_k, kept})


def effective_sizes(
    volume: Volume, index: Index, top_ks: Sequence[int], rhos: Sequence[float]
) -> dict[int, dict[float, float] | None]:
    """Return the effective size of the rows that compete in an index, for each k and rho.

    Args:
        volume: of the index.
        index: its competing rows are used; its k, classes and prior correction are not.
        top_ks: values of k.
        rhos: polarities.

    Returns:
        {k: {rho: rows}}; None for a k that is below the rank floor in more than 0.1 % of the rows.

    Raises:
        VolumeError: a shard is damaged.
    """
    shape = len(top_ks), len(rhos)
    tops, sums, squares = np.full(shape, -np.inf), np.zeros(shape), np.zeros(shape)
    below, start = np.zeros(len(top_ks)), 0
    for part, shard in ((part, volume.read(part.shard)) for part in index.parts):
        here = slice(start, start + part.rows)
        start += part.rows
        for i, k in enumerate(top_ks):
            tilts = log_volumes(shard, volume.spec, k)[: part.rows]
            real = above_floor(shard, volume.spec, k)[: part.rows] & np.isfinite(tilts)
            below[i] += np.count_nonzero(~real)
            competing = np.ones(part.rows, bool) if index.competing is None else index.competing[here]
            for j, rho in enumerate(rhos):
                scores = rho * tilts[competing & real] if rho else np.zeros(np.count_nonzero(competing))
                top = max(tops[i, j], scores.max(initial=-np.inf))
                if top > -np.inf:
                    weights, old = np.exp(scores - top), np.exp(tops[i, j] - top)
                    sums[i, j] = sums[i, j] * old + weights.sum()
                    squares[i, j] = squares[i, j] * old**2 + np.dot(weights, weights)
                    tops[i, j] = top
    sizes = np.divide(sums**2, squares, out=np.zeros(shape), where=squares > 0)
    real = below / index.num_rows <= FLOOR_SHARE
    return {k: dict(zip(rhos, sizes[i].tolist(), strict=True)) if real[i] else None for i, k in enumerate(top_ks)}
