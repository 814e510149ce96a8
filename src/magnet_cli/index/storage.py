"""The file of an index: its form, its mark, and when it is up to date.

An index is made of its volume again; whatever is wrong with the file, nothing is lost with it.
"""

import dataclasses
import io
from pathlib import Path

import h5py
import numpy as np

from magnet_cli import __version__, files
from magnet_cli.errors import MagnetError
from magnet_cli.index.rows import Index, Part
from magnet_cli.volume import Volume, layout

FORMAT = 2  # 1 kept eight bytes more a row, and which shards it was made of in another way


def path_of(folder: Path, volume: Volume, top_k: int) -> Path:
    """Where a volume's index for one k is kept, below a folder for indices."""
    return folder / f"{volume.spec.generator}-{volume.fingerprint[:12]}-k{top_k}.h5"


def stored(path: Path, volume: Volume, top_k: int) -> Index | None:
    """The index at `path`, if it is whole and of this volume and k; else None.

    It is up to date if `current` says so; else `build` takes from it what still holds.
    """
    try:
        mark, data = files.read_document(path.with_suffix(".json")), path.read_bytes()
    except (MagnetError, OSError):
        return None  # an index is made of the volume again; nothing is lost with it
    if mark.get("sha256") != files.sha256_bytes(data) or mark.get("format") != FORMAT:
        return None
    if (mark.get("fingerprint"), mark.get("top_k")) != (volume.fingerprint, top_k):
        return None
    try:
        return read(data, mark)
    except ValueError:
        return None


def current(index: Index, volume: Volume) -> bool:
    """Whether an index is made of just the rows that the volume holds now.

    Raises:
        MagnetError: a mark in the volume is damaged.
    """
    return {part.shard: part.sha256 for part in index.parts} == {s: m.sha256 for s, m in volume.marks().items()}


def read(data: bytes, mark: dict) -> Index:
    """The index in the verified bytes of its file.

    Raises:
        ValueError: it is none, or not the one that the mark is of.
    """
    try:
        parts = tuple(Part(*part) for part in mark["parts"])
        if {tuple(map(type, dataclasses.astuple(part))) for part in parts} != {(int, int, int, str)}:
            message = "its parts are not shards"
            raise ValueError(message)
        num_rows = sum(part.rows for part in parts)
        forms = {"log_volume": layout.form("<f8", num_rows), "above_floor": layout.form("|u1", -(-num_rows // 8))}
        arrays, found = layout.read(data, forms, attributes=("fingerprint", "top_k"))
        if (found["fingerprint"], found["top_k"]) != (mark["fingerprint"], mark["top_k"]):
            message = "it is of another volume or k"
            raise ValueError(message)
    except (KeyError, TypeError) as error:
        message = f"its mark is not that of an index: {error}"
        raise ValueError(message) from error
    real = np.unpackbits(arrays["above_floor"], count=num_rows).view(bool)
    return Index(mark["fingerprint"], mark["top_k"], parts, arrays["log_volume"], real)


def store(index: Index, volume: Volume, path: Path) -> None:
    """Publish an index and its mark.

    Raises:
        MagnetError: it cannot be written.
    """
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", libver="earliest") as file:
        file["log_volume"], file["above_floor"] = index.log_volume, np.packbits(index.above_floor)
        about = {"format": FORMAT, "fingerprint": index.fingerprint, "top_k": index.top_k, "magnet": __version__}
        file.attrs.update(about)
    data = buffer.getvalue()
    files.make_folder(path.parent)
    files.sweep(path.parent)
    files.publish(path, data)
    mark = {"format": FORMAT, "kind": "index", "sha256": files.sha256_bytes(data), "size": len(data)}
    mark |= {"rows": index.num_rows, "top_k": index.top_k, "fingerprint": index.fingerprint}
    mark |= {"volume": str(volume.path), "parts": [list(dataclasses.astuple(part)) for part in index.parts]}
    files.publish(path.with_suffix(".json"), files.document(mark))
