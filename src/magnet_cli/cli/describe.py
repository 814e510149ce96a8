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


def describe(reference: str, *, check: bool) -> dict:
    """What it is, as fields: kind, path, its spec, ok, problems.

    Args:
        reference: a path, or the name of an artifact.
        check: re-read every byte.

    Raises:
        ArtifactError: there is no such path or name.
        MagnetError: it is of ours, but unreadable.
    """
    path = Path(reference).expanduser()
    if path.exists():
        return _of_path(path, check=check)
    if os.sep in reference:
        message = f"there is nothing at {reference}"
        raise ArtifactError(message, "pass the path of a volume, index, sample, rendering or checkpoint, or a name")
    artifact = entries.find(reference)
    if artifact.kind == "generator":
        return _generator(Checkpoint.find(reference), "generator", check=check)
    cache.check_cached(artifact)
    found = cache.path_of(artifact)
    problems = _problems(lambda: cache.verify(artifact, found)) if check else []
    if artifact.kind == "volume":
        fields = _volume(found, check=check)
        return _with(fields, problems + fields["problems"])
    return _with({"kind": artifact.kind, "path": str(found)} | dataclasses.asdict(artifact), problems)


def describe_own(own: "CustomModule") -> dict:
    """What a generator of the user's own is, as fields; its factory is called once more.

    Raises:
        ArtifactError, GeneratorError: as `models.load`.
    """
    from magnet_cli import models

    fields = {"kind": "generator", "path": own.factory, "generator": own.name, "sha256": own.sha256}
    return _with(fields | _network(models.load(own, device="cpu")), [])


def _of_path(path: Path, *, check: bool) -> dict:
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
    if path.suffix in {".h5", ".npy"}:
        return _direction(path) if path.suffix == ".npy" else _index(path, check=check)
    return _generator(Checkpoint.find(str(path)), "checkpoint", check=check)


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
    found = direction.read(path)
    kept = {k: v for k, v in found.fields.items() if k not in {"report", "format"}}
    return _with(fields | {"numbers": found.vector.shape[1], "sha256": found.sha256} | kept, [])


def _index(path: Path, *, check: bool) -> dict:
    mark_path = path.with_suffix(".json")
    if not mark_path.is_file():
        message = f"{path} is an HDF5 file without the mark {mark_path.name} beside it"
        raise ArtifactError(message, "pass an index that `magnet index` printed, or the folder of a volume")
    mark = documents.read(mark_path)
    kind = mark.get("kind", "shard")
    fields = {"kind": kind, "path": str(path)} | {k: v for k, v in mark.items() if k not in {"kind", "parts"}}
    wrong = check and documents.sha256_file(path) != mark.get("sha256")
    return _with(fields, [f"{path} was changed after it was written"] if wrong else [])


def _generator(checkpoint: Checkpoint, kind: str, *, check: bool) -> dict:
    from magnet_cli import models

    fields = {"kind": kind, "path": str(checkpoint.path), "generator": checkpoint.name, "sha256": checkpoint.sha256}
    problems = _problems(checkpoint.read) if check else []
    if not problems:
        found = models.load(checkpoint, device="cpu")
        fields |= {"format": found.format, "settings": found.settings} | _network(found)
    return _with(fields, problems)


def _network(found: "Generator") -> dict:
    fields = {"family": found.family, "latent_dim": found.latent_dim, "image_shape": list(found.image_shape)}
    fields |= {"prior": found.prior.kind, "num_classes": found.num_classes, "style_dim": found.style_dim}
    if found.nvae_latents:
        fields |= {"nvae_latents": found.nvae_latents, "noise": found.noise}
    if found.prior.mixture is not None:
        fields |= {"weights": found.prior.mixture.weights.tolist()}
    if found.is_custom:
        fields |= {"image_range": list(found.image_range or (-1.0, 1.0))}
    return fields | {"parameters": found.num_parameters}


def _problems(verify: Callable[[], object]) -> list[str]:
    try:
        verify()
    except MagnetError as error:
        return [error.message]
    return []


def _with(fields: dict, problems: list[str]) -> dict:
    return fields | {"ok": not problems, "problems": problems}
