"""The files of an index and of the log-priors beside it: their form, their marks, and when they are up to date.

They are made of the volume again: whatever is wrong with a file, nothing is lost with it.
"""

import dataclasses
import io
from pathlib import Path

import h5py
import numpy as np

from magnet_cli import __version__
from magnet_cli.errors import MagnetError
from magnet_cli.files import atomic, documents, hdf5
from magnet_cli.index.index import Index, Part
from magnet_cli.index.prior_correction import LogPrior
from magnet_cli.volume import Volume

FORMAT = 2  # 1 kept eight bytes more a row, and which shards it was made of in another way
PRIOR_FORMAT = 1


def path_of(folder: Path, volume: Volume, top_k: int) -> Path:
    """Where a volume's index for one k is kept, below a folder for indices."""
    return folder / f"{volume.spec.generator}-{volume.fingerprint[:12]}-k{top_k}.h5"


def prior_path(folder: Path, volume: Volume) -> Path:
    """Where a volume's log-priors are kept, below a folder for indices."""
    return folder / f"{volume.spec.generator}-{volume.fingerprint[:12]}-prior.h5"


def stored(path: Path, volume: Volume, top_k: int) -> Index | None:
    """The index at `path`, if it is whole and of this volume and k; else None.

    It is up to date if `current` says so; else `build` takes from it what still holds.
    """
    found = _whole(path, {"format": FORMAT, "fingerprint": volume.fingerprint, "top_k": top_k})
    try:
        return read(*found) if found else None
    except ValueError:
        return None


def stored_prior(path: Path, volume: Volume) -> LogPrior | None:
    """The log-priors at `path`, if they are whole and of this volume; else None.

    They are up to date if their parts are those of the index; else `log_prior` takes from them what still holds.
    """
    found = _whole(path, {"format": PRIOR_FORMAT, "fingerprint": volume.fingerprint, "kind": "log-prior"})
    try:
        return read_prior(*found) if found else None
    except ValueError:
        return None


def _whole(path: Path, about: dict) -> tuple[bytes, dict] | None:
    """The bytes of a file and its mark, where they fit each other and the mark says what is asked; else None."""
    try:
        mark, data = documents.read(path.with_suffix(".json")), path.read_bytes()
    except (MagnetError, OSError):
        return None
    whole = mark.get("sha256") == documents.sha256_bytes(data) and about.items() <= mark.items()
    return (data, mark) if whole else None


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
    parts, num_rows = _parts(mark)
    forms = {"log_volume": hdf5.form("<f8", num_rows), "above_floor": hdf5.form("|u1", -(-num_rows // 8))}
    arrays = _arrays(data, mark, forms, ("fingerprint", "top_k"))
    real = np.unpackbits(arrays["above_floor"], count=num_rows).view(bool)
    return Index(mark["fingerprint"], mark["top_k"], parts, arrays["log_volume"], real)


def read_prior(data: bytes, mark: dict) -> LogPrior:
    """The log-priors in the verified bytes of their file.

    Raises:
        ValueError: they are none, or not those that the mark is of.
    """
    parts, num_rows = _parts(mark)
    arrays = _arrays(data, mark, {"log_prior": hdf5.form("<f4", num_rows)}, ("fingerprint",))
    return LogPrior(mark["fingerprint"], parts, arrays["log_prior"])


def _parts(mark: dict) -> tuple[tuple[Part, ...], int]:
    """The parts that a mark names, and how many rows they have."""
    try:
        parts = tuple(Part(*part) for part in mark["parts"])
    except (KeyError, TypeError) as error:
        message = f"its mark is not that of an index: {error}"
        raise ValueError(message) from error
    if {tuple(map(type, dataclasses.astuple(part))) for part in parts} != {(int, int, int, str)}:
        message = "its parts are not shards"
        raise ValueError(message)
    return parts, sum(part.rows for part in parts)


def _arrays(data: bytes, mark: dict, forms: dict[str, hdf5.Form], about: tuple[str, ...]) -> dict[str, np.ndarray]:
    arrays, found = hdf5.read(data, forms, attributes=about)
    if any(found[name] != mark.get(name) for name in about):
        message = "it is of another volume or k"
        raise ValueError(message)
    return arrays


def store(index: Index, volume: Volume, path: Path) -> None:
    """Publish an index and its mark.

    Raises:
        MagnetError: it cannot be written.
    """
    arrays = {"log_volume": index.log_volume, "above_floor": np.packbits(index.above_floor)}
    about = {"format": FORMAT, "fingerprint": index.fingerprint, "top_k": index.top_k}
    _publish(path, arrays, about, {"kind": "index", "volume": str(volume.path)}, index.parts)


def store_prior(found: LogPrior, volume: Volume, path: Path) -> None:
    """Publish log-priors and their mark.

    Raises:
        MagnetError: they cannot be written.
    """
    about = {"format": PRIOR_FORMAT, "fingerprint": found.fingerprint}
    more = {"kind": "log-prior", "volume": str(volume.path)}
    _publish(path, {"log_prior": found.values}, about, more, found.parts)


def _publish(path: Path, arrays: dict[str, np.ndarray], about: dict, more: dict, parts: tuple[Part, ...]) -> None:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", libver="earliest") as file:
        for name, array in arrays.items():
            file[name] = array
        file.attrs.update(about | {"magnet": __version__})
    data = buffer.getvalue()
    atomic.make_folder(path.parent)
    atomic.sweep(path.parent)
    atomic.publish(path, data)
    mark = about | more | {"sha256": documents.sha256_bytes(data), "size": len(data)}
    mark |= {"rows": sum(part.rows for part in parts), "parts": [list(dataclasses.astuple(part)) for part in parts]}
    atomic.publish(path.with_suffix(".json"), documents.encode(mark))
