"""Take damaged shards out of a volume, so that they are missing and computed again.

Owns which shards may go, and how they are named. Knows nothing of how rows are computed.
"""

from magnet_cli.errors import DamageError
from magnet_cli.volume.store import Volume


def repair(volume: Volume, num_rows: int) -> list[str]:
    """Remove the damaged among the committed shards.

    Args:
        volume: on disk, or planned.
        num_rows: N, up to where rows are to be made again.

    Returns:
        What was removed and why, in words, one line a shard.

    Raises:
        DamageError: there are damaged rows behind num_rows, which would be lost; nothing was removed.
        MagnetError: a shard cannot be read or removed.
    """
    found = {shard: damage for shard in volume.shards() if (damage := volume.damage(shard))}
    extents = {shard: _rows(volume, shard) for shard in found}
    for shard, (rows, known) in extents.items():
        if (rows.stop if known else rows.start + 1) > num_rows:
            message = f"shard {shard} is damaged, and its rows {rows.start}-{rows.stop - 1} lie behind the "
            message += f"{num_rows:,} asked for"
            raise DamageError(message, f"pass `n={rows.stop}` or more with `repair=True`, to have them made again")
    return [
        f"shard {shard} (rows {rows.start}-{rows.stop - 1}) is made again: {found[shard]}"
        for shard, (rows, _) in extents.items()
        if volume.remove(shard)
    ]


def _rows(volume: Volume, shard: int) -> tuple[range, bool]:
    """The rows of a shard, and whether its mark could tell; otherwise those of a full one."""
    first = shard * volume.spec.shard_rows
    try:
        return range(first, first + volume.mark(shard).rows), True
    except DamageError:
        return range(first, first + volume.spec.shard_rows), False
