"""The folder of a tempered run: the measurements of each temperature of each island, in files that appear whole."""

import dataclasses
import functools
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from magnet_cli import __version__
from magnet_cli.errors import DamageError, MagnetError, SampleError, SpecError, VolumeError
from magnet_cli.files import atomic, documents, hdf5, opening, results
from magnet_cli.files.locks import Locks
from magnet_cli.files.results import Kind, ResultFolder
from magnet_cli.files.text import quoted
from magnet_cli.volume import Volume

FORMAT = 1
_ALGORITHM = 2  # changes with whatever changes the numbers
TEMPERED = Kind("tempered", FORMAT, noun="tempered run", fields={"fingerprint": str}, early=True, remedy="move it away")
_AT_WORK = 0  # lock of the process that goes on with a run
_REMEDY = "remove that file: the same `magnet sample --method tempered` makes it, and what follows it, again"


@dataclass(frozen=True)
class Schedule:
    """How an island of P `particles` moves from the prior to a polarity.

    The next temperature is chosen for an effective size of `target` · P. Each latent makes `sweeps` walks of `moves`
    moves at a temperature: an evaluation for each move, a Jacobian for each walk. `rounds` temperatures are at the
    polarity itself: the first that reaches it, and repetitions, for each of which the surrogate is fitted again. The
    walks of a temperature start from at least `starts` latents, at the last from all, and at most `chain` follow one
    another from each start; the end of every walk is kept.
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
        counts = (self.sweeps, self.rounds, self.moves, self.starts, self.chain)
        if self.particles < 8 or min(counts) < 1 or not 0 < self.target < 1:
            raise SpecError(
                f"{self.particles} particles, target {self.target} and {counts} sweeps, rounds, moves, starts and "
                "chain are asked for",
                "pass `particles=8` or more",
            )

    @property
    def walks(self) -> int:
        """Number of consecutive walks at a temperature that is not the last."""
        return min(self.chain, max(1, self.particles // self.starts))

    def is_over(self, rhos: list[float]) -> bool:
        """Return whether an island with these polarities so far is at its end."""
        return rhos.count(self.rho) >= (self.rounds if self.rho else 1)


@dataclass(frozen=True)
class TemperedSpec:
    """What changes the numbers of a run: the function and solver of a volume, and the schedule.

    `volume` is its fingerprint; `pilot` the sha256 of the pilot basis, empty where the solver needs none; `labelled`
    tells whether latents have labels, which are `label` in turn, by default those of the volume.
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
        """Make a tuple of a list, as JSON has it."""
        object.__setattr__(self, "label", tuple(self.label))

    @classmethod
    def of(cls, volume: Volume, top_k: int, schedule: Schedule, label: tuple[int, ...] = ()) -> "TemperedSpec":
        """Return the spec of a run with the function and the solver of a volume."""
        spec = volume.spec
        if spec.solver == "imported":
            raise VolumeError(
                f"the rows of {volume.path} were imported, and the tempered sampler has to compute new ones",
                f"compute a volume: magnet compute {quoted(spec.generator)} --n 512",
            )
        hashes = volume.fingerprint, volume.pilot_sha256
        return cls(spec.generator, *hashes, spec.latent_dim, spec.num_classes > 0, top_k, label, schedule)

    @property
    def fingerprint(self) -> str:
        """Hex sha256 of the canonical spec, the format and the algorithm."""
        fields = dataclasses.asdict(self)
        del fields["generator"]
        return documents.sha256_bytes(documents.canonical({"format": FORMAT, "algorithm": _ALGORITHM, **fields}))


@dataclass(frozen=True)
class Step:
    """One temperature of an island: E latents that were measured at it, and the P particles at its end.

    `log_volume` [E] float64 is −inf for latents that do not compete; `particles` [P] int64 are places among all latents
    that the island has measured; `measured` is the number of the E latents that each walk led to, which were evaluated
    together; `effective_share` is the effective size of the weights that led to this temperature, over P. `width` is b
    of the moves; `walked` and `accepted` are shares of accepted moves and ends of walks; `error`, in nats, and
    `explained`, a share of the variance, are the surrogate's on latents that were left out.
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
    """The folder of a tempered run."""

    def __init__(self, path: Path, spec: TemperedSpec) -> None:
        self.path = path
        self.spec = spec

    @classmethod
    def open(cls, path: Path) -> "TemperedRun":
        """Open the run in a folder."""
        folder, remedy = ResultFolder(path, TEMPERED), "use the magnet that made it, or remove it"
        fields = folder.read()
        try:
            spec = TemperedSpec(**fields["spec"] | {"schedule": Schedule(**fields["spec"]["schedule"])})
            if spec.fingerprint != fields["fingerprint"]:
                raise SampleError(f"the fingerprint in {folder.document} is not that of its spec", remedy)
        except (KeyError, TypeError) as error:
            message = f"{folder.document} is not one this magnet ({__version__}) knows: {error}"
            raise SampleError(message, remedy) from error
        return cls(path, spec)

    def create(self) -> None:
        """Make the folder, where it is missing."""
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
        """Claim the run for this process, until the process ends."""
        if not self._locks.take(_AT_WORK):
            raise SampleError(
                f"another process is at work on {self.path}",
                "wait for it, then repeat the command: nothing is done twice",
            )

    def file(self, island: int, number: int) -> Path:
        """Return the path of a temperature, stored or not; its mark has the suffix .json."""
        return self.path / "islands" / f"island-{island:06d}-step-{number:03d}.h5"

    def write(self, island: int, number: int, step: Step) -> None:
        """Publish a temperature and its mark."""
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
        """Return the temperatures of an island that are stored, in order."""
        steps: list[Step] = []
        while self.file(island, len(steps)).with_suffix(".json").exists():
            steps.append(self._read(island, len(steps)))
        return steps

    def _read(self, island: int, number: int) -> Step:
        path = self.file(island, number)
        try:
            mark = documents.read(path.with_suffix(".json"))
            data = opening.read(path, self.path)
        except MagnetError as error:
            raise DamageError(error.message, _REMEDY) from error
        expected = (FORMAT, self.spec.fingerprint, island, number)
        if tuple(mark.get(name) for name in ("format", "fingerprint", "island", "step")) != expected:
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
            raise DamageError(f"{path} is not a temperature that magnet wrote: {error}", _REMEDY) from error
        if sum(measured) != len(arrays["latents"]):
            raise DamageError(f"{path} has arrays of different lengths", _REMEDY)
        fields: dict[str, Any] = {"labels": None} | {name: array.copy() for name, array in arrays.items()} | numbers
        return Step(**fields, measured=measured)

    def islands(self) -> list[int]:
        """Return the numbers of the islands that were begun."""
        with atomic.explained("read", self.path):
            names = [path.name for path in (self.path / "islands").glob("island-*-step-000.json")]
        return sorted(int(name.split("-")[1]) for name in names)

    def check(self) -> list[str]:
        """Read every byte again; return a sentence on each problem."""
        problems = []
        for path in sorted((self.path / "islands").glob("island-*.json")):
            _, island, _, number = path.stem.split("-")
            try:
                self._read(int(island), int(number))
            except MagnetError as error:
                problems.append(error.message)
        files = sorted((self.path / "islands").glob("island-*.h5"))
        unmarked = [path for path in files if not path.with_suffix(".json").exists()]
        return problems + [f"{path} has no mark: it does not count" for path in unmarked]
