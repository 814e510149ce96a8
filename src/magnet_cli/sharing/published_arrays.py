"""Read the arrays that the authors of MaGNET published: an npz file of svds, latents and labels.

Rows are read in blocks, and no size that a file claims is believed before it agrees with the file's own size.
"""

import math
import zipfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from magnet_cli.errors import VolumeError
from magnet_cli.files import atomic, documents, npz
from magnet_cli.volume import Shard

_BLOCK_WORK = 1 << 22  # numbers in a block: 16 MB
_LARGEST_RATIO = 200  # of a compressed array's size to that of its bytes in the file; noise compresses to 0.9
_FREE_SIZE = 1 << 24  # arrays up to this many bytes may be of any ratio
_WIDEST = 1 << 20  # numbers in a row
_SHOWN = 5  # row numbers named in an error
_VALUES, _LABELS = ("f4", "f8"), ("f4", "f8", "b1", "u1", "i1", "i4", "i8")
_HINT = "pass an npz file with the arrays svds, latents and, where there are classes, labels (one-hot)"


@dataclass(frozen=True)
class Array:
    """One array of an npz file; its leading axes together are the rows.

    Attributes:
        name: "svds", "latents" or "labels".
        rows: product of the leading axes.
        width: length of the last axis.
        dtype: type of the numbers.
    """

    name: str
    rows: int
    width: int
    dtype: np.dtype


@dataclass(frozen=True)
class Archive:
    """The headers of an npz file, which agree with the file's own sizes and with each other.

    Attributes:
        path: the file.
        sha256: hash of its bytes.
        svds: K values a row.
        latents: D numbers a row.
        labels: one-hot, C numbers a row; None where there are none.
    """

    path: Path
    sha256: str
    svds: Array
    latents: Array
    labels: Array | None

    @property
    def arrays(self) -> list[Array]:
        """The two or three arrays."""
        return [array for array in (self.svds, self.latents, self.labels) if array]


@dataclass
class Tally:
    """Counts of the rows of a file.

    Attributes:
        rows: rows that become rows of the volume.
        dropped_rows: rows of zeros, which were never filled, and are left out.
        sorted_rows: rows whose values were not in descending order.
        refused: number of wrong rows by reason.
        first: the first numbers of wrong rows by reason.
    """

    rows: int = 0
    dropped_rows: int = 0
    sorted_rows: int = 0
    refused: Counter = field(default_factory=Counter)
    first: dict[str, list[int]] = field(default_factory=dict)

    def refuse(self, reason: str, numbers: np.ndarray, bad: np.ndarray) -> None:
        """Count the rows `numbers` [m] where `bad` [m] is True."""
        if wrong := numbers[bad].tolist():
            self.refused[reason] += len(wrong)
            self.first.setdefault(reason, []).extend(wrong[: _SHOWN - len(self.first.get(reason, []))])


def open_archive(path: Path) -> Archive:
    """Read the headers of an npz file, and compute its sha256.

    Raises:
        VolumeError: it is no npz file, damaged, encrypted, lacks svds or latents, its arrays do not fit together, hold
            Python objects, or claim to be larger than the file.
        MagnetError: it cannot be read.
    """
    if not path.is_file():
        message = f"there is no file {path}"
        raise VolumeError(message, _HINT)
    sha256 = documents.sha256_file(path)
    with opened(path) as archive:
        found = {name: _header(archive, name, path) for name in ("svds", "latents", "labels")}
    svds, latents, labels = found.values()
    if not (svds and latents):
        message = f"{path} holds no array {'svds' if not svds else 'latents'}"
        raise VolumeError(message, _HINT)
    if labels and not labels.rows * labels.width:
        labels = None  # published as an empty array where there are no classes
    there = [array for array in (svds, latents, labels) if array]
    if len({array.rows for array in there}) > 1:
        counts = ", ".join(f"{array.name} {array.rows:,}" for array in there)
        message = f"the arrays in {path} have different numbers of rows: {counts}"
        raise VolumeError(message, _HINT)
    if not svds.rows or not 1 <= svds.width <= latents.width:
        message = f"{path} holds {svds.rows:,} rows of {svds.width} singular values and {latents.width} latents"
        raise VolumeError(message, "pass a file with rows, and no more singular values than latents")
    return Archive(path, sha256, svds, latents, labels)


def _header(archive: zipfile.ZipFile, name: str, path: Path) -> Array | None:
    members = [member for member in archive.infolist() if member.filename == f"{name}.npy"]
    if not members:
        return None
    member = members[0]
    plain = member.compress_type in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
    inflated = member.file_size > max(_FREE_SIZE, _LARGEST_RATIO * member.compress_size)
    wrong = {
        "is there more than once": len(members) > 1,
        "claims more bytes than the file has": member.compress_size > path.stat().st_size,
        "is encrypted": bool(member.flag_bits & 1),
        "is compressed in a way that npz files are not": not plain,
        f"claims to inflate from {member.compress_size:,} to {member.file_size:,} bytes": inflated,
    }
    _refuse(f"{name} in {path}", wrong)
    with archive.open(member) as file:
        header = npz.read_header(file)
        shape, dtype = header.shape, header.dtype
        size = file.tell() + math.prod(shape) * dtype.itemsize
    allowed = _LABELS if name == "labels" else _VALUES
    empty = math.prod(shape) == 0
    wrong = {
        "holds Python objects, which are never loaded": dtype.hasobject,
        f"is of type {dtype}, not {' or '.join(allowed)}": dtype.str[1:] not in allowed,
        f"is of shape {shape}: rows of numbers are wanted": not empty and len(shape) < 2,
        f"has rows of {shape[-1] if shape else 0:,} numbers": bool(shape) and shape[-1] > _WIDEST,
        "is in Fortran order; save numpy.ascontiguousarray of it": not empty and header.fortran,
        f"claims {size:,} bytes and holds {member.file_size:,}": size != member.file_size or min(shape, default=0) < 0,
    }
    _refuse(f"{name} in {path}", wrong)
    return Array(name, math.prod(shape[:-1]), shape[-1] if shape else 0, dtype)


def _refuse(what: str, wrong: dict[str, bool]) -> None:
    if reason := next((reason for reason, holds in wrong.items() if holds), None):
        message = f"{what} {reason}"
        raise VolumeError(message, _HINT)


@contextmanager
def opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open a zip file; errors of zipfile and numpy become VolumeErrors."""
    try:
        with atomic.explained("read", path), zipfile.ZipFile(path) as archive:
            yield archive
    except (OSError, *npz.DAMAGED) as error:
        message = f"{path} is not an npz file, or a damaged one: {' '.join(str(error).split()) or type(error).__name__}"
        raise VolumeError(message, _HINT) from error


def inspect(archive: Archive) -> Tally:
    """Check every number of a file; return the counts of its rows.

    Raises:
        VolumeError: singular values or latents that are not finite, negative singular values, labels that are not
            one-hot (the first rows of each are named); no rows but zeros; a damaged file.
    """
    tally = Tally()
    for _ in read_rows(archive, archive.svds.width, tally):
        pass
    if tally.refused:
        listed = "; ".join(f"{reason} in {_numbers(tally, reason)}" for reason in tally.refused)
        message = f"{archive.path} cannot be imported: {listed}"
        raise VolumeError(message, "remove those rows from all its arrays (rows count from 0, leading axes flattened)")
    if not tally.rows:
        message = f"all {archive.svds.rows:,} rows of svds in {archive.path} are zeros: none was ever filled"
        raise VolumeError(message, "pass a file with values in it")
    return tally


def _numbers(tally: Tally, reason: str) -> str:
    count, first = tally.refused[reason], tally.first[reason]
    more = f" and {count - len(first):,} more" if count > len(first) else ""
    return f"row{'s' * (count > 1)} {', '.join(map(str, first))}{more}"


def read_rows(archive: Archive, top_k: int, tally: Tally) -> Iterator[Shard]:
    """Yield the rows of a file in blocks, without rows of zeros, values descending; `tally` counts them."""
    size = max(1, _BLOCK_WORK // sum(array.width for array in archive.arrays))
    with opened(archive.path) as file:
        streams = [_blocks(file, array, size) for array in archive.arrays]
        start = 0
        for svds, latents, *labels in zip(*streams, strict=True):
            kept = svds.any(axis=1)  # NaN is no zero
            numbers = start + np.flatnonzero(kept)
            start += len(svds)
            with np.errstate(over="ignore"):
                values, z = svds[kept].astype("<f4"), latents[kept].astype("<f4")
            tally.refuse("svds that are not finite numbers of float32", numbers, ~np.isfinite(values).all(axis=1))
            tally.refuse("negative svds", numbers, (values < 0).any(axis=1))
            tally.refuse("latents that are not finite numbers of float32", numbers, ~np.isfinite(z).all(axis=1))
            classes = None
            if labels:
                hot = labels[0][kept]
                classes = hot.argmax(axis=1).astype(np.int64)
                one_hot = (hot.max(axis=1) == 1) & (np.count_nonzero(hot, axis=1) == 1)
                tally.refuse("labels that are not one-hot", numbers, ~one_hot)
            unsorted = (values[:, 1:] > values[:, :-1]).any(axis=1)
            values[unsorted] = -np.sort(-values[unsorted], axis=1)
            tally.rows += len(values)
            tally.dropped_rows += int(np.count_nonzero(~kept))
            tally.sorted_rows += int(np.count_nonzero(unsorted))
            yield Shard(z, np.ascontiguousarray(values[:, :top_k]), classes)


def _blocks(archive: zipfile.ZipFile, array: Array, size: int) -> Iterator[np.ndarray]:
    member = next(m for m in archive.infolist() if m.filename == f"{array.name}.npy")
    with archive.open(member) as file:
        npz.read_header(file)
        yield from npz.read_blocks(file, array.rows, array.width, array.dtype, size)
