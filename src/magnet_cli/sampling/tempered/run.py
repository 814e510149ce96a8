"""The folder of a tempered run: what was measured at each temperature of each island, in files that appear whole.

Owns tempered.json, the files of temperatures and their marks. Knows nothing of how latents are moved.
"""

import dataclasses
import functools
import io
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np

from magnet_cli import __version__
from magnet_cli.errors import DamageError, MagnetError, SampleError, SpecError, VolumeError
from magnet_cli.files import atomic, documents, hdf5, results
from magnet_cli.files.locks import Locks
from magnet_cli.files.results import Kind, ResultFolder
from magnet_cli.volume import Volume

FORMAT = 1
_ALGORITHM = 2  # changes with whatever changes the numbers
TEMPERED = Kind("tempered", FORMAT, noun="tempered run", fields={"fingerprint": str}, early=True, remedy="move it away")
_AT_WORK = 0  # lock of the process that goes on with a run
_REMEDY = "remove that file: the same `magnet sample --method tempered` makes it, and what follows it, again"


@dataclass(frozen=True)
class Schedule:
    """What an island is asked to do.

    Attributes:
        rho: the polarity asked for.
        particles: P, latents of an island.
        seed: of the islands.
        target: effective size over P that the next temperature is chosen for, in (0, 1).
        sweeps: walks of each latent at a temperature, each of which costs a Jacobian.
        rounds: temperatures at the polarity asked for: the first that gets there, and more of the same, for each of
            which the surrogate learns anew what was met on the way.
        moves: of a walk, each of which costs an evaluation.
        starts: latents that the walks of a temperature start from, at least; those of the last start from all.
        chain: walks one after the other from each of them, at most; where every walk ends is kept.
    """

    rho: float
    particles: int
    seed: int
    target: float = 0.5
    sweeps: int = 1
    rounds: int = 5
    moves: int = 24
    starts: int = 8
    chain: int = 8

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            SpecError: a value outside its range.
        """
        counts = (self.sweeps, self.rounds, self.moves, self.starts, self.chain)
        if self.particles < 8 or min(counts) < 1 or not 0 < self.target < 1:
            message = f"{self.particles} particles, target {self.target} and {counts} sweeps, rounds, moves, "
            message += "starts and chain are asked for"
            raise SpecError(message, "pass --particles 8 or more")

    @property
    def walks(self) -> int:
        """Walks one after the other at a temperature that is not the last."""
        return min(self.chain, max(1, self.particles // self.starts))

    def is_over(self, rhos: list[float]) -> bool:
        """Whether an island that has been at these polarities, one after the other, is at the end."""
        return rhos.count(self.rho) >= (self.rounds if self.rho else 1)


@dataclass(frozen=True)
class TemperedSpec:
    """Exactly what changes the numbers of a run.

    Attributes:
        generator: its name; no part of the fingerprint.
        volume: fingerprint of the volume whose generator, function and solver are used.
        pilot: sha256 of the pilot basis; empty where the solver needs none.
        latent_dim: D.
        labelled: whether latents have labels.
        top_k: k.
        label: the labels that latents have in turn; empty for those of the volume.
        schedule: what islands are asked to do.
    """

    generator: str = field(compare=False)
    volume: str
    pilot: str
    latent_dim: int
    labelled: bool
    top_k: int
    label: tuple[int, ...]
    schedule: Schedule

    def __post_init__(self) -> None:
        """JSON has lists."""
        object.__setattr__(self, "label", tuple(self.label))

    @classmethod
    def of(cls, volume: Volume, top_k: int, schedule: Schedule, label: tuple[int, ...] = ()) -> "TemperedSpec":
        """The spec of a run with the function and the solver of a volume.

        Raises:
            VolumeError: its rows were imported: there is no solver.
            SpecError: the prior is a mixture.
        """
        spec = volume.spec
        if spec.prior == "mixture":
            message = f"the prior of {spec.generator} is a mixture, and the tempered sampler has no moves for one"
            raise SpecError(message, "leave --method out: rows of the volume are drawn by weight")
        if spec.solver == "imported":
            message = f"the rows of {volume.path} were imported, and the tempered sampler has to compute new ones"
            raise VolumeError(message, f"compute a volume: magnet compute {spec.generator} --n 512")
        ours = volume.fingerprint, volume.pilot_sha256, spec.latent_dim, spec.num_classes > 0
        return cls(spec.generator, *ours, top_k, label, schedule)

    @property
    def fingerprint(self) -> str:
        """Hex sha256 of the canonical spec, the format and the algorithm."""
        fields = dataclasses.asdict(self)
        del fields["generator"]
        return documents.sha256_bytes(documents.canonical({"format": FORMAT, "algorithm": _ALGORITHM, **fields}))


@dataclass(frozen=True)
class Step:
    """One temperature of an island.

    Attributes:
        rho: its polarity.
        latents: [E, D] float32, those measured at it.
        log_volume: [E] float64, natural log; −inf for those that do not compete.
        labels: [E] int64, or None.
        particles: [P] int64, where the island stands then: places among all that it has measured, in their order.
        measured: how many of the E latents each walk led to: they were evaluated together.
        effective_share: of the weights that led here, over P.
        width: b of the moves.
        walked: share of the moves that the surrogate accepted.
        accepted: share of the walks' ends that the Jacobian accepted.
        error: of the surrogate on latents left out, in nats.
        explained: share of the variance of log-volume, of the latents it was fitted to, that it explains.
    """

    rho: float
    latents: np.ndarray
    log_volume: np.ndarray
    labels: np.ndarray | None
    particles: np.ndarray
    measured: tuple[int, ...]
    effective_share: float = 1.0
    width: float = 0.0
    walked: float = 0.0
    accepted: float = 0.0
    error: float = 0.0
    explained: float = 0.0


_ARRAYS = ("latents", "log_volume", "labels", "particles")
_NUMBERS = ("rho", "effective_share", "width", "walked", "accepted", "error", "explained")


class TemperedRun:
    """A run's folder.

    Attributes:
        path: the folder.
        spec: what its numbers depend on.
    """

    def __init__(self, path: Path, spec: TemperedSpec) -> None:
        self.path = path
        self.spec = spec

    @classmethod
    def open(cls, path: Path) -> "TemperedRun":
        """The run in a folder.

        Raises:
            SampleError: it is of another format.
            MagnetError: tempered.json is not there, or damaged.
        """
        folder = ResultFolder(path, TEMPERED)
        fields = folder.read()
        try:
            spec = TemperedSpec(**fields["spec"] | {"schedule": Schedule(**fields["spec"]["schedule"])})
            if spec.fingerprint != fields["fingerprint"]:
                message = f"the fingerprint in {folder.document} is not that of its spec"
                raise SampleError(message, "use the magnet that made it, or remove it")
        except (KeyError, TypeError) as error:
            message = f"{folder.document} is not one this magnet ({__version__}) knows: {error}"
            raise SampleError(message, "use the magnet that made it, or remove it") from error
        return cls(path, spec)

    def create(self) -> None:
        """Make the folder, if it is not there.

        Raises:
            SampleError: it holds another run.
            MagnetError: it cannot be written.
        """
        atomic.make_folder(self.path / "islands")
        atomic.sweep(self.path)
        atomic.sweep(self.path / "islands")
        folder = ResultFolder(self.path, TEMPERED)
        fields = {"fingerprint": self.spec.fingerprint, "spec": dataclasses.asdict(self.spec)}
        folder.publish(fields | {"magnet": __version__, "created": results.now()}, replace=False)
        TemperedRun.open(self.path)
        folder.begun(self.spec)

    @functools.cached_property
    def _locks(self) -> Locks:
        return Locks(self.path / ".locks")

    def claim(self) -> None:
        """Say to other processes that this one goes on with the run, until it ends.

        Raises:
            SampleError: another one does.
        """
        if not self._locks.take(_AT_WORK):
            message = f"another process is at work on {self.path}"
            raise SampleError(message, "wait for it, then repeat the command: nothing is done twice")

    def file(self, island: int, number: int) -> Path:
        """The file of a temperature, there or not; its mark has the suffix .json."""
        return self.path / "islands" / f"island-{island:06d}-step-{number:03d}.h5"

    def write(self, island: int, number: int, step: Step) -> None:
        """Publish a temperature and its mark.

        Raises:
            MagnetError: no space, no permission.
        """
        buffer = io.BytesIO()
        with h5py.File(buffer, "w", libver="earliest") as file:
            for name in _ARRAYS:
                if getattr(step, name) is not None:
                    file[name] = getattr(step, name)
            about = {"format": FORMAT, "fingerprint": self.spec.fingerprint, "island": island, "step": number}
            file.attrs.update(about | {"magnet": __version__})
        data = buffer.getvalue()
        mark = {"format": FORMAT, "kind": "tempered", "sha256": documents.sha256_bytes(data), "size": len(data)}
        mark |= {"fingerprint": self.spec.fingerprint, "island": island, "step": number, "rows": len(step.latents)}
        mark |= {name: getattr(step, name) for name in _NUMBERS} | {"measured": list(step.measured)}
        path = self.file(island, number)
        atomic.publish(path, data)
        atomic.publish(path.with_suffix(".json"), documents.encode(mark))

    def steps(self, island: int) -> list[Step]:
        """The temperatures of an island that are safe, in their order.

        Raises:
            DamageError: one of them was changed, or is of another run.
            MagnetError: it cannot be read.
        """
        found: list[Step] = []
        while self.file(island, len(found)).with_suffix(".json").exists():
            found.append(self._read(island, len(found)))
        return found

    def _read(self, island: int, number: int) -> Step:
        path = self.file(island, number)
        try:
            mark = documents.read(path.with_suffix(".json"))
            with atomic.explained("read", path):
                data = path.read_bytes()
        except MagnetError as error:
            raise DamageError(error.message, _REMEDY) from error
        ours = (FORMAT, self.spec.fingerprint, island, number)
        if tuple(mark.get(name) for name in ("format", "fingerprint", "island", "step")) != ours:
            message = f"{path.with_suffix('.json')} is the mark of another run, or of another place in this one"
            raise DamageError(message, _REMEDY)
        if mark.get("sha256") != documents.sha256_bytes(data):
            message = f"{path} is damaged: its {len(data):,} bytes are not the {mark.get('size')} committed"
            raise DamageError(message, _REMEDY)
        forms = {
            "latents": hdf5.form("<f4", None, self.spec.latent_dim),
            "log_volume": hdf5.form("<f8", None),
            "labels": hdf5.form("<i8", None),
            "particles": hdf5.form("<i8", self.spec.schedule.particles),
        }
        try:
            arrays, _ = hdf5.read(data, forms, optional=() if self.spec.labelled else ("labels",))
            numbers = {name: float(mark[name]) for name in _NUMBERS}
            measured = tuple(map(int, mark["measured"]))
        except (ValueError, KeyError, TypeError) as error:
            message = f"{path} is not a temperature that magnet wrote: {error}"
            raise DamageError(message, _REMEDY) from error
        if sum(measured) != len(arrays["latents"]):
            message = f"{path} has arrays of different lengths"
            raise DamageError(message, _REMEDY)
        copied = {name: array.copy() for name, array in arrays.items()}
        return Step(**{"labels": None} | copied, **numbers, measured=measured)

    def islands(self) -> list[int]:
        """The numbers of the islands that were begun.

        Raises:
            MagnetError: the folder cannot be read.
        """
        with atomic.explained("read", self.path):
            names = [path.name for path in (self.path / "islands").glob("island-*-step-000.json")]
        return sorted(int(name.split("-")[1]) for name in names)

    def check(self) -> list[str]:
        """Re-read every byte; what is wrong, in words, one line a problem."""
        problems = []
        for path in sorted((self.path / "islands").glob("island-*.json")):
            _, island, _, number = path.stem.split("-")
            try:
                self._read(int(island), int(number))
            except MagnetError as error:
                problems.append(error.message)
        for path in sorted((self.path / "islands").glob("island-*.h5")):
            if not path.with_suffix(".json").exists():
                problems.append(f"{path} has no mark: it does not count")
        return problems
