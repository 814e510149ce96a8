"""Summarise an index: rows, spread of log-volume, and how far rho can go."""

from typing import Any

from magnet_cli.index.build_index import rescales
from magnet_cli.index.diagnostics import effective_size
from magnet_cli.index.index import Index
from magnet_cli.index.size_table import SOME_RHOS, effective_sizes, some_top_ks
from magnet_cli.volume import Volume


def summary(index: Index, volume: Volume) -> dict[str, Any]:
    """Return fields that describe an index, for `magnet index --json`.

    Returns:
        "rows": number of rows that may be drawn; "top_k"; "below_floor": rows of these below the rank floor;
        "effective_size": {rho: rows}; "effective_size_by_top_k": {k: {rho: rows} or None}; "rescaled": see `rescales`;
        "log_volume": mean, standard deviation, least and largest, in nats.

    Raises:
        VolumeError: a shard of the volume is damaged.
    """
    real = index.above_floor if index.competing is None else index.above_floor & index.competing
    values, rows = index.log_volume[real], index.pool(0.0)
    spread = {"mean": values.mean(), "std": values.std(), "min": values.min(), "max": values.max()}
    by_top_k = effective_sizes(volume, index, some_top_ks(volume.spec.top_k, index.top_k), SOME_RHOS)
    return {
        "rows": rows,
        "top_k": index.top_k,
        "below_floor": rows - len(values),
        "effective_size": {f"{rho:g}": round(effective_size(index, rho), 1) for rho in SOME_RHOS},
        "effective_size_by_top_k": {str(k): sizes and _rounded(sizes) for k, sizes in by_top_k.items()},
        "rescaled": rescales(volume.spec),
        "log_volume": {name: round(float(value), 6) for name, value in spread.items()},
    }


def _rounded(sizes: dict[float, float]) -> dict[str, float]:
    return {f"{rho:g}": round(size, 1) for rho, size in sizes.items()}
