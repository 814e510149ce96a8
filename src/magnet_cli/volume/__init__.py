"""A volume: latents and singular values of one generator under one spec, in shards that appear whole.

Owns the folder: volume.json, the shards, their commit marks. Knows nothing of how the values are computed or what is
drawn from them; needs neither torch nor a generator.
"""

import dataclasses
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import h5py
import numpy as np

from magnet_cli import __version__, files
from magnet_cli.errors import MagnetError, VolumeError
from magnet_cli.volume.spec import FORMAT, VolumeSpec, differences

_PILOT = "pilot.h5"
_SHARD = "shard-{:06d}"
_MARK = re.compile(r"shard-(\d{6,})\.json")


@dataclass(frozen=True)
class Mark:
    """A shard's commit mark: the shard counts once this is there.

    Attributes:
        sha256: of the shard's bytes.
        size: bytes.
        rows: rows in it, 1..R.
        first_row: number of its first row in the volume.
        fingerprint: of the volume's spec.
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


class Volume:
    """A volume's folder. Made by `open` or `create`; its shards may be added by others at any time.

    Attributes:
        path: the folder.
        spec: what its numbers depend on.
        fingerprint: of the spec.
        pilot_sha256: of pilot.h5; empty where the solver needs none.
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
        measured: dict | None = None,
        probe: dict | None = None,
    ) -> None:
        self.path = path
        self.spec = spec
        self.fingerprint = spec.fingerprint
        self.pilot_sha256 = pilot_sha256
        self.measured = measured or {}
        self.probe = probe or {}

    @classmethod
    def open(cls, path: Path) -> "Volume":
        """The volume in a folder.

        Raises:
            VolumeError: it is none, or one of another format.
            MagnetError: volume.json is damaged.
        """
        if not (path / "volume.json").is_file():
            found = (
                "nothing there" if not path.exists() else "a folder without volume.json" if path.is_dir() else "a file"
            )
            message = f"{path} is not a volume: found {found}"
            raise VolumeError(message, "pass the folder that `magnet compute` printed")
        fields = files.read_document(path / "volume.json")
        if fields.get("format") != FORMAT:
            message = f"{path} is a volume of format {fields.get('format')}; this magnet ({__version__}) reads {FORMAT}"
            raise VolumeError(message, "use the magnet that made it, or compute it again")
        try:
            spec = VolumeSpec(**fields["spec"])
        except (KeyError, TypeError) as error:
            message = f"the spec in {path / 'volume.json'} is not one this magnet ({__version__}) knows: {error}"
            raise VolumeError(message, "use the magnet that made it, or compute it again") from error
        if fields.get("fingerprint") != spec.fingerprint:
            message = f"the fingerprint in {path / 'volume.json'} is not that of its spec"
            raise VolumeError(message, "use the magnet that made it, or compute it again")
        kept = {name: fields.get(name) for name in ("measured", "probe")}
        return cls(path, spec, pilot_sha256=fields.get("pilot", ""), **kept)

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
    ) -> "Volume":
        """Make a volume of that spec; where another process was first, the volume is that process's.

        Args:
            path: its folder, new or empty.
            spec: resolved: solver, sizes and precision are names and numbers.
            asked: what the user asked for, which the volume of a process that was first has to be; default `spec`.
            measured: what was measured to choose them, kept in volume.json.
            probe: what generator and image model of the user's own give at fixed inputs, kept in volume.json.
            pilot: [D, D] float64, the pilot basis, kept in pilot.h5.

        Raises:
            VolumeError: the folder holds a volume of another spec (all differing fields are named), or other files.
            MagnetError: it cannot be written.
        """
        volume = cls.planned(path, asked or spec)
        if (path / "volume.json").exists():
            return volume
        files.make_folder(path / "shards")
        pilot_sha256 = ""
        if pilot is not None:
            files.publish(path / _PILOT, _pilot_bytes(pilot), replace=False)
            pilot_sha256 = files.sha256_file(path / _PILOT)
        fields = {
            "format": FORMAT,
            "fingerprint": spec.fingerprint,
            "spec": dataclasses.asdict(spec),
            "pilot": pilot_sha256,
            "measured": measured or {},
            "probe": probe or {},
            "notes": [],
            "magnet": __version__,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        files.publish(path / "volume.json", files.document(fields), replace=False)
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
        if (path / "volume.json").exists():
            volume = cls.open(path)
            if listed := differences(asked, volume.spec):
                message = f"{path} was made with other settings: {listed}"
                raise VolumeError(message, "pass another folder with --volume, or the settings it was made with")
            return volume
        with files.explained("read", path):
            ours = {"shards", _PILOT}  # what a process that was stopped before volume.json leaves
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
        path = self.path / "volume.json"
        fields = files.read_document(path)
        if text not in fields["notes"]:
            files.publish(path, files.document(fields | {"notes": [*fields["notes"], text]}))

    def pilot(self) -> np.ndarray | None:
        """The pilot basis [D, D] float64, columns strongest first; None where the solver needs none.

        Raises:
            VolumeError: its bytes are not those the volume was made with.
            MagnetError: it cannot be read.
        """
        if not self.pilot_sha256:
            return None
        path = self.path / _PILOT
        data = self._read_bytes(path) if path.is_file() else b""
        if files.sha256_bytes(data) != self.pilot_sha256:
            message = f"{path} is damaged or gone: its {len(data):,} bytes are not those the volume was made with"
            raise VolumeError(message, "restore it from a copy; without it no rows can be added, those here stay good")
        with h5py.File(io.BytesIO(data), "r") as file:
            return file["basis"][:]

    @property
    def exists(self) -> bool:
        """Whether it is on disk: a planned volume is not."""
        return (self.path / "volume.json").is_file()

    def shard_path(self, shard: int) -> Path:
        """The HDF5 file of a shard, there or not."""
        return self.path / "shards" / f"{_SHARD.format(shard)}.h5"

    def mark_path(self, shard: int) -> Path:
        """The commit mark of a shard, there or not."""
        return self.shard_path(shard).with_suffix(".json")

    def shards(self) -> list[int]:
        """The numbers of the committed shards, ascending."""
        folder = self.path / "shards"
        names = (p.name for p in folder.iterdir()) if folder.is_dir() else ()
        return sorted(int(m[1]) for name in names if (m := _MARK.fullmatch(name)))

    def mark(self, shard: int) -> Mark:
        """The commit mark of a committed shard.

        Raises:
            VolumeError: it belongs to another volume or another place in this one.
            MagnetError: it is damaged.
        """
        return self._mark(self.mark_path(shard), shard)

    def _mark(self, path: Path, shard: int) -> Mark:
        fields = files.read_document(path)
        try:
            mark = Mark(**fields)
        except TypeError as error:
            message = f"{path} is not the mark of a shard: {error}"
            raise VolumeError(message, self._remedy(shard)) from error
        first_row, rows = shard * self.spec.shard_rows, self.spec.shard_rows
        ours = (self.fingerprint, self.pilot_sha256)
        if (mark.fingerprint, mark.pilot) != ours or mark.first_row != first_row or not 1 <= mark.rows <= rows:
            message = f"{path} is the mark of a shard of another volume, or of another place in this one"
            raise VolumeError(message, self._remedy(shard))
        return mark

    def _remedy(self, shard: int) -> str:
        names = f"{_SHARD.format(shard)}.h5 and .json"
        return f"remove {names} from {self.path / 'shards'}; the same `magnet compute` makes those rows again"

    def marks(self) -> dict[int, Mark]:
        """The marks of all committed shards by number.

        Raises:
            VolumeError, MagnetError: as `mark`.
        """
        return {shard: self.mark(shard) for shard in self.shards()}

    @property
    def num_rows(self) -> int:
        """N, the rows that are safe."""
        return sum(mark.rows for mark in self.marks().values())

    def missing(self, num_rows: int) -> list[tuple[int, int]]:
        """What is to be computed so that rows 0..num_rows-1 are there: (shard, rows it should have) pairs."""
        size = self.spec.shard_rows
        wanted = {shard: min(size, num_rows - shard * size) for shard in range(-(-num_rows // size))}
        marks = self.marks()
        return [(s, rows) for s, rows in wanted.items() if s not in marks or marks[s].rows < rows]

    def read(self, shard: int) -> Shard:
        """The rows of a committed shard; its bytes are verified before the HDF5 library sees them.

        Raises:
            VolumeError: its bytes are not those that were committed, or not a shard of this volume.
            MagnetError: it cannot be read.
        """
        path, successor = self.shard_path(shard), self._successor(shard)
        for _ in range(2):  # twice: another process may replace shard and mark while we read
            data = self._read_bytes(path)
            marks = [self.mark(shard)]
            if successor.is_file():  # between the two renames of an extension the mark is one step behind
                marks.append(self._mark(successor, shard))
            if files.sha256_bytes(data) in {mark.sha256 for mark in marks}:
                return self._parse(data, shard)
        rows = f"rows {marks[0].first_row}-{marks[0].first_row + marks[0].rows - 1}"
        message = f"{path} ({rows}) is damaged: its {len(data):,} bytes are not the {marks[0].size:,} committed"
        raise VolumeError(message, self._remedy(shard))

    def _read_bytes(self, path: Path) -> bytes:
        try:
            with files.explained("read", path):
                return path.read_bytes()
        except FileNotFoundError as error:
            message = f"{path} is gone, though its commit mark is there"
            raise VolumeError(message, self._remedy(int(path.stem[-6:]))) from error

    def _parse(self, data: bytes, shard: int) -> Shard:
        """The rows in the verified bytes of a shard."""
        try:
            with h5py.File(io.BytesIO(data), "r") as file:
                if file.attrs["fingerprint"] != self.fingerprint or file.attrs["shard"] != shard:
                    message = f"{self.shard_path(shard)} is a shard of another volume or another place"
                    raise VolumeError(message, self._remedy(shard))
                labels = file["labels"][:] if "labels" in file else None
                rows = Shard(file["latents"][:], file["singular_values"][:], labels)
        except (OSError, KeyError) as error:
            message = f"{self.shard_path(shard)} is not a shard that magnet wrote: {error}"
            raise VolumeError(message, self._remedy(shard)) from error
        shapes = (rows.latents.shape[1:], rows.singular_values.shape)
        if shapes != ((self.spec.latent_dim,), (len(rows.latents), self.spec.top_k)):
            message = f"{self.shard_path(shard)} has arrays of other shapes than its volume's spec"
            raise VolumeError(message, self._remedy(shard))
        return rows

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
        latents = np.empty((len(rows), self.spec.latent_dim), np.float32)
        shards, places = np.divmod(rows, self.spec.shard_rows)
        for shard in np.unique(shards):
            here = shards == shard
            latents[here] = self.read(int(shard)).latents[places[here]]
        return latents

    def labels(self, rows: np.ndarray) -> np.ndarray | None:
        """The labels [n] int64 of given rows, in that order; None where the generator takes none.

        Args:
            rows: [n] int64, numbers of committed rows, any order, repeats allowed.

        Raises:
            VolumeError, MagnetError: as `read`.
        """
        if not self.spec.num_classes:
            return None
        labels = np.empty(len(rows), np.int64)
        shards, places = np.divmod(rows, self.spec.shard_rows)
        for shard in np.unique(shards):
            here = shards == shard
            labels[here] = self.read(int(shard)).labels[places[here]]
        return labels

    def write(self, shard: int, rows: Shard) -> None:
        """Publish a shard and its mark; a shard that is there already stays, a shorter one is replaced.

        Args:
            shard: its number.
            rows: its rows; where it extends a shorter shard, the rows of that one come first, bit for bit.

        Raises:
            MagnetError: no space, no permission; what was there is as it was.
        """
        data = self._serialise(shard, rows)
        path = self.shard_path(shard)
        if self.mark_path(shard).exists():
            self._replace(shard, rows, data)
            return
        if not files.publish(path, data, replace=False):
            # A process was stopped between shard and mark, or is there now: what it published whole is kept.
            with_other = self._read_bytes(path)
            try:
                rows, data = self._parse(with_other, shard), with_other
            except VolumeError:
                files.publish(path, data)
        files.publish(self.mark_path(shard), self._mark_document(shard, rows, data), replace=False)

    def _replace(self, shard: int, rows: Shard, data: bytes) -> None:
        """Put a longer shard in a shorter one's place: the new mark waits beside while the shard is renamed."""
        successor = self._successor(shard)
        mark = self._mark_document(shard, rows, data)
        files.publish(successor, mark)
        files.publish(self.shard_path(shard), data)
        files.publish(self.mark_path(shard), mark)
        successor.unlink(missing_ok=True)

    def _successor(self, shard: int) -> Path:
        return self.mark_path(shard).with_suffix(".next.json")

    def settle(self) -> None:
        """Finish or undo extensions that were cut short, and sweep old temporaries. Called before writing.

        Raises:
            VolumeError, MagnetError: as `mark`.
        """
        folder = self.path / "shards"
        files.make_folder(folder)
        files.sweep(folder)
        files.sweep(self.path)
        for waiting in folder.glob("shard-*.next.json"):
            shard = int(waiting.name.partition(".")[0].removeprefix("shard-"))
            arrived = self._mark(waiting, shard).sha256 == files.sha256_file(self.shard_path(shard))
            with files.explained("write", waiting):
                waiting.replace(self.mark_path(shard)) if arrived else waiting.unlink()

    def _mark_document(self, shard: int, rows: Shard, data: bytes) -> bytes:
        first_row = shard * self.spec.shard_rows
        ours = (self.fingerprint, self.pilot_sha256)
        mark = Mark(files.sha256_bytes(data), len(data), len(rows.latents), first_row, *ours)
        return files.document(dataclasses.asdict(mark))

    def _serialise(self, shard: int, rows: Shard) -> bytes:
        """The bytes of a shard's HDF5 file: a function of the rows alone (no times in it)."""
        buffer = io.BytesIO()
        with h5py.File(buffer, "w") as file:
            file.create_dataset("latents", data=rows.latents, dtype=np.float32)
            file.create_dataset("singular_values", data=rows.singular_values, dtype=np.float32)
            if rows.labels is not None:
                file.create_dataset("labels", data=rows.labels, dtype=np.int64)
            attributes = {"format": FORMAT, "fingerprint": self.fingerprint, "shard": shard}
            attributes |= {"first_row": shard * self.spec.shard_rows, "magnet": __version__}
            file.attrs.update(attributes)
        return buffer.getvalue()

    def check(self) -> list[str]:
        """Re-read every byte; what is wrong, in words, one line a problem."""
        problems = []
        marked = {_SHARD.format(s) for s in self.shards()}
        for shard in self.shards():
            try:
                self.read(shard)
            except MagnetError as error:
                problems.append(error.message)
        try:
            self.pilot()
        except MagnetError as error:
            problems.append(error.message)
        for path in sorted((self.path / "shards").glob("*")):
            if path.stem not in marked and not path.name.startswith("."):
                problems.append(f"{path} has no commit mark: it does not count, and `magnet compute` settles it")
        return problems


def _pilot_bytes(basis: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.create_dataset("basis", data=basis, dtype=np.float64)
    return buffer.getvalue()
