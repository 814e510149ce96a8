"""Volumes in and out, as the arrays that the authors of MaGNET published: an npz file of svds, latents and labels.

Owns that file: what is taken from it, what is refused, how it is written. Joins it to volume; rows pass by in blocks,
and no size that a file claims is believed before it agrees with what is there. Needs no torch.
"""

import math
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from magnet_cli.errors import VolumeError
from magnet_cli.files import atomic, documents, npz
from magnet_cli.volume import Shard, Volume
from magnet_cli.volume.spec import VolumeSpec

RANK_FLOOR = 1e-5  # the published values come from float32 products
_SHARD_WORK = 1 << 22  # numbers in a shard: 16 MB
_LARGEST_RATIO = 200  # of a compressed array's size to that of its bytes in the file; noise compresses to 0.9
_FREE_SIZE = 1 << 24  # arrays up to this many bytes may be of any ratio
_WIDEST = 1 << 20  # numbers in a row
_ONE_HOT_ROWS = 1 << 12  # rows written at a time: a thousand classes are 16 MB
_SHOWN = 5  # row numbers named in an error
_VALUES, _LABELS = ("f4", "f8"), ("f4", "f8", "b1", "u1", "i1", "i4", "i8")
_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, OSError)
_HINT = "pass an npz file with the arrays svds, latents and, where there are classes, labels (one-hot)"


@dataclass(frozen=True)
class Array:
    """One array of an npz file; its leading axes are taken as rows.

    Attributes:
        name: "svds", "latents" or "labels".
        rows: product of the leading axes.
        width: length of the last axis.
        dtype: of its numbers.
    """

    name: str
    rows: int
    width: int
    dtype: np.dtype


@dataclass(frozen=True)
class Archive:
    """What the headers of an npz file say, found to agree with the file's own sizes and with each other.

    Attributes:
        path: the file.
        sha256: of its bytes.
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
        """Those there are."""
        return [array for array in (self.svds, self.latents, self.labels) if array]


@dataclass
class Tally:
    """What was met in the rows of a file.

    Attributes:
        rows: those taken.
        dropped_rows: rows of zeros: the authors' arrays hold rows that were never filled.
        sorted_rows: rows whose values were not in descending order.
        refused: what is wrong with other rows, in words, with their number.
        first: the first row numbers of each.
    """

    rows: int = 0
    dropped_rows: int = 0
    sorted_rows: int = 0
    refused: Counter = field(default_factory=Counter)
    first: dict[str, list[int]] = field(default_factory=dict)

    def refuse(self, reason: str, numbers: np.ndarray, bad: np.ndarray) -> None:
        """Count the rows `numbers` [m] where `bad` [m]."""
        if found := numbers[bad].tolist():
            self.refused[reason] += len(found)
            self.first.setdefault(reason, []).extend(found[: _SHOWN - len(self.first.get(reason, []))])


def open_archive(path: Path) -> Archive:
    """Read the headers of an npz file, and nothing else of it but its hash.

    Raises:
        VolumeError: it is no npz file, damaged, encrypted, holds no svds and latents or such that do not fit together,
            holds Python objects, or claims more than is there.
        MagnetError: it cannot be read.
    """
    if not path.is_file():
        message = f"there is no file {path}"
        raise VolumeError(message, _HINT)
    sha256 = documents.sha256_file(path)
    with _opened(path) as archive:
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
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """The zip file; what zipfile and numpy say of a damaged one becomes a VolumeError."""
    try:
        with atomic.explained("read", path), zipfile.ZipFile(path) as archive:
            yield archive
    except _DAMAGED as error:
        message = f"{path} is not an npz file, or a damaged one: {' '.join(str(error).split()) or type(error).__name__}"
        raise VolumeError(message, _HINT) from error


def spec(
    archive: Archive,
    *,
    generator: str,
    sha256: str,
    family: str,
    prior: str,
    space: str,
    output: str,
    truncation: float,
    label: tuple[int, ...] = (),
    num_classes: int = 0,
) -> VolumeSpec:
    """The spec of the volume that a file becomes: what its user says of it, and the file's own hash.

    Args:
        archive: the file.
        generator: name of the generator its latents belong to.
        sha256: of its checkpoint.
        family: its architecture.
        prior: of its latents; for "sphere" at most D − 1 singular values are kept.
        space: where the Jacobian's input lived.
        output: what the Jacobian was taken of.
        truncation: ψ it was taken at.
        label: (the class,) of all rows of a file without labels, where its generator takes them.
        num_classes: of these labels.

    Raises:
        SpecError: a value outside its range.
        VolumeError: a class is given, and the file has labels of its own.
    """
    latent_dim = archive.latents.width
    if label and archive.labels:
        message = f"class {label[0]} is asked for, and {archive.path} has labels of its own"
        raise VolumeError(message, "leave `label` out")
    return VolumeSpec(
        generator=generator,
        sha256=sha256,
        family=family,
        prior=prior,
        latent_dim=latent_dim,
        space=space,
        output=output,
        truncation=truncation,
        top_k=min(archive.svds.width, latent_dim - (prior == "sphere")),
        solver="imported",
        precision="unknown",
        rank_floor=RANK_FLOOR,
        seed=0,
        shard_rows=int(np.clip(_SHARD_WORK // (latent_dim + archive.svds.width), 64, 100_000)),
        num_classes=num_classes,
        label=label,
        imported_sha256=archive.sha256,
    )


def inspect(archive: Archive) -> Tally:
    """Look at every number of a file.

    Raises:
        VolumeError: singular values or latents that are not finite, negative singular values, labels that are not
            one-hot (the first rows of each are named); no rows but zeros; a damaged file.
    """
    tally = Tally()
    for _ in _rows(archive, archive.svds.width, tally):
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


def fill(volume: Volume, archive: Archive, num_rows: int) -> Iterator[tuple[int, int]]:
    """Write the rows of a file that are missing in its volume.

    Args:
        volume: of the file's `spec`.
        archive: the file, found good by `inspect`.
        num_rows: the rows that `inspect` took.

    Yields:
        (shard, rows in it), once they are safe on disk.

    Raises:
        MagnetError: the file or the volume cannot be read or written.
    """
    volume.settle()
    missing = dict(volume.missing(num_rows))
    size = volume.spec.shard_rows
    waiting: list[Shard] = []
    rows = _rows(archive, volume.spec.top_k, Tally())
    for shard in range(-(-num_rows // size)):
        wanted = min(size, num_rows - shard * size)
        while sum(len(block.latents) for block in waiting) < wanted:
            waiting.append(next(rows))
        whole = _joined(waiting)
        waiting = [_slice(whole, slice(wanted, None))]
        if shard in missing:
            block = _slice(whole, slice(wanted))
            if volume.spec.label:
                block = replace(block, labels=np.full(wanted, volume.spec.label[0], np.int64))
            volume.write(shard, block)
            yield shard, wanted


def _joined(blocks: list[Shard]) -> Shard:
    labels = None if blocks[0].labels is None else np.concatenate([block.labels for block in blocks])
    latents = np.concatenate([block.latents for block in blocks])
    return Shard(latents, np.concatenate([block.singular_values for block in blocks]), labels)


def _slice(rows: Shard, part: slice) -> Shard:
    return Shard(rows.latents[part], rows.singular_values[part], None if rows.labels is None else rows.labels[part])


def _rows(archive: Archive, top_k: int, tally: Tally) -> Iterator[Shard]:
    """The rows of a file in blocks: those of zeros left out, values descending; what was met is counted in `tally`."""
    size = max(1, _SHARD_WORK // sum(array.width for array in archive.arrays))
    with _opened(archive.path) as opened:
        streams = [_blocks(opened, array, size) for array in archive.arrays]
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
    """The rows of an array, `size` at a time."""
    member = next(m for m in archive.infolist() if m.filename == f"{array.name}.npy")
    with archive.open(member) as file:
        npz.read_header(file)
        yield from npz.read_blocks(file, array.rows, array.width, array.dtype, size)


def export(volume: Volume, path: Path) -> Iterator[int]:
    """Write the rows of a volume as the published arrays: svds [N, K], latents [N, D], labels [N, C] one-hot; float32.

    The file appears whole, and is a function of the rows alone. C is the largest label and one.

    Args:
        volume: whose committed rows are taken, shard by shard, in order.
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
        raise VolumeError(message, f"fill it: magnet compute {volume.spec.generator} --volume {volume.path}")

    def rows() -> Iterator[Shard]:
        for shard in shards:
            yield _slice(volume.read(shard), slice(marks[shard].rows))  # it may have grown since

    classes = _classes(volume, rows())
    widths = {"svds": volume.spec.top_k, "latents": volume.spec.latent_dim} | ({"labels": classes} if classes else {})
    take: dict[str, Callable[[Shard], np.ndarray]] = {
        "svds": lambda block: block.singular_values,
        "latents": lambda block: block.latents,
        "labels": lambda block: np.equal.outer(block.labels, np.arange(classes)),
    }
    atomic.make_folder(path.parent)
    with atomic.appearing(path) as file, npz.new_archive(file) as archive:
        archive.comment = _origin(volume)
        for name, width in widths.items():
            with npz.new_member(archive, name) as member:
                npz.write_header(member, (num_rows, width), "<f4")
                for block in rows():
                    for start in range(0, len(block.latents), _ONE_HOT_ROWS):
                        few = _slice(block, slice(start, start + _ONE_HOT_ROWS))
                        member.write(np.ascontiguousarray(take[name](few), "<f4").tobytes())
                    yield len(block.latents)


def _classes(volume: Volume, blocks: Iterator[Shard]) -> int:
    """C, the number of classes; 0 where rows have no labels."""
    largest = {-1 if block.labels is None else int(block.labels.max()) for block in blocks}
    if len(largest) > 1 and min(largest) < 0:
        message = f"some rows of {volume.path} have labels, and some have none"
        raise VolumeError(message, "compute it again: no run of `magnet compute` makes such a volume")
    return max(largest) + 1


def exported(volume: Volume, path: Path) -> bool:
    """Whether a file is the finished export of just the rows that a volume holds now.

    Raises:
        VolumeError: there is a file, and it is something else.
    """
    if not path.exists():
        return False
    found = b""
    if path.is_file() and zipfile.is_zipfile(path):
        with _opened(path) as archive:
            found = archive.comment
    if found == _origin(volume):
        return True
    message = f"{path} is in the way: it is not the export of the rows that {volume.path} holds now"
    raise VolumeError(message, "pass another file, or `force=True` to replace it")


def _origin(volume: Volume) -> bytes:
    """What an export says of where it comes from, in the zip file's comment."""
    shards = documents.sha256_bytes("".join(mark.sha256 for mark in volume.marks().values()).encode())
    return documents.canonical({"magnet_volume": volume.fingerprint, "rows": volume.num_rows, "shards": shards})
