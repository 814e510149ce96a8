"""A volume: latents and singular values of one generator under one spec, in shards that appear whole.

Owns the folder: volume.json, the shards, their commit marks. Knows nothing of how the values are computed or what is
drawn from them; needs neither torch nor a generator.
"""

import dataclasses
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import h5py
import numpy as np

from magnet_cli import __version__, files
from magnet_cli.errors import MagnetError, SpecError, VolumeError

FORMAT = 1
_SHARD = "shard-{:06d}"
_MARK = re.compile(r"shard-(\d{6,})\.json")
_NAMES_ONLY = ("generator",)  # fields of the spec that change no number


@dataclass(frozen=True)
class VolumeSpec:
    """Exactly what changes the numbers in a volume; how the work is done and how many rows there are does not.

    Attributes:
        generator: the generator's name; no part of the fingerprint.
        sha256: of its checkpoint.
        family: its architecture.
        prior: the distribution of the latents.
        latent_dim: D.
        space: where the Jacobian's input lives: "z".
        output: what the Jacobian is taken of: "pixel".
        truncation: ψ in (0, 1], part of the function differentiated; 1 = none.
        top_k: K, singular values kept a row.
        solver: how they are computed: "exact".
        precision: arithmetic of the products: "float32" or "float64".
        rank_floor: singular values below this share of their row's first are rounding.
        seed: of the latents.
        shard_rows: R, rows of a shard.
    """

    generator: str
    sha256: str
    family: str
    prior: str
    latent_dim: int
    space: str
    output: str
    truncation: float
    top_k: int
    solver: str
    precision: str
    rank_floor: float
    seed: int
    shard_rows: int

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            SpecError: a value outside its range.
        """
        if not 1 <= self.top_k <= self.latent_dim:
            message = (
                f"top_k {self.top_k} is outside 1..{self.latent_dim}: {self.generator} has {self.latent_dim} latents"
            )
            raise SpecError(message, f"pass --top-k between 1 and {self.latent_dim}")
        if not 0 < self.truncation <= 1:
            message = f"truncation {self.truncation} is outside (0, 1]"
            raise SpecError(message, "pass --truncation between 0 and 1; 1 is none")
        if self.shard_rows < 1 or self.seed < 0:
            message = f"shard_rows {self.shard_rows} and seed {self.seed} must be at least 1 and 0"
            raise SpecError(message, "pass a larger value")

    @property
    def fingerprint(self) -> str:
        """Hex sha256 of the canonical spec and the format."""
        fields = {k: v for k, v in dataclasses.asdict(self).items() if k not in _NAMES_ONLY}
        return files.sha256_bytes(files.canonical({"format": FORMAT, **fields}))


@dataclass(frozen=True)
class Mark:
    """A shard's commit mark: the shard counts once this is there.

    Attributes:
        sha256: of the shard's bytes.
        size: bytes.
        rows: rows in it, 1..R.
        first_row: number of its first row in the volume.
        fingerprint: of the volume's spec.
    """

    sha256: str
    size: int
    rows: int
    first_row: int
    fingerprint: str


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
    """

    def __init__(self, path: Path, spec: VolumeSpec) -> None:
        self.path = path
        self.spec = spec
        self.fingerprint = spec.fingerprint

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
        return cls(path, spec)

    @classmethod
    def create(cls, path: Path, spec: VolumeSpec) -> "Volume":
        """The volume of that spec in a folder; made where there is none yet.

        Raises:
            VolumeError: the folder holds a volume of another spec (all differing fields are named), or other files.
            MagnetError: it cannot be written.
        """
        volume = cls.planned(path, spec)
        if (path / "volume.json").exists():
            return volume
        files.make_folder(path / "shards")
        fields = {
            "format": FORMAT,
            "fingerprint": spec.fingerprint,
            "spec": dataclasses.asdict(spec),
            "magnet": __version__,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        if not files.publish(path / "volume.json", files.document(fields), replace=False):
            return cls._existing(path, spec)
        return volume

    @classmethod
    def planned(cls, path: Path, spec: VolumeSpec) -> "Volume":
        """As `create`, but nothing is written: the volume that is there, or one of no rows.

        Raises:
            VolumeError, MagnetError: as `create`.
        """
        if (path / "volume.json").exists():
            return cls._existing(path, spec)
        with files.explained("read", path):
            if path.exists() and (not path.is_dir() or any(not p.name.startswith(".") for p in path.iterdir())):
                found = "other files" if path.is_dir() else "a file"
                message = f"{path} is asked for as a volume, but holds {found}"
                raise VolumeError(message, "pass a new folder with --volume")
        return cls(path, spec)

    @classmethod
    def _existing(cls, path: Path, spec: VolumeSpec) -> "Volume":
        volume = cls.open(path)
        asked, found = dataclasses.asdict(spec), dataclasses.asdict(volume.spec)
        differing = [k for k in asked if asked[k] != found[k] and k not in _NAMES_ONLY]
        if differing:
            listed = ", ".join(f"{k} {found[k]} (asked {asked[k]})" for k in differing)
            message = f"{path} was made with other settings: {listed}"
            raise VolumeError(message, "pass another folder with --volume, or the settings it was made with")
        return volume

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
        if mark.fingerprint != self.fingerprint or mark.first_row != first_row or not 1 <= mark.rows <= rows:
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
        mark = Mark(files.sha256_bytes(data), len(data), len(rows.latents), first_row, self.fingerprint)
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
        for path in sorted((self.path / "shards").glob("*")):
            if path.stem not in marked and not path.name.startswith("."):
                problems.append(f"{path} has no commit mark: it does not count, and `magnet compute` settles it")
        return problems


def as_json(spec: VolumeSpec) -> dict:
    """The spec as JSON fields, spelled as the flags are."""
    return json.loads(files.canonical(dataclasses.asdict(spec)))
