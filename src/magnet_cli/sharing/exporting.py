"""Write a volume as the arrays that the authors of MaGNET published."""

import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from magnet_cli.errors import VolumeError
from magnet_cli.files import atomic, documents, npz
from magnet_cli.files.text import quoted
from magnet_cli.sharing.published_arrays import opened
from magnet_cli.volume import Shard, Volume

_ONE_HOT_ROWS = 1 << 12  # rows written at a time: a thousand classes are 16 MB


def export(volume: Volume, path: Path) -> Iterator[int]:
    """Write an npz file of svds [N, K], latents [N, D] and, with classes, one-hot labels [N, C], all float32.

    The file appears whole, and depends on the rows alone. C is the largest label plus one.

    Args:
        volume: the volume; its committed rows are written in order.
        path: the file.

    Yields:
        Rows written of one array, for each of its two or three arrays.

    Raises:
        VolumeError: it holds no rows, or some with labels and some without; a shard is damaged.
        MagnetError: the file cannot be written; none is left behind.
    """
    marks = volume.marks()
    shards, num_rows = list(marks), sum(mark.rows for mark in marks.values())
    if not shards:
        message = f"{volume.path} holds no rows yet"
        raise VolumeError(
            message, f"fill it: magnet compute {quoted(volume.spec.generator)} --volume {quoted(volume.path)}"
        )

    def rows() -> Iterator[Shard]:
        for shard in shards:
            yield volume.read(shard).part(slice(marks[shard].rows))  # it may have grown since

    classes = _classes(volume, rows())
    widths = {"svds": volume.spec.top_k, "latents": volume.spec.latent_dim} | ({"labels": classes} if classes else {})
    take: dict[str, Callable[[Shard], np.ndarray]] = {
        "svds": lambda block: block.singular_values,
        "latents": lambda block: block.latents,
        "labels": lambda block: np.equal.outer(np.asarray(block.labels), np.arange(classes)),
    }
    atomic.make_folder(path.parent)
    with atomic.appearing(path) as file, npz.new_archive(file) as archive:
        archive.comment = _origin(volume)
        for name, width in widths.items():
            with npz.new_member(archive, name) as member:
                npz.write_header(member, (num_rows, width), "<f4")
                for block in rows():
                    for start in range(0, len(block.latents), _ONE_HOT_ROWS):
                        few = block.part(slice(start, start + _ONE_HOT_ROWS))
                        member.write(np.ascontiguousarray(take[name](few), "<f4").tobytes())
                    yield len(block.latents)


def num_steps(volume: Volume) -> int:
    """Return the sum of what `export` yields."""
    first = next((shard for _, shard in volume.rows()), None)
    return (2 + bool(first and first.labels is not None)) * volume.num_rows


def _classes(volume: Volume, blocks: Iterator[Shard]) -> int:
    """Return C, the number of classes; 0 where rows have no labels."""
    largest = {-1 if block.labels is None else int(block.labels.max()) for block in blocks}
    if len(largest) > 1 and min(largest) < 0:
        message = f"some rows of {volume.path} have labels, and some have none"
        raise VolumeError(message, "compute it again: no run of `magnet compute` makes such a volume")
    return max(largest) + 1


def is_export(volume: Volume, path: Path) -> bool:
    """Return whether a file is the export of exactly the rows that a volume holds now.

    Raises:
        VolumeError: the file is something else.
    """
    if not path.exists():
        return False
    comment = b""
    if path.is_file() and zipfile.is_zipfile(path):
        with opened(path) as archive:
            comment = archive.comment
    if comment == _origin(volume):
        return True
    message = f"{path} is in the way: it is not the export of the rows that {volume.path} holds now"
    raise VolumeError(message, "pass another file, or `force=True` to replace it")


def _origin(volume: Volume) -> bytes:
    """Return the zip comment of an export, which names the rows it holds."""
    shards = documents.sha256_bytes("".join(mark.sha256 for mark in volume.marks().values()).encode())
    return documents.canonical({"magnet_volume": volume.fingerprint, "rows": volume.num_rows, "shards": shards})
