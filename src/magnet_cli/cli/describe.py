"""Say what a path or a name is: volume, index, sample, rendering, sweep, edit, direction, checkpoint or other artifact.

Owns telling them apart and their description. The checks themselves belong to what is checked.
"""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from magnet_cli.catalog import cache, entries
from magnet_cli.catalog.checkpoint import Checkpoint
from magnet_cli.editing.kinds import EDIT
from magnet_cli.errors import ArtifactError, MagnetError
from magnet_cli.evaluating.kinds import ATTRIBUTES, SWEEP
from magnet_cli.files import documents
from magnet_cli.files.results import Kind, ResultFolder
from magnet_cli.sampling.kinds import RENDERING, SAMPLE
from magnet_cli.volume import Volume

if TYPE_CHECKING:
    from magnet_cli.models import Generator
    from magnet_cli.models.custom import CustomModule

KINDS = (SAMPLE, RENDERING, SWEEP, EDIT, ATTRIBUTES)  # those whose documents alone say what a folder is


def describe(reference: str, *, check: bool, family: str = "") -> dict:
    """Describe a path or the name of an artifact: kind, path, spec, ok, problems; `check` reads every byte again.

    `family` is the architecture of a checkpoint, where the file does not tell it.
    """
    path = Path(reference).expanduser()
    if path.exists():
        return _of_path(path, check=check, family=family)
    if os.sep in reference:
        message = f"there is nothing at {reference}"
        raise ArtifactError(message, "pass the path of a volume, index, sample, rendering or checkpoint, or a name")
    artifact = entries.find(reference)
    if artifact.kind == "generator":
        return _generator(Checkpoint.find(reference, family=family), "generator", check=check)
    cache.check_cached(artifact)
    stored = cache.path_of(artifact)
    problems = _problems(lambda: cache.verify(artifact, stored)) if check else []
    if artifact.kind == "volume":
        fields = _volume(stored, check=check)
        return _with(fields, problems + fields["problems"])
    return _with({"kind": artifact.kind, "path": str(stored)} | dataclasses.asdict(artifact), problems)


def describe_own(own: "CustomModule") -> dict:
    """Describe a generator of the user's own; its factory is called once more."""
    from magnet_cli import models

    fields = {"kind": "generator", "path": own.factory, "generator": own.name, "sha256": own.sha256}
    seen = {"intensities": [float(f"{each:.4g}") for each in own.intensities], "classes": list(own.classes)}
    seen |= {"key": own.key} if own.key else {}
    return _with(fields | _network(models.load(own, device="cpu")) | seen, [])


def _of_path(path: Path, *, check: bool, family: str) -> dict:
    if (path / "volume.json").exists():
        return _volume(path, check=check)
    for kind in KINDS:
        if (path / kind.document).exists():
            return _output(path, kind, check=check)
    if (path / "tempered.json").exists():
        return _tempered(path, check=check)
    if path.is_dir():
        message = f"{path} is a folder that holds neither volume.json nor sample.json nor rendering.json nor sweep.json"
        raise ArtifactError(message, "pass the folder that `magnet compute`, `sample` or `render` printed")
    if path.suffix == ".npy":
        return _direction(path)
    if path.suffix == ".h5" and path.with_suffix(".json").is_file():
        return _index(path, check=check)
    return _generator(Checkpoint.find(str(path), family=family), "checkpoint", check=check)


def _volume(path: Path, *, check: bool) -> dict:
    volume = Volume.open(path)
    fields = {"kind": "volume", "path": str(path), "fingerprint": volume.fingerprint} | dataclasses.asdict(volume.spec)
    problems = volume.check() if check else []
    try:
        fields |= {"rows": volume.num_rows, "shards": len(volume.shards())}
    except MagnetError as error:
        fields |= {"rows": None, "shards": len(volume.shards())}
        problems = problems or [error.message]
    return _with(fields, problems)


def _output(path: Path, kind: Kind, *, check: bool) -> dict:
    fields = ResultFolder(path, kind).read()
    kept = {k: v for k, v in fields.items() if k not in {"report", "format"}}
    if isinstance(evaluations := fields.get("evaluations"), list):
        kept["evaluations"] = len(evaluations)  # `magnet report` shows them
    return _with({"kind": kind.name, "path": str(path)} | kept, _output_problems(path, kind) if check else [])


def _output_problems(path: Path, kind: Kind) -> list[str]:
    if kind is not SWEEP:
        return ResultFolder(path, kind).check()
    from magnet_cli.evaluating import sweep

    return sweep.check(path)


def _tempered(path: Path, *, check: bool) -> dict:
    from magnet_cli.sampling.tempered.run import TemperedRun

    run = TemperedRun.open(path)
    fields = {"kind": "tempered", "path": str(path), "fingerprint": run.spec.fingerprint}
    fields |= dataclasses.asdict(run.spec) | {"islands": len(run.islands())}
    return _with(fields, run.check() if check else [])


def _direction(path: Path) -> dict:
    from magnet_cli.editing import direction

    fields = {"kind": "direction", "path": str(path)}
    if problems := _problems(lambda: direction.read(path)):  # every byte, always: it is small
        return _with(fields, problems)
    learned = direction.read(path)
    kept = {k: v for k, v in learned.fields.items() if k not in {"report", "format"}}
    return _with(fields | {"numbers": learned.vector.shape[1], "sha256": learned.sha256} | kept, [])


def _index(path: Path, *, check: bool) -> dict:
    mark = documents.read(path.with_suffix(".json"))
    kind = mark.get("kind", "shard")
    fields = {"kind": kind, "path": str(path)} | {k: v for k, v in mark.items() if k not in {"kind", "parts"}}
    wrong = check and documents.sha256_file(path) != mark.get("sha256")
    return _with(fields, [f"{path} was changed after it was written"] if wrong else [])


def _generator(checkpoint: Checkpoint, kind: str, *, check: bool) -> dict:
    from magnet_cli import models

    fields: dict[str, object] = {"kind": kind, "path": str(checkpoint.path)}
    fields |= {"generator": checkpoint.name, "sha256": checkpoint.sha256}
    problems = _problems(checkpoint.read) if check else []
    if not problems:
        loaded = models.load(checkpoint, device="cpu")
        fields |= {"format": loaded.format, "weights": loaded.place, "beside": list(loaded.others)}
        fields |= {"settings": loaded.settings, "assumed": loaded.assumed} | _network(loaded)
    return _with(fields, problems)


def _network(loaded: "Generator") -> dict:
    fields = {"family": loaded.family, "latent_dim": loaded.latent_dim, "image_shape": list(loaded.image_shape)}
    fields |= {"prior": loaded.prior.kind, "num_classes": loaded.num_classes, "style_dim": loaded.style_dim}
    if loaded.nvae_latents:
        fields |= {"nvae_latents": loaded.nvae_latents}
    if loaded.noise:
        fields |= {"noise": loaded.noise}
    if loaded.prior.mixture is not None:
        fields |= {"weights": loaded.prior.mixture.weights.tolist()}
    if loaded.is_custom:
        fields |= {"image_range": list(loaded.image_range or (-1.0, 1.0))}
    return fields | {"parameters": loaded.num_parameters}


def _problems(verify: Callable[[], object]) -> list[str]:
    try:
        verify()
    except MagnetError as error:
        return [error.message]
    return []


def _with(fields: dict, problems: list[str]) -> dict:
    return fields | {"ok": not problems, "problems": problems}
