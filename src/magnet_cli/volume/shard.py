"""The file formats of a shard and of its commit mark."""

import dataclasses
import io
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from magnet_cli import __version__
from magnet_cli.errors import VolumeError
from magnet_cli.files import documents, hdf5
from magnet_cli.volume.spec import FORMAT, VolumeSpec


@dataclass(frozen=True)
class Mark:
    """The commit mark of a shard, without which the shard does not count.

    Attributes:
        sha256: hash of the shard's bytes.
        size: bytes.
        rows: rows in it, 1..R.
        first_row: number of its first row in the volume.
        fingerprint: fingerprint of the volume's spec.
        pilot: sha256 of the pilot basis its values were computed with; empty where the solver needs none.
    """

    sha256: str
    size: int
    rows: int
    first_row: int
    fingerprint: str
    pilot: str = ""


@dataclass(frozen=True)
class Shard:
    """The rows of one shard.

    Attributes:
        latents: [r, D] float32.
        singular_values: [r, K] float32, descending; image intensity per unit of latent.
        labels: [r] int64, or None for unconditional generators.
    """

    latents: np.ndarray
    singular_values: np.ndarray
    labels: np.ndarray | None = None

    def part(self, rows: slice) -> "Shard":
        """Return some of the rows."""
        labels = None if self.labels is None else self.labels[rows]
        return Shard(self.latents[rows], self.singular_values[rows], labels)

    @classmethod
    def join(cls, shards: "list[Shard]") -> "Shard":
        """Return the rows of several shards, one after the other."""
        labels = [shard.labels for shard in shards if shard.labels is not None]
        latents = np.concatenate([shard.latents for shard in shards])
        values = np.concatenate([shard.singular_values for shard in shards])
        return cls(latents, values, np.concatenate(labels) if labels else None)

    def extended(self, longer: "Shard") -> "Shard":
        """Return these rows, and after them the further rows of a longer shard."""
        return Shard.join([self, longer.part(slice(len(self.latents), None))])


def mark_of(fields: dict, path: Path) -> Mark:
    """Return the mark in a document.

    Args:
        fields: fields of the document.
        path: its file, for messages.

    Raises:
        ValueError: they are not the fields of a mark; the reason is the text.
        VolumeError: the mark is of another format.
    """
    number = fields.pop("format", FORMAT)  # the first marks had none
    _check_format(number, path)
    types = {f.name: f.type for f in dataclasses.fields(Mark)}
    wrong = [name for name, value in fields.items() if type(value) is not types.get(name)]
    if wrong or types.keys() - fields.keys() - {"pilot"}:
        message = f"it is not the mark of a shard: {', '.join(wrong) or 'fields'} wrong or missing"
        raise ValueError(message)
    return Mark(**fields)


def mark_document(mark: Mark) -> bytes:
    """Return the bytes of a mark's file."""
    return documents.encode({"format": FORMAT, **dataclasses.asdict(mark)})


def parse(data: bytes | memoryview, spec: VolumeSpec, shard: int, path: Path, rows: int | None = None) -> Shard:
    """Return the rows in the bytes of a shard.

    Args:
        data: the whole file; the arrays are views of it.
        spec: spec of its volume.
        shard: its number.
        path: its file, for messages.
        rows: number of rows that it must have; None for any.

    Raises:
        ValueError: it is not that shard; the reason is the text.
        VolumeError: it is of another format.
    """
    forms = {
        "latents": hdf5.form("<f4", rows, spec.latent_dim),
        "singular_values": hdf5.form("<f4", rows, spec.top_k),
        "labels": hdf5.form("<i8", rows),
    }
    arrays, attributes = hdf5.read(data, forms, optional=("labels",), attributes=("format", "fingerprint", "shard"))
    _check_format(attributes["format"], path)
    if (attributes["fingerprint"], attributes["shard"]) != (spec.fingerprint, shard):
        message = "it is a shard of another volume or another place"
        raise ValueError(message)
    if len({len(array) for array in arrays.values()}) != 1:
        message = "it has arrays of different lengths"
        raise ValueError(message)
    return Shard(**arrays)


def serialise(spec: VolumeSpec, shard: int, rows: Shard) -> bytes:
    """Return the bytes of a shard's HDF5 file, which depend on the rows alone (no times)."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", libver="earliest") as file:
        file.create_dataset("latents", data=rows.latents, dtype=np.float32)
        file.create_dataset("singular_values", data=rows.singular_values, dtype=np.float32)
        if rows.labels is not None:
            file.create_dataset("labels", data=rows.labels, dtype=np.int64)
        attributes = {"format": FORMAT, "fingerprint": spec.fingerprint, "shard": shard}
        attributes |= {"first_row": shard * spec.shard_rows, "magnet": __version__}
        file.attrs.update(attributes)
    return buffer.getvalue()


def _check_format(number: object, path: Path) -> None:
    if number != FORMAT:
        message = f"{path} is of format {number}; this magnet ({__version__}) reads {FORMAT}"
        raise VolumeError(message, "use the magnet that made it, or compute it again")
