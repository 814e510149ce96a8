"""A training run on disk: a folder whose files appear whole, from which it goes on as if it had never stopped.

    run.json                 what is trained, by what recipe; once it is done, the report
    <run>.safetensors        the generator as it is, named like the folder: any command takes it
    state.safetensors        everything else that training goes on from, the random numbers' state included
    log.jsonl                a line a report: losses, weights, metrics
    grids/step-000500.png    what it draws

Owns these files, and that they are of one run. The state decides: what a killed process wrote beyond it is written
anew. Nothing is pickled.
"""

import dataclasses
import json
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from magnet_cli import __version__
from magnet_cli.errors import DamageError
from magnet_cli.files import atomic, documents
from magnet_cli.files.checkpoints import safetensors_file
from magnet_cli.files.results import Kind, ResultFolder
from magnet_cli.training.slogan.data import DataSet
from magnet_cli.training.slogan.stein import LearnedMixture
from magnet_cli.training.slogan.trainer import Recipe, Trainer

FORMAT = 1
_STATE, _LOG, _GRIDS = "state.safetensors", "log.jsonl", "grids"
_PARTS = ("logits", "means", "factors")
RUN = Kind("run", FORMAT, noun="training run", fields={"report": (dict, type(None)), "generator": str}, early=True)


@dataclass(frozen=True)
class RunSpec:
    """Exactly what decides the weights of a run, on one device.

    Attributes:
        data: what was asked for; the name alone decides nothing.
        data_sha256: of the values.
        probe_sha256: of labelled samples and their labels; empty where there are none.
        recipe: of the training.
    """

    data: str = field(compare=False)
    data_sha256: str
    probe_sha256: str
    recipe: Recipe

    @classmethod
    def of(cls, data: DataSet, probe: DataSet | None, recipe: Recipe) -> "RunSpec":
        """Return the spec of a training."""
        if probe is None or probe.labels is None:
            return cls(data.name, data.sha256, "", recipe)
        labelled = documents.sha256_bytes(probe.sha256.encode() + probe.labels.tobytes())
        return cls(data.name, data.sha256, labelled, recipe)


class Run:
    """The folder of a run, there or not."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._folder = ResultFolder(path, RUN)
        self._name = f"{path.resolve().name}.safetensors"

    @property
    def generator(self) -> Path:
        """The checkpoint of its generator."""
        return self.path / self._name

    def begun(self, spec: RunSpec) -> bool:
        """Whether that very run is in the folder.

        Raises:
            SampleError: the folder holds another run (all differing settings are named), or other files.
            MagnetError: run.json is damaged.
        """
        if not self._folder.begun(spec):
            return False
        self._document()
        return True

    def report(self) -> dict | None:
        """What a finished run says of itself; None where it is not finished.

        Raises:
            MagnetError: run.json is damaged.
            DamageError: the generator is not the one that was written.
        """
        fields = self._document()
        if fields["report"] is not None and documents.sha256_file(self.generator) != fields["generator_sha256"]:
            message = f"{self.generator} was changed after it was written"
            raise DamageError(message, "train again with `force=True`")
        return fields["report"]

    def _document(self) -> dict:
        fields = self._folder.read()
        self._name = fields["generator"]  # the folder may have been renamed since
        return fields

    def writing(self, spec: RunSpec, *, force: bool = False) -> AbstractContextManager[dict | None]:
        """Hold the folder for a block, as `ResultFolder.writing`."""
        return self._folder.writing(spec, force=force)

    def start(self, spec: RunSpec, *, force: bool = False) -> None:
        """Make the folder, and say in it what it is going to be; with `force` it is emptied first.

        Raises:
            SampleError: the folder is none of a run.
            MagnetError: no space, no permission.
        """
        if force or not self._folder.begun(spec):
            self._folder.discard()
        atomic.make_folder(self.path / _GRIDS)
        atomic.sweep(self.path)
        self._publish(spec, None, "")

    def save(self, trainer: Trainer, log: list[dict]) -> None:
        """Keep all that training goes on from, and the generator as it is.

        Raises:
            MagnetError: no space, no permission; what was kept before is still there.
        """
        atomic.publish(self.generator, safetensors_file.write(generator_state(trainer), {}))
        atomic.publish(self.path / _LOG, documents.encode_lines(log))
        atomic.publish(self.path / _STATE, save(_state(trainer), {"format": str(FORMAT), "log": json.dumps(log)}))

    def restore(self, trainer: Trainer) -> list[dict] | None:
        """Bring a new trainer to where the run was kept last; its log until then. None where nothing was kept yet.

        Raises:
            DamageError: the state is damaged.
            MagnetError: it cannot be read.
        """
        path = self.path / _STATE
        if not path.exists():
            return None
        with atomic.explained("read", path):
            data = path.read_bytes()
        try:
            tensors = load(data)
            header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
            _restore(trainer, tensors)
            return json.loads(header["log"])
        except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
            message = f"{path} is damaged: {next(iter(str(error).splitlines()), type(error).__name__)}"
            raise DamageError(message, "train again with `force=True`") from error

    def publish_grid(self, step: int, data: bytes) -> None:
        """Keep a picture of what is drawn at a step.

        Raises:
            MagnetError: no space, no permission.
        """
        atomic.publish(self.path / _GRIDS / f"step-{step:06d}.png", data, durable=False)

    def log(self, log: list[dict]) -> None:
        """Write the log as it is.

        Raises:
            MagnetError: no space, no permission.
        """
        atomic.publish(self.path / _LOG, documents.encode_lines(log), durable=False)

    def finish(self, spec: RunSpec, report: dict) -> None:
        """Write the report: from now on the run is whole.

        Raises:
            MagnetError: no space, no permission.
        """
        self._publish(spec, report, documents.sha256_file(self.generator))

    def _publish(self, spec: RunSpec, report: dict | None, sha256: str) -> None:
        fields: dict[str, object] = {"spec": dataclasses.asdict(spec), "report": report}
        fields |= {"generator": self._name, "generator_sha256": sha256}
        self._folder.publish(fields | {"magnet": __version__, "torch": torch.__version__})


def generator_state(trainer: Trainer) -> dict[str, Tensor]:
    """The state dict of a generator of the family slogan."""
    mixture = trainer.mixture()
    state = {f"body.{name}": value.cpu() for name, value in trainer.networks["generator"].state_dict().items()}
    named = {"weights": mixture.weights, "means": mixture.means, "factors": mixture.factors}
    return state | {f"mixture.{name}": torch.from_numpy(value) for name, value in named.items()}


def _state(trainer: Trainer) -> dict[str, Tensor]:
    found = {f"prior.{name}": getattr(trainer.prior, name).contiguous() for name in _PARTS}
    found |= {"rng": trainer.rng.get_state(), "step": torch.tensor(trainer.step)}
    for name, network in trainer.networks.items():
        found |= {f"{name}.{key}": value.cpu().contiguous() for key, value in network.state_dict().items()}
        for number, kept in trainer.optimizers[name].state_dict()["state"].items():
            found |= {f"adam.{name}.{number}.{key}": value.cpu().contiguous() for key, value in kept.items()}
    return found


def _restore(trainer: Trainer, tensors: dict[str, Tensor]) -> None:
    trainer.prior = LearnedMixture(*(tensors[f"prior.{name}"] for name in _PARTS))
    trainer.rng.set_state(tensors["rng"])
    trainer.step = int(tensors["step"])
    for name, network in trainer.networks.items():
        network.load_state_dict({key: tensors[f"{name}.{key}"] for key in network.state_dict()})
        optimizer = trainer.optimizers[name]
        kept: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith(f"adam.{name}."):
                _, _, number, part = key.split(".")
                kept.setdefault(int(number), {})[part] = value
        optimizer.load_state_dict({"state": kept, "param_groups": optimizer.state_dict()["param_groups"]})
