"""Remove damaged shards from a volume, so that they are computed again."""

from magnet_cli.errors import DamageError
from magnet_cli.volume.store import Volume


def repair(volume: Volume, num_rows: int) -> list[str]:
    """Remove the damaged among the committed shards.

    Args:
        volume: on disk, or planned.
        num_rows: N, the rows that will be computed again.

    Returns:
        A line on each removed shard, with the reason.

    Raises:
        DamageError: there are damaged rows behind num_rows, which would be lost; nothing was removed.
        MagnetError: a shard cannot be read or removed.
    """
    damaged = {shard: damage for shard in volume.shards() if (damage := volume.damage(shard))}
    extents = {shard: _rows(volume, shard) for shard in damaged}
    for shard, (rows, certain) in extents.items():
        if (rows.stop if certain else rows.start + 1) > num_rows:
            message = f"shard {shard} is damaged, and its rows {rows.start}-{rows.stop - 1} lie behind the "
            message += f"{num_rows:,} asked for"
            raise DamageError(message, f"pass `n={rows.stop}` or more with `repair=True`, to have them made again")
    return [
        f"shard {shard} (rows {rows.start}-{rows.stop - 1}) is made again: {damaged[shard]}"
        for shard, (rows, _) in extents.items()
        if volume.remove(shard)
    ]


def _rows(volume: Volume, shard: int) -> tuple[range, bool]:
    """Return the rows of a shard, and True; where its mark is damaged, those of a full shard, and False."""
    first = shard * volume.spec.shard_rows
    try:
        return range(first, first + volume.mark(shard).rows), True
    except DamageError:
        return range(first, first + volume.spec.shard_rows), False
