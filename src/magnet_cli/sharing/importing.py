"""Make a volume from published arrays."""

import dataclasses
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from magnet_cli.catalog import cache, entries, imagenet
from magnet_cli.catalog.checkpoint import Checkpoint
from magnet_cli.errors import VolumeError
from magnet_cli.sharing import published_arrays
from magnet_cli.sharing.published_arrays import Archive, Tally
from magnet_cli.volume import Shard, Volume
from magnet_cli.volume.spec import VolumeSpec

RANK_FLOOR = 1e-5  # the published values come from float32 products
_SHARD_WORK = 1 << 22  # numbers in a shard: 16 MB


@dataclass(frozen=True, kw_only=True)
class ImportRequest:
    """What `magnet import` is asked to do.

    Attributes:
        file: the npz file.
        generator: name or path of the generator its latents belong to; need not be in the cache.
        output: what the Jacobian was taken of.
        space: where the Jacobian's input lived.
        truncation: ψ it was taken at.
        label: class number of all rows, for a file without labels; None where the generator takes none.
        family: architecture of a checkpoint that this magnet cannot build.
        volume: folder of the volume; None for MAGNET_HOME/volumes/….
    """

    file: Path
    generator: str
    output: str = "pixel"
    space: str = "z"
    truncation: float = 1.0
    label: int | None = None
    family: str | None = None
    volume: Path | None = None


@dataclass(frozen=True)
class ImportPlan:
    """An import whose file is checked and whose volume is there.

    Attributes:
        archive: the file.
        spec: spec of the volume.
        volume: the volume.
        counts: rows, dropped_rows and sorted_rows of the file.
        num_missing: rows that are not in the volume yet.
    """

    archive: Archive
    spec: VolumeSpec
    volume: Volume
    counts: dict[str, int]
    num_missing: int

    @property
    def report(self) -> dict:
        """The fields that the command prints."""
        fields: dict[str, str | int] = {"volume": str(self.volume.path), "generator": self.spec.generator}
        fields |= {"fingerprint": self.spec.fingerprint}
        fields |= {name: self.counts[name] for name in ("rows", "dropped_rows", "sorted_rows")}
        return fields | {"top_k": self.spec.top_k}


def plan(request: ImportRequest) -> ImportPlan:
    """Check every number of the file, and make the volume.

    Raises:
        ArtifactError: the generator's name is unknown.
        SpecError, VolumeError: the file, or the request, does not fit the generator.
        MagnetError: a file cannot be read or written.
    """
    checkpoint = Checkpoint.find(request.generator, here=False)
    archive = published_arrays.open_archive(request.file)
    family, prior = _family_and_prior(checkpoint, request.family, archive.latents.width)
    spec = spec_of(
        archive,
        generator=checkpoint.name,
        sha256=checkpoint.sha256,
        family=family,
        prior=prior,
        space=request.space,
        output=request.output,
        truncation=request.truncation,
        label=() if request.label is None else (request.label,),
        num_classes=0 if request.label is None else _num_classes(checkpoint),
    )
    path = request.volume or cache.volume_path(checkpoint.name, spec.fingerprint)
    volume = Volume.planned(path, spec)
    if not volume.exists:
        volume = create(path, spec, published_arrays.inspect(archive), request.file.name)
    counts = volume.measured["imported"]
    return ImportPlan(archive, spec, volume, counts, counts["rows"] - volume.num_rows)


def run(plan: ImportPlan) -> Generator[int, None, dict]:
    """Write the missing rows.

    Yields:
        Rows that are safe on disk since the last time.

    Returns:
        The fields that the command prints.

    Raises:
        MagnetError: the file or the volume cannot be read or written.
    """
    for _, rows in fill(plan.volume, plan.archive, plan.counts["rows"]):
        yield rows
    return plan.report


def create(path: Path, spec: VolumeSpec, tally: Tally, source: str) -> Volume:
    """Make the volume of a checked file; `source` says where the file came from."""
    counts = {"rows": tally.rows, "dropped_rows": tally.dropped_rows, "sorted_rows": tally.sorted_rows}
    return Volume.create(path, spec, measured={"imported": counts | {"file": source}})


def fill(volume: Volume, archive: Archive, num_rows: int) -> Generator[tuple[int, int], None, None]:
    """Write the rows of a file that are missing in its volume.

    Args:
        volume: volume of `spec_of` the file.
        archive: the file, checked by `published_arrays.inspect`.
        num_rows: number of rows that `inspect` counted.

    Yields:
        (shard, rows in it), once they are safe on disk.

    Raises:
        MagnetError: the file or the volume cannot be read or written.
    """
    volume.settle()
    missing = dict(volume.missing(num_rows))
    size = volume.spec.shard_rows
    waiting: list[Shard] = []
    blocks = published_arrays.read_rows(archive, volume.spec.top_k, Tally())
    for shard in range(-(-num_rows // size)):
        count = min(size, num_rows - shard * size)
        while sum(len(block.latents) for block in waiting) < count:
            waiting.append(next(blocks))
        joined = Shard.join(waiting)
        waiting = [joined.part(slice(count, None))]
        if shard in missing:
            rows = joined.part(slice(count))
            if volume.spec.label:
                rows = dataclasses.replace(rows, labels=np.full(count, volume.spec.label[0], np.int64))
            volume.write(shard, rows)
            yield shard, count


def spec_of(
    archive: Archive,
    *,
    generator: str,
    sha256: str,
    family: str,
    prior: str,
    space: str,
    output: str,
    truncation: float,
    label: tuple[int, ...] = (),
    num_classes: int = 0,
) -> VolumeSpec:
    """Return the spec of the volume that a file becomes.

    Args:
        archive: the file.
        generator: name of the generator its latents belong to.
        sha256: hash of the generator's checkpoint.
        family: architecture of the generator.
        prior: prior of the latents; for "sphere" at most D − 1 singular values are kept.
        space: where the Jacobian's input lived.
        output: what the Jacobian was taken of.
        truncation: ψ it was taken at.
        label: (class,) of all rows of a file without labels, where the generator takes them.
        num_classes: number of classes of the generator.

    Raises:
        SpecError: a value outside its range.
        VolumeError: `label` is passed, and the file has labels of its own.
    """
    latent_dim = archive.latents.width
    if label and archive.labels:
        message = f"class {label[0]} is asked for, and {archive.path} has labels of its own"
        raise VolumeError(message, "leave `label` out")
    return VolumeSpec(
        generator=generator,
        sha256=sha256,
        family=family,
        prior=prior,
        latent_dim=latent_dim,
        space=space,
        output=output,
        truncation=truncation,
        top_k=min(archive.svds.width, latent_dim - (prior == "sphere")),
        solver="imported",
        precision="unknown",
        rank_floor=RANK_FLOOR,
        seed=0,
        shard_rows=int(np.clip(_SHARD_WORK // (latent_dim + archive.svds.width), 64, 100_000)),
        num_classes=num_classes,
        label=label,
        imported_sha256=archive.sha256,
    )


def _num_classes(checkpoint: Checkpoint) -> int:
    """Return the classes of a generator whose weights are here; else those of ImageNet."""
    from magnet_cli import models  # and with it torch

    return models.load(checkpoint, device="cpu").num_classes if checkpoint.path.exists() else imagenet.COUNT


def _family_and_prior(checkpoint: Checkpoint, family: str | None, latent_dim: int) -> tuple[str, str]:
    """Return family and prior: from the weights where they are here and can be built, else from the family's name."""
    name = family or checkpoint.family
    if family or not checkpoint.path.exists():
        return name, entries.prior_of(name)
    from magnet_cli import models

    if name and name not in models.FAMILIES:
        return name, entries.prior_of(name)
    loaded = models.load(checkpoint, device="cpu")
    if loaded.latent_dim != latent_dim:
        message = f"the latents in the file have {latent_dim} numbers, those of {checkpoint.name} {loaded.latent_dim}"
        raise VolumeError(message, "pass the generator that they belong to")
    return loaded.family, loaded.prior.kind
