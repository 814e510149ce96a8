"""Files of indices and log-priors: an HDF5 file and its mark. Files are a cache: damaged ones are rebuilt."""

import dataclasses
import io
from pathlib import Path

import h5py
import numpy as np

from magnet_cli import __version__
from magnet_cli.errors import MagnetError
from magnet_cli.files import atomic, documents, hdf5, opening
from magnet_cli.index.index import Index, Part
from magnet_cli.index.prior_correction import LogPrior
from magnet_cli.volume import Volume

FORMAT = 2  # format 1 had eight more bytes for a row, and other parts
PRIOR_FORMAT = 1


def path_of(folder: Path, volume: Volume, top_k: int) -> Path:
    """Return the path of a volume's index for one k, in a folder for indices."""
    return folder / f"{volume.spec.generator}-{volume.fingerprint[:12]}-k{top_k}.h5"


def prior_path(folder: Path, volume: Volume) -> Path:
    """Return the path of a volume's log-priors, in a folder for indices."""
    return folder / f"{volume.spec.generator}-{volume.fingerprint[:12]}-prior.h5"


def stored(path: Path, volume: Volume, top_k: int) -> Index | None:
    """Return the index at `path`, if it is whole and of this volume and k; else None.

    The index may be older than the volume: see `current`, and `build`, which extends it.
    """
    file = _whole(path, {"format": FORMAT, "fingerprint": volume.fingerprint, "top_k": top_k})
    try:
        return read(*file) if file else None
    except ValueError:
        return None


def stored_prior(path: Path, volume: Volume) -> LogPrior | None:
    """Return the log-priors at `path`, if they are whole and of this volume; else None.

    They are up to date if their parts are those of the index; else `log_prior` extends them.
    """
    file = _whole(path, {"format": PRIOR_FORMAT, "fingerprint": volume.fingerprint, "kind": "log-prior"})
    try:
        return read_prior(*file) if file else None
    except ValueError:
        return None


def _whole(path: Path, about: dict) -> tuple[bytes, dict] | None:
    """The bytes of a file and its mark, if they match each other and the mark has these fields; else None."""
    try:
        mark, data = documents.read(path.with_suffix(".json")), opening.read(path, path.parent)
    except MagnetError:
        return None
    whole = mark.get("sha256") == documents.sha256_bytes(data) and about.items() <= mark.items()
    return (data, mark) if whole else None


def current(index: Index, volume: Volume) -> bool:
    """Return whether an index covers exactly the rows that the volume holds now.

    Raises:
        MagnetError: a mark in the volume is damaged.
    """
    return {part.shard: part.sha256 for part in index.parts} == {s: m.sha256 for s, m in volume.marks().items()}


def read(data: bytes, mark: dict) -> Index:
    """Return the index in the verified bytes of its file.

    Raises:
        ValueError: the bytes are no index, or not the index of the mark.
    """
    parts, num_rows = _parts(mark)
    forms = {"log_volume": hdf5.form("<f8", num_rows), "above_floor": hdf5.form("|u1", -(-num_rows // 8))}
    arrays = _arrays(data, mark, forms, ("fingerprint", "top_k"))
    real = np.unpackbits(arrays["above_floor"], count=num_rows).view(bool)
    return Index(mark["fingerprint"], mark["top_k"], parts, arrays["log_volume"], real)


def read_prior(data: bytes, mark: dict) -> LogPrior:
    """Return the log-priors in the verified bytes of their file.

    Raises:
        ValueError: the bytes are no log-priors, or not those of the mark.
    """
    parts, num_rows = _parts(mark)
    arrays = _arrays(data, mark, {"log_prior": hdf5.form("<f4", num_rows)}, ("fingerprint",))
    return LogPrior(mark["fingerprint"], parts, arrays["log_prior"])


def _parts(mark: dict) -> tuple[tuple[Part, ...], int]:
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
    arrays, attributes = hdf5.read(data, forms, attributes=about)
    if any(attributes[name] != mark.get(name) for name in about):
        message = "it is of another volume or k"
        raise ValueError(message)
    return arrays


def store(index: Index, volume: Volume, path: Path) -> None:
    """Publish an index and its mark.

    Raises:
        MagnetError: the files cannot be written.
    """
    arrays = {"log_volume": index.log_volume, "above_floor": np.packbits(index.above_floor)}
    about = {"format": FORMAT, "fingerprint": index.fingerprint, "top_k": index.top_k}
    _publish(path, arrays, about, {"kind": "index", "volume": str(volume.path)}, index.parts)


def store_prior(log_priors: LogPrior, volume: Volume, path: Path) -> None:
    """Publish log-priors and their mark.

    Raises:
        MagnetError: the files cannot be written.
    """
    about = {"format": PRIOR_FORMAT, "fingerprint": log_priors.fingerprint}
    more = {"kind": "log-prior", "volume": str(volume.path)}
    _publish(path, {"log_prior": log_priors.values}, about, more, log_priors.parts)


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
