"""A volume: latents and singular values of one generator under one spec, in shards that appear whole.

Needs neither torch nor a generator.
"""

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from magnet_cli.errors import MagnetError, VolumeError
from magnet_cli.files import atomic, hdf5
from magnet_cli.maths.mixture import Mixture
from magnet_cli.volume import document, side_files
from magnet_cli.volume.document import Document
from magnet_cli.volume.shard import Shard
from magnet_cli.volume.shard_folder import ShardFolder
from magnet_cli.volume.spec import VolumeSpec, differences


class Volume(ShardFolder):
    """Rows of latents and singular values of one generator, on disk.

    >>> from magnet_cli.catalog import cache
    >>> volume = Volume.open(cache.BUILT_IN / "mnist-volume")
    >>> len(volume), volume.latents([0, 5]).shape, volume.singular_values([0, 5]).shape
    (20000, (2, 16), (2, 16))

    Attributes:
        path: the folder.
        spec: what its numbers depend on, a `VolumeSpec`.
        fingerprint: sha256 of the spec.
        pilot_sha256: sha256 of pilot.h5; empty where the solver needs none.
        mixture_sha256: sha256 of mixture.h5; empty where the prior is no mixture.
        measured: what solver and precision were chosen by.
        probe: outputs of a user's own generator, and of the image model that follows, at fixed inputs; empty where
            there are none.
    """

    def __init__(
        self,
        path: Path,
        spec: VolumeSpec,
        *,
        pilot_sha256: str = "",
        mixture_sha256: str = "",
        measured: dict[str, Any] | None = None,
        probe: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(path, spec, pilot_sha256)
        self.mixture_sha256 = mixture_sha256
        self.measured = measured or {}
        self.probe = probe or {}

    def __len__(self) -> int:
        """Return N, the number of rows that are safe on disk."""
        return self.num_rows

    def __bool__(self) -> bool:
        """Return True: a volume without rows is a volume."""
        return True

    def __repr__(self) -> str:
        spec = self.spec
        rows = f"{self.num_rows:,} rows" if self.exists else "not on disk"
        latents = f"latent_dim {spec.latent_dim}, top_k {spec.top_k}"
        return f"<Volume of {spec.generator}: {rows}, {latents}, solver {spec.solver}, {self.path}>"

    @classmethod
    def open(cls, path: str | Path) -> "Volume":
        """Return the volume in a folder.

        Raises:
            VolumeError: the folder holds no volume, or one of another format.
            MagnetError: volume.json is damaged.
        """
        path = Path(path).expanduser()
        return cls(path, **vars(document.read(path)))

    @classmethod
    def create(
        cls,
        path: Path,
        spec: VolumeSpec,
        *,
        asked: VolumeSpec | None = None,
        measured: dict[str, Any] | None = None,
        probe: dict[str, Any] | None = None,
        pilot: np.ndarray | None = None,
        mixture: Mixture | None = None,
    ) -> "Volume":
        """Make a volume of that spec; where another process was first, return that process's volume.

        Args:
            path: its folder, new or empty.
            spec: resolved: solver, sizes and precision are names and numbers.
            asked: the spec before it was resolved, which the volume of a process that was first must fit; default
                `spec`.
            measured: what solver and precision were chosen by, kept in volume.json.
            probe: outputs of a user's own functions at fixed inputs, kept in volume.json.
            pilot: [D, D] float64, the pilot basis, kept in pilot.h5.
            mixture: the prior of the latents, where it is a mixture, kept in mixture.h5.

        Raises:
            VolumeError: the folder holds a volume of another spec (all differing fields are named), or other files.
            MagnetError: it cannot be written.
        """
        volume = cls.planned(path, asked or spec)
        if volume.exists:
            return volume
        atomic.make_folder(path / "shards")
        pilot_sha256 = side_files.keep(path / side_files.PILOT, None if pilot is None else {"basis": pilot})
        arrays = None if mixture is None else dataclasses.asdict(mixture)
        mixture_sha256 = side_files.keep(path / side_files.MIXTURE, arrays)
        document.publish(path, Document(spec, pilot_sha256, mixture_sha256, measured or {}, probe or {}))
        return cls.open(path)

    @classmethod
    def planned(cls, path: Path, asked: VolumeSpec) -> "Volume":
        """Return the volume in a folder if it fits a spec, or a volume without rows; nothing is written.

        Args:
            path: the folder.
            asked: the spec; where its solver or precision is "auto", any choice fits.

        Raises:
            VolumeError: the folder holds a volume of another spec (all differing fields are named), or other files.
            MagnetError: volume.json is damaged.
        """
        if (path / document.NAME).exists():
            volume = cls.open(path)
            if volume.spec.imported_sha256 and not asked.imported_sha256:
                message = f"the rows of {path} were imported from a file: rows of a solver never go beside them"
                raise VolumeError(message, "pass another folder as `volume`")
            if listed := differences(asked, volume.spec):
                message = f"{path} was made with other settings: {listed}"
                raise VolumeError(message, "pass another folder as `volume`, or the settings it was made with")
            return volume
        with atomic.explained("read", path):
            begun = {"shards", side_files.PILOT, side_files.MIXTURE}  # left by a process stopped before volume.json
            if path.exists() and (not path.is_dir() or {p.name for p in path.iterdir() if p.name[0] != "."} - begun):
                contents = "other files" if path.is_dir() else "a file"
                message = f"{path} is asked for as a volume, but holds {contents}"
                raise VolumeError(message, "pass a new folder as `volume`")
        return cls(path, asked)

    @property
    def exists(self) -> bool:
        """Whether the volume is on disk; a planned one is not."""
        return (self.path / document.NAME).is_file()

    @property
    def num_rows(self) -> int:
        """N, the number of rows that are safe on disk."""
        return sum(mark.rows for mark in self.marks().values())

    @property
    def hashed_files(self) -> list[Path]:
        """The files beside volume.json whose hashes it holds."""
        hashes = {side_files.PILOT: self.pilot_sha256, side_files.MIXTURE: self.mixture_sha256}
        return [self.path / name for name, sha256 in hashes.items() if sha256]

    def room(self, num_rows: int) -> tuple[int, int]:
        """Return the bytes that `num_rows` rows take, about, and the bytes that are free.

        Raises:
            MagnetError: the disk cannot be asked.
        """
        row = 4 * (self.spec.latent_dim + self.spec.top_k)
        with atomic.explained("read", self.path):
            return num_rows * row, shutil.disk_usage(self.path).free

    def note(self, text: str) -> None:
        """Add a line on how the volume was made to the notes in volume.json, once.

        Raises:
            MagnetError: it cannot be read or written.
        """
        document.note(self.path, text)

    def pilot(self) -> np.ndarray | None:
        """Return the pilot basis [D, D] float64, strongest column first; None where the solver needs none.

        Raises:
            VolumeError: its bytes are not those the volume was made with.
            MagnetError: it cannot be read.
        """
        if not self.pilot_sha256:
            return None
        forms = {"basis": hdf5.form("<f8", None, self.spec.latent_dim)}
        lost = "no rows can be added, those here stay good"
        return side_files.read(self.path / side_files.PILOT, self.pilot_sha256, forms, lost)["basis"]

    def mixture(self) -> Mixture | None:
        """Return the mixture that the latents were drawn from, its labels those of the spec; None for other priors.

        Raises:
            VolumeError: its bytes are not those the volume was made with, or it has none (imported rows).
            MagnetError: it cannot be read.
        """
        if self.spec.prior != "mixture":
            return None
        if not self.mixture_sha256:
            message = f"{self.path} has rows of a mixture that is not known, since they were imported: "
            message += f"there is no {side_files.MIXTURE}"
            raise VolumeError(message, "compute a volume of that generator: magnet compute GENERATOR")
        k, d = self.spec.num_classes, self.spec.latent_dim
        forms = {"weights": hdf5.form("<f8", k), "means": hdf5.form("<f8", k, d)}
        forms["factors"] = hdf5.form("<f8", k, d, d)
        lost = "the prior's density is not known, the rows here stay good"
        arrays = side_files.read(self.path / side_files.MIXTURE, self.mixture_sha256, forms, lost)
        return Mixture(**arrays).of(self.spec.label)

    def rows(self) -> Iterator[tuple[int, Shard]]:
        """Yield the number of each shard's first row, and its rows.

        Raises:
            VolumeError, MagnetError: as `read`.
        """
        for shard in self.shards():
            yield shard * self.spec.shard_rows, self.read(shard)

    def latents(self, rows: np.ndarray | list[int] | None = None) -> np.ndarray:
        """Return latents [n, D] float32.

        Args:
            rows: [n] numbers of rows, in any order, repeats allowed; by default all, in order.

        Raises:
            VolumeError, MagnetError: as `read`.
        """
        rows = self._row_numbers(rows)
        return self._take(rows, np.empty((len(rows), self.spec.latent_dim), np.float32), "latents")

    def singular_values(self, rows: np.ndarray | list[int] | None = None) -> np.ndarray:
        """Return singular values [n, K] float32, descending, in image intensity per unit of latent.

        Args:
            rows: as for `latents`.

        Raises:
            VolumeError, MagnetError: as `read`.
        """
        rows = self._row_numbers(rows)
        return self._take(rows, np.empty((len(rows), self.spec.top_k), np.float32), "singular_values")

    def labels(self, rows: np.ndarray | list[int] | None = None) -> np.ndarray | None:
        """Return labels [n] int64; None where the generator takes none.

        Args:
            rows: as for `latents`.

        Raises:
            VolumeError, MagnetError: as `read`.
        """
        if not self.spec.num_classes:
            return None
        rows = self._row_numbers(rows)
        return self._take(rows, np.empty(len(rows), np.int64), "labels")

    def _row_numbers(self, rows: np.ndarray | list[int] | None) -> np.ndarray:
        if rows is not None:
            return np.asarray(rows, np.int64)
        size = self.spec.shard_rows
        numbers = [shard * size + np.arange(mark.rows) for shard, mark in self.marks().items()]
        return np.concatenate(numbers) if numbers else np.empty(0, np.int64)

    def _take(self, rows: np.ndarray, taken: np.ndarray, name: str) -> np.ndarray:
        """Fill `taken` with an array of the shards at some rows."""
        shards, places = np.divmod(rows, self.spec.shard_rows)
        for shard in np.unique(shards):
            here = shards == shard
            taken[here] = getattr(self.read(int(shard)), name)[places[here]]
        return taken

    def check(self) -> list[str]:
        """Read every byte of the volume; return a sentence on each problem."""
        problems = super().check()
        for read in (self.pilot, self.mixture) if self.mixture_sha256 else (self.pilot,):
            try:
                read()
            except MagnetError as error:
                problems.append(error.message)
        return problems
