"""A volume: latents and singular values of one generator under one spec, in shards that appear whole.

Owns the folder: volume.json, the shards, their commit marks. Knows nothing of how the values are computed or what is
drawn from them; needs neither torch nor a generator.
"""

import dataclasses
import functools
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from magnet_cli.errors import DamageError, MagnetError, VolumeError
from magnet_cli.files import atomic, documents, hdf5
from magnet_cli.files.locks import Locks
from magnet_cli.maths.mixture import Mixture
from magnet_cli.volume import document, side_files
from magnet_cli.volume.document import Document
from magnet_cli.volume.shard import Mark, Shard, mark_document, mark_of, parse, serialise
from magnet_cli.volume.spec import VolumeSpec, differences

_SHARD = "shard-{:06d}"
_LOCKS = ".locks"
_REPLACING = 0  # lock of whoever settles or replaces; shard s is claimed by lock s + 1
_MARK = re.compile(r"shard-(\d{6}|[1-9]\d{6,8})\.json")


class Volume:
    """A volume's folder. Made by `open` or `create`; its shards may be added by others at any time.

    Attributes:
        path: the folder.
        spec: what its numbers depend on.
        fingerprint: of the spec.
        pilot_sha256: of pilot.h5; empty where the solver needs none.
        mixture_sha256: of mixture.h5; empty where the prior is none.
        measured: what solver and precision were chosen by.
        probe: what the functions of the user's own gave at fixed inputs: of the generator, and of the image model that
            follows; empty where there are none.
    """

    def __init__(
        self,
        path: Path,
        spec: VolumeSpec,
        *,
        pilot_sha256: str = "",
        mixture_sha256: str = "",
        measured: dict | None = None,
        probe: dict | None = None,
    ) -> None:
        self.path = path
        self.spec = spec
        self.fingerprint = spec.fingerprint
        self.pilot_sha256 = pilot_sha256
        self.mixture_sha256 = mixture_sha256
        self.measured = measured or {}
        self.probe = probe or {}

    @functools.cached_property
    def _locks(self) -> Locks:
        return Locks(self.path / _LOCKS)

    @classmethod
    def open(cls, path: Path) -> "Volume":
        """The volume in a folder.

        Raises:
            VolumeError: it is none, or one of another format.
            MagnetError: volume.json is damaged.
        """
        return cls(path, **vars(document.read(path)))

    @classmethod
    def create(
        cls,
        path: Path,
        spec: VolumeSpec,
        *,
        asked: VolumeSpec | None = None,
        measured: dict | None = None,
        probe: dict | None = None,
        pilot: np.ndarray | None = None,
        mixture: Mixture | None = None,
    ) -> "Volume":
        """Make a volume of that spec; where another process was first, the volume is that process's.

        Args:
            path: its folder, new or empty.
            spec: resolved: solver, sizes and precision are names and numbers.
            asked: what the user asked for, which the volume of a process that was first has to be; default `spec`.
            measured: what was measured to choose them, kept in volume.json.
            probe: what generator and image model of the user's own give at fixed inputs, kept in volume.json.
            pilot: [D, D] float64, the pilot basis, kept in pilot.h5.
            mixture: the prior of the latents, where it is one, kept in mixture.h5: its density is looked up there.

        Raises:
            VolumeError: the folder holds a volume of another spec (all differing fields are named), or other files.
            MagnetError: it cannot be written.
        """
        volume = cls.planned(path, asked or spec)
        if volume.exists:
            return volume
        atomic.make_folder(path / "shards")
        pilot_sha256 = side_files.keep(path / side_files.PILOT, None if pilot is None else {"basis": pilot})
        mixture_sha256 = side_files.keep(
            path / side_files.MIXTURE, None if mixture is None else dataclasses.asdict(mixture)
        )
        document.publish(path, Document(spec, pilot_sha256, mixture_sha256, measured or {}, probe or {}))
        return cls.open(path)

    @classmethod
    def planned(cls, path: Path, asked: VolumeSpec) -> "Volume":
        """The volume in a folder if it is what is asked for, or one of no rows; nothing is written.

        Args:
            path: the folder.
            asked: the spec; where its solver or precision is "auto", whatever was chosen will do.

        Raises:
            VolumeError: the folder holds a volume of another spec (all differing fields are named), or other files.
            MagnetError: volume.json is damaged.
        """
        if (path / document.NAME).exists():
            volume = cls.open(path)
            if volume.spec.imported_sha256 and not asked.imported_sha256:
                message = f"the rows of {path} were imported from a file: rows of a solver never go beside them"
                raise VolumeError(message, "pass another folder with --volume")
            if listed := differences(asked, volume.spec):
                message = f"{path} was made with other settings: {listed}"
                raise VolumeError(message, "pass another folder with --volume, or the settings it was made with")
            return volume
        with atomic.explained("read", path):
            ours = {
                "shards",
                side_files.PILOT,
                side_files.MIXTURE,
            }  # what a process that was stopped before volume.json leaves
            if path.exists() and (not path.is_dir() or {p.name for p in path.iterdir() if p.name[0] != "."} - ours):
                found = "other files" if path.is_dir() else "a file"
                message = f"{path} is asked for as a volume, but holds {found}"
                raise VolumeError(message, "pass a new folder with --volume")
        return cls(path, asked)

    def note(self, text: str) -> None:
        """Add a line to the notes in volume.json, once: what happened to the work that its reader should know.

        Raises:
            MagnetError: it cannot be read or written.
        """
        document.note(self.path, text)

    def pilot(self) -> np.ndarray | None:
        """The pilot basis [D, D] float64, columns strongest first; None where the solver needs none.

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
        """The mixture that the rows are drawn from, that of the spec's labels alone; None where the prior is none.

        Raises:
            VolumeError: its bytes are not those the volume was made with, or it has none (imported rows).
            MagnetError: it cannot be read.
        """
        if self.spec.prior != "mixture":
            return None
        if not self.mixture_sha256:
            message = (
                f"{self.path} has rows of a mixture, and no {side_files.MIXTURE} that says which: they were imported"
            )
            raise VolumeError(message, "compute a volume of that generator: magnet compute GENERATOR")
        k, d = self.spec.num_classes, self.spec.latent_dim
        forms = {"weights": hdf5.form("<f8", k), "means": hdf5.form("<f8", k, d)}
        forms["factors"] = hdf5.form("<f8", k, d, d)
        lost = "the prior's density is not known, the rows here stay good"
        arrays = side_files.read(self.path / side_files.MIXTURE, self.mixture_sha256, forms, lost)
        return Mixture(**arrays).of(self.spec.label)

    @property
    def beside(self) -> list[Path]:
        """The files beside volume.json that its hashes cover."""
        there = {side_files.PILOT: self.pilot_sha256, side_files.MIXTURE: self.mixture_sha256}
        return [self.path / name for name, sha256 in there.items() if sha256]

    @property
    def exists(self) -> bool:
        """Whether it is on disk: a planned volume is not."""
        return (self.path / document.NAME).is_file()

    def shard_path(self, shard: int) -> Path:
        """The HDF5 file of a shard, there or not."""
        return self.path / "shards" / f"{_SHARD.format(shard)}.h5"

    def mark_path(self, shard: int) -> Path:
        """The commit mark of a shard, there or not."""
        return self.shard_path(shard).with_suffix(".json")

    def shards(self) -> list[int]:
        """The numbers of the committed shards, ascending.

        Raises:
            MagnetError: the folder cannot be read.
        """
        folder = self.path / "shards"
        with atomic.explained("read", folder):
            names = [p.name for p in folder.iterdir()] if folder.is_dir() else []
        return sorted(int(m[1]) for name in names if (m := _MARK.fullmatch(name)))

    def mark(self, shard: int) -> Mark:
        """The commit mark of a committed shard.

        Raises:
            DamageError: it was changed, or belongs to another volume or another place in this one.
            MagnetError: it cannot be read.
        """
        return self._mark(self.mark_path(shard), shard)

    def _mark(self, path: Path, shard: int) -> Mark:
        with atomic.explained("read", path):
            data = path.read_bytes()
        try:
            fields = documents.parse(data, path)
        except MagnetError as error:
            raise DamageError(error.message, self._remedy) from error
        try:
            mark = mark_of(fields, path)
        except ValueError as error:
            message = f"{path} is damaged: {error}"
            raise DamageError(message, self._remedy) from error
        first_row, rows = shard * self.spec.shard_rows, self.spec.shard_rows
        ours = (self.fingerprint, self.pilot_sha256)
        if (mark.fingerprint, mark.pilot) != ours or mark.first_row != first_row or not 1 <= mark.rows <= rows:
            message = f"{path} is the mark of a shard of another volume, or of another place in this one"
            raise DamageError(message, self._remedy)
        return mark

    @property
    def _remedy(self) -> str:
        return f"add --repair to the `magnet compute` that made {self.path}: those rows are made again"

    def marks(self) -> dict[int, Mark]:
        """The marks of all committed shards by number.

        Raises:
            DamageError, MagnetError: as `mark`.
        """
        return {shard: self.mark(shard) for shard in self.shards()}

    @property
    def num_rows(self) -> int:
        """N, the rows that are safe."""
        return sum(mark.rows for mark in self.marks().values())

    def missing(self, num_rows: int, part: tuple[int, int] = (1, 1)) -> list[tuple[int, int]]:
        """What is to be computed so that rows 0..num_rows-1 are there: (shard, rows it should have) pairs.

        Args:
            num_rows: N.
            part: (I, N): only the shards s ≡ I-1 mod N.

        Raises:
            DamageError, MagnetError: as `mark`.
        """
        size = self.spec.shard_rows
        wanted = {
            shard: min(size, num_rows - shard * size) for shard in range(part[0] - 1, -(-num_rows // size), part[1])
        }
        there = wanted.keys() & set(self.shards())
        return [(s, rows) for s, rows in wanted.items() if s not in there or self.mark(s).rows < rows]

    def room(self, num_rows: int) -> tuple[int, int]:
        """Bytes that so many rows take, about, and bytes that are free for them.

        Raises:
            MagnetError: the disk cannot be asked.
        """
        row = 4 * (self.spec.latent_dim + self.spec.top_k)
        with atomic.explained("read", self.path):
            return num_rows * row, shutil.disk_usage(self.path).free

    def has(self, shard: int, rows: int) -> bool:
        """Whether a shard is committed with that many rows at least.

        Raises:
            DamageError, MagnetError: as `mark`.
        """
        return self._committed(shard) and self.mark(shard).rows >= rows

    def _committed(self, shard: int) -> bool:
        with atomic.explained("read", self.path):
            return self.mark_path(shard).exists()

    def claim(self, shard: int) -> bool:
        """Say to other processes that this one computes a shard; False when another said so and is alive.

        It keeps two from doing the same work, no more: shards are whole and never replaced without it, too.
        """
        return self._locks.take(shard + 1)

    def release(self, shard: int) -> None:
        """Take a claim back."""
        self._locks.free(shard + 1)

    def remove(self, shard: int) -> bool:
        """Take a damaged shard away, so that it is missing; False where it is not damaged, or no longer there.

        Its file goes first, its mark last: no damaged file is ever without a mark.

        Raises:
            MagnetError: it cannot be read or removed.
        """
        with self._locks.held(_REPLACING):
            if not self._committed(shard) or self.damage(shard) is None:  # another process may have repaired it
                return False
            for path in (self.shard_path(shard), self._successor(shard), self.mark_path(shard)):
                with atomic.explained("remove", path):
                    path.unlink(missing_ok=True)
                    atomic.sync_folder(path.parent)
        return True

    def damage(self, shard: int) -> str | None:
        """What is wrong with the bytes of a committed shard, in words; None where nothing is.

        Raises:
            MagnetError: it cannot be read, which is no sign of damage.
        """
        try:
            self.read(shard)
        except DamageError as error:
            return error.message
        return None

    def verify(self, shard: int) -> None:
        """Compare the bytes of a committed shard with its mark.

        Raises:
            DamageError: they are not those that were committed.
            MagnetError: it cannot be read.
        """
        self._verified(shard)

    def read(self, shard: int) -> Shard:
        """The rows of a committed shard; its bytes are verified before the HDF5 library sees them.

        Raises:
            DamageError: its bytes are not those that were committed, or not a shard of this volume.
            MagnetError: it cannot be read.
        """
        data, rows = self._verified(shard)
        return self._parse(data, shard, rows)

    def _verified(self, shard: int) -> tuple[memoryview, int]:
        """The bytes of a committed shard, once they fit its mark, and how many rows that says."""
        path, successor = self.shard_path(shard), self._successor(shard)
        for _ in range(2):  # twice: another process may replace shard and mark while we read
            data = self._read_bytes(path)
            marks = [self.mark(shard)]
            if successor.is_file():  # between the two renames of an extension the mark is one step behind
                marks.append(self._mark(successor, shard))
            sha256 = documents.sha256_bytes(data)
            if committed := next((mark for mark in marks if mark.sha256 == sha256), None):
                return data, committed.rows
        rows = f"rows {marks[0].first_row}-{marks[0].first_row + marks[0].rows - 1}"
        message = f"{path} ({rows}) is damaged: its {len(data):,} bytes are not the {marks[0].size:,} committed"
        raise DamageError(message, self._remedy)

    def _read_bytes(self, path: Path) -> memoryview:
        with atomic.explained("read", path):
            try:
                with path.open("rb") as file:
                    # numpy's memory is in huge pages where there are any, and writable: arrays are views of it
                    data = memoryview(np.empty(os.fstat(file.fileno()).st_size, np.uint8))
                    return data[: file.readinto(data)]
            except FileNotFoundError as error:
                if not self.exists:  # the whole volume is: a mount that went away
                    raise
                message = f"{path} is gone, though its commit mark is there"
                raise DamageError(message, self._remedy) from error

    def _parse(self, data: bytes | memoryview, shard: int, rows: int | None = None) -> Shard:
        """The rows in the verified bytes of a shard: as many as its mark says, where that is known."""
        path = self.shard_path(shard)
        try:
            return parse(data, self.spec, shard, path, rows)
        except ValueError as error:
            message = f"{path} is not a shard that magnet wrote: {error}"
            raise DamageError(message, self._remedy) from error

    def rows(self) -> Iterator[tuple[int, Shard]]:
        """All committed rows, shard by shard, with the number of each shard's first row.

        Raises:
            VolumeError, MagnetError: as `read`.
        """
        for shard in self.shards():
            yield shard * self.spec.shard_rows, self.read(shard)

    def latents(self, rows: np.ndarray) -> np.ndarray:
        """The latents of given rows.

        Args:
            rows: [n] int64, numbers of committed rows, any order, repeats allowed.

        Returns:
            [n, D] float32, in that order.

        Raises:
            VolumeError, MagnetError: as `read`.
        """
        return self._of_rows(rows, np.empty((len(rows), self.spec.latent_dim), np.float32), "latents")

    def labels(self, rows: np.ndarray) -> np.ndarray | None:
        """The labels [n] int64 of given rows, in that order; None where the generator takes none.

        Args:
            rows: [n] int64, numbers of committed rows, any order, repeats allowed.

        Raises:
            VolumeError, MagnetError: as `read`.
        """
        if not self.spec.num_classes:
            return None
        return self._of_rows(rows, np.empty(len(rows), np.int64), "labels")

    def _of_rows(self, rows: np.ndarray, found: np.ndarray, name: str) -> np.ndarray:
        """An array of the shards at given rows, put into `found`."""
        shards, places = np.divmod(rows, self.spec.shard_rows)
        for shard in np.unique(shards):
            here = shards == shard
            found[here] = getattr(self.read(int(shard)), name)[places[here]]
        return found

    def write(self, shard: int, rows: Shard) -> bool:
        """Publish a shard and its mark; a shard that is there already stays, a shorter one is made longer.

        Args:
            shard: its number.
            rows: its rows; of one that is there and shorter, the rows that are there stay bit for bit.

        Returns:
            False when another process was first, and nothing was added to what it wrote.

        Raises:
            DamageError: a shard is there, and damaged.
            MagnetError: no space, no permission; what was there is as it was.
        """
        if not self._committed(shard) and self._publish(shard, rows):
            return True
        with self._locks.held(_REPLACING):
            if self.has(shard, len(rows.latents)):
                return False
            self._replace(shard, self.read(shard).extended(rows))
        return True

    def _publish(self, shard: int, rows: Shard) -> bool:
        """Publish a shard that has no mark; where another's is there whole, its mark, and False."""
        data, ours = serialise(self.spec, shard, rows), True
        path = self.shard_path(shard)
        if not atomic.publish(path, data, replace=False):
            # A process was stopped between shard and mark, or is there now: what it published whole is kept.
            other = self._read_bytes(path)
            try:
                if other != data:
                    rows, data, ours = self._parse(other, shard), other, False
            except DamageError:
                atomic.publish(path, data)
        return atomic.publish(self.mark_path(shard), self._mark_document(shard, rows, data), replace=False) and ours

    def _replace(self, shard: int, rows: Shard) -> None:
        """Put a longer shard in a shorter one's place: the new mark waits beside while the shard is renamed."""
        data = serialise(self.spec, shard, rows)
        successor = self._successor(shard)
        mark = self._mark_document(shard, rows, data)
        atomic.publish(successor, mark)
        atomic.publish(self.shard_path(shard), data)
        atomic.publish(self.mark_path(shard), mark)
        successor.unlink(missing_ok=True)

    def _successor(self, shard: int) -> Path:
        return self.mark_path(shard).with_suffix(".next.json")

    def settle(self) -> None:
        """Finish or undo extensions that were cut short, and sweep old temporaries. Called before writing.

        Raises:
            DamageError, MagnetError: as `mark`.
        """
        folder = self.path / "shards"
        atomic.make_folder(folder)
        atomic.sweep(folder)
        atomic.sweep(self.path)
        if any(folder.glob("shard-*.next.json")):
            with self._locks.held(_REPLACING):  # what a living process is about to finish, it finishes
                for waiting in folder.glob("shard-*.next.json"):
                    self._settle(waiting)

    def _settle(self, waiting: Path) -> None:
        shard = int(waiting.name.partition(".")[0].removeprefix("shard-"))
        path = self.shard_path(shard)
        try:
            arrived = path.is_file() and self._mark(waiting, shard).sha256 == documents.sha256_file(path)
        except DamageError:  # the mark in force then tells whether the shard is damaged, too
            arrived = False
        with atomic.explained("write", waiting):
            waiting.replace(self.mark_path(shard)) if arrived else waiting.unlink()

    def _mark_document(self, shard: int, rows: Shard, data: bytes) -> bytes:
        first_row = shard * self.spec.shard_rows
        ours = (self.fingerprint, self.pilot_sha256)
        mark = Mark(documents.sha256_bytes(data), len(data), len(rows.latents), first_row, *ours)
        return mark_document(mark)

    def check(self) -> list[str]:
        """Re-read every byte; what is wrong, in words, one line a problem."""
        problems = []
        marked = {_SHARD.format(s) for s in self.shards()}
        for shard in self.shards():
            try:
                self.read(shard)
            except MagnetError as error:
                problems.append(error.message)
        for arrays in (self.pilot, self.mixture) if self.mixture_sha256 else (self.pilot,):
            try:
                arrays()
            except MagnetError as error:
                problems.append(error.message)
        for path in sorted((self.path / "shards").glob("*")):
            if path.stem not in marked and not path.name.startswith("."):
                problems.append(f"{path} has no commit mark: it does not count, and `magnet compute` settles it")
        return problems
