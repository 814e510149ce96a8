"""The shards of a volume on disk: written once with their commit marks, verified when they are read, made longer.

A shard counts when its mark is there. A shard is made longer in three steps: the next mark is written beside the mark
in force, the shard is renamed into place, the next mark becomes the mark in force. `settle` finishes or undoes what was
stopped between the steps.
"""

import functools
import os
import re
from pathlib import Path
from typing import cast

import numpy as np

from magnet_cli.errors import DamageError, MagnetError
from magnet_cli.files import atomic, documents, opening
from magnet_cli.files.locks import Locks
from magnet_cli.volume.shard import Mark, Shard, mark_document, mark_of, parse, serialise
from magnet_cli.volume.spec import VolumeSpec

_SHARD = "shard-{:06d}"
_LOCKS = ".locks"
_REPLACING = 0  # lock of the process that settles or replaces; shard s is claimed by lock s + 1
_MARK = re.compile(r"shard-(\d{6}|[1-9]\d{6,8})\.json")


class ShardFolder:
    """The folder shards/ of a volume; other processes may add shards at any time.

    Attributes:
        path: the volume's folder.
        spec: what the volume's numbers depend on.
        fingerprint: of the spec.
        pilot_sha256: sha256 of the pilot basis; empty where the solver needs none.
    """

    def __init__(self, path: Path, spec: VolumeSpec, pilot_sha256: str = "") -> None:
        self.path = path
        self.spec = spec
        self.fingerprint = spec.fingerprint
        self.pilot_sha256 = pilot_sha256

    @functools.cached_property
    def _locks(self) -> Locks:
        return Locks(self.path / _LOCKS)

    @property
    def _folder(self) -> Path:
        return self.path / "shards"

    def shard_path(self, shard: int) -> Path:
        """Return the path of a shard's HDF5 file, written or not."""
        return self._folder / f"{_SHARD.format(shard)}.h5"

    def mark_path(self, shard: int) -> Path:
        """Return the path of a shard's commit mark, written or not."""
        return self.shard_path(shard).with_suffix(".json")

    def _next_mark_path(self, shard: int) -> Path:
        return self.mark_path(shard).with_suffix(".next.json")

    def shards(self) -> list[int]:
        """Return the numbers of the committed shards, ascending.

        Raises:
            MagnetError: the folder cannot be read.
        """
        with atomic.explained("read", self._folder):
            names = [p.name for p in self._folder.iterdir()] if self._folder.is_dir() else []
        return sorted(int(m[1]) for name in names if (m := _MARK.fullmatch(name)))

    def mark(self, shard: int) -> Mark:
        """Return the commit mark of a committed shard.

        Raises:
            DamageError: it was changed, or belongs to another volume or another place in this one.
            MagnetError: it cannot be read.
        """
        return self._read_mark(self.mark_path(shard), shard)

    def _read_mark(self, path: Path, shard: int) -> Mark:
        data = opening.read(path, self.path)
        try:
            fields = documents.parse(data, path)
        except MagnetError as error:
            raise DamageError(error.message, self._remedy) from error
        try:
            mark = mark_of(fields, path)
        except ValueError as error:
            raise DamageError(f"{path} is damaged: {error}", self._remedy) from error
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
        """Return the marks of all committed shards by number.

        Raises:
            DamageError, MagnetError: as `mark`.
        """
        return {shard: self.mark(shard) for shard in self.shards()}

    def missing(self, num_rows: int, part: tuple[int, int] = (1, 1)) -> list[tuple[int, int]]:
        """Return the shards that rows 0..num_rows-1 still need, as pairs (shard, rows it should have).

        Args:
            num_rows: N.
            part: (i, n): only the shards s ≡ i-1 mod n.

        Raises:
            DamageError, MagnetError: as `mark`.
        """
        size = self.spec.shard_rows
        numbers = range(part[0] - 1, -(-num_rows // size), part[1])
        rows = {shard: min(size, num_rows - shard * size) for shard in numbers}
        committed = rows.keys() & set(self.shards())
        return [(shard, n) for shard, n in rows.items() if shard not in committed or self.mark(shard).rows < n]

    def has(self, shard: int, rows: int) -> bool:
        """Return whether a shard is committed with at least that many rows.

        Raises:
            DamageError, MagnetError: as `mark`.
        """
        return self._is_committed(shard) and self.mark(shard).rows >= rows

    def _is_committed(self, shard: int) -> bool:
        with atomic.explained("read", self.path):
            return self.mark_path(shard).exists()

    def claim(self, shard: int) -> bool:
        """Reserve a shard for this process; return False where another living process has reserved it.

        A claim only saves work: shards are whole, and never replaced, without it too.
        """
        return self._locks.take(shard + 1)

    def release(self, shard: int) -> None:
        """Give up a claim."""
        self._locks.free(shard + 1)

    def remove(self, shard: int) -> bool:
        """Remove a damaged shard; return False where it is not damaged, or gone already.

        The shard goes first and its mark last, so that no damaged file is ever without a mark.

        Raises:
            MagnetError: it cannot be read or removed.
        """
        with self._locks.held(_REPLACING):
            if not self._is_committed(shard) or self.damage(shard) is None:  # another process may have repaired it
                return False
            for path in (self.shard_path(shard), self._next_mark_path(shard), self.mark_path(shard)):
                with atomic.explained("remove", path):
                    path.unlink(missing_ok=True)
                    atomic.sync_folder(path.parent)
        return True

    def damage(self, shard: int) -> str | None:
        """Return what is wrong with the bytes of a committed shard; None where nothing is.

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
        self._read_verified(shard)

    def read(self, shard: int) -> Shard:
        """Return the rows of a committed shard; its bytes are verified before the HDF5 library sees them.

        Raises:
            DamageError: its bytes are not those that were committed, or not a shard of this volume.
            MagnetError: it cannot be read.
        """
        data, rows = self._read_verified(shard)
        return self._parse(data, shard, rows)

    def _read_verified(self, shard: int) -> tuple[memoryview, int]:
        """Return the bytes of a committed shard and the number of rows in its mark."""
        path, next_mark = self.shard_path(shard), self._next_mark_path(shard)
        for _ in range(2):  # twice: another process may replace shard and mark while we read
            data = self._read_bytes(path)
            marks = [self.mark(shard)]
            if next_mark.is_file():  # between the two renames of an extension the mark is one step behind
                marks.append(self._read_mark(next_mark, shard))
            sha256 = documents.sha256_bytes(data)
            if committed := next((mark for mark in marks if mark.sha256 == sha256), None):
                return data, committed.rows
        rows = f"rows {marks[0].first_row}-{marks[0].first_row + marks[0].rows - 1}"
        message = f"{path} ({rows}) is damaged: its {len(data):,} bytes are not the {marks[0].size:,} committed"
        raise DamageError(message, self._remedy)

    def _read_bytes(self, path: Path) -> memoryview:
        try:
            with opening.opened(path, self.path) as file:
                # numpy's memory is in huge pages where there are any, and writable: arrays are views of it
                data = memoryview(cast("bytearray", np.empty(os.fstat(file.fileno()).st_size, np.uint8)))
                return data[: file.readinto(data)]
        except MagnetError as error:
            is_gone = isinstance(error.__cause__, FileNotFoundError)
            if not (is_gone and (self.path / "volume.json").is_file()):  # else a mount that went away
                raise
            raise DamageError(f"{path} is gone, though its commit mark is there", self._remedy) from error

    def _parse(self, data: bytes | memoryview, shard: int, rows: int | None = None) -> Shard:
        path = self.shard_path(shard)
        try:
            return parse(data, self.spec, shard, path, rows)
        except ValueError as error:
            raise DamageError(f"{path} is not a shard that magnet wrote: {error}", self._remedy) from error

    def write(self, shard: int, rows: Shard) -> bool:
        """Publish a shard and its mark; a shard that is there stays, a shorter one is made longer.

        Args:
            shard: its number.
            rows: its rows; rows that are on disk already stay bit for bit.

        Returns:
            False when another process was first, and nothing was added to what it wrote.

        Raises:
            DamageError: a shard is there, and damaged.
            MagnetError: no space, no permission; what was there is as it was.
        """
        if not self._is_committed(shard) and self._publish(shard, rows):
            return True
        with self._locks.held(_REPLACING):
            if self.has(shard, len(rows.latents)):
                return False
            self._replace(shard, self.read(shard).extended(rows))
        return True

    def _publish(self, shard: int, rows: Shard) -> bool:
        """Publish a shard that has no mark; return False where another process published one, which gets its mark."""
        data, ours = serialise(self.spec, shard, rows), True
        path = self.shard_path(shard)
        if not atomic.publish(path, data, replace=False):
            # A process was stopped between shard and mark, or is there now: what it published whole is kept.
            other = self._read_bytes(path)
            try:
                if other != data:
                    rows, data, ours = self._parse(other, shard), bytes(other), False
            except DamageError:
                atomic.publish(path, data)
        return atomic.publish(self.mark_path(shard), self._mark_document(shard, rows, data), replace=False) and ours

    def _replace(self, shard: int, rows: Shard) -> None:
        data = serialise(self.spec, shard, rows)
        next_mark = self._next_mark_path(shard)
        mark = self._mark_document(shard, rows, data)
        atomic.publish(next_mark, mark)
        atomic.publish(self.shard_path(shard), data)
        atomic.publish(self.mark_path(shard), mark)
        next_mark.unlink(missing_ok=True)

    def _mark_document(self, shard: int, rows: Shard, data: bytes) -> bytes:
        first_row = shard * self.spec.shard_rows
        ours = (self.fingerprint, self.pilot_sha256)
        return mark_document(Mark(documents.sha256_bytes(data), len(data), len(rows.latents), first_row, *ours))

    def settle(self) -> None:
        """Finish or undo extensions that were cut short, and remove old temporaries. Called before writing.

        Raises:
            DamageError, MagnetError: as `mark`.
        """
        atomic.make_folder(self._folder)
        atomic.sweep(self._folder)
        atomic.sweep(self.path)
        if any(self._folder.glob("shard-*.next.json")):
            with self._locks.held(_REPLACING):  # what a living process is about to finish, it finishes
                for next_mark in self._folder.glob("shard-*.next.json"):
                    self._settle(next_mark)

    def _settle(self, next_mark: Path) -> None:
        shard = int(next_mark.name.partition(".")[0].removeprefix("shard-"))
        path = self.shard_path(shard)
        try:
            arrived = path.is_file() and self._read_mark(next_mark, shard).sha256 == documents.sha256_file(
                path, self.path
            )
        except DamageError:  # the mark in force then tells whether the shard is damaged, too
            arrived = False
        with atomic.explained("write", next_mark):
            next_mark.replace(self.mark_path(shard)) if arrived else next_mark.unlink()

    def check(self) -> list[str]:
        """Read every byte of every shard; return a sentence on each problem."""
        shards = self.shards()
        problems = [text for shard in shards if (text := self._problem(shard))]
        marked = {_SHARD.format(shard) for shard in shards}
        for path in sorted(self._folder.glob("*")):
            if path.stem not in marked and not path.name.startswith("."):
                problems.append(f"{path} has no commit mark: it does not count, and `magnet compute` settles it")
        return problems

    def _problem(self, shard: int) -> str | None:
        try:
            self.read(shard)
        except MagnetError as error:
            return error.message
        return None
