"""Which volume and which index a command means, where the user does not name them.

Owns the order of preference: the user's own volumes before published and built-in ones, of several the longest.
"""

from pathlib import Path

from magnet_cli import index
from magnet_cli.artifacts import cache, registry
from magnet_cli.artifacts.cache import Checkpoint
from magnet_cli.console import Console
from magnet_cli.errors import MagnetError, VolumeError
from magnet_cli.index import Index
from magnet_cli.volume import Volume


def volume_path(name: str, fingerprint: str) -> Path:
    """Where `magnet compute` keeps a volume when no folder is named."""
    return cache.home() / "volumes" / f"{name}-{fingerprint[:12]}"


def volume(
    checkpoint: Checkpoint,
    console: Console,
    *,
    path: Path | None,
    top_k: int | None,
    solver: str | None,
    precision: str | None,
    truncation: float,
) -> Volume:
    """The volume to draw from.

    Args:
        checkpoint: of the generator.
        console: where the choice is named.
        path: the folder, if the user named one.
        top_k: k, if the user asked for one: at least as many singular values have to be stored.
        solver: how its values were computed, if the user cares.
        precision: likewise.
        truncation: ψ the volume was computed at.

    Raises:
        VolumeError: none fits; the `magnet compute` that would make it is named.
        MagnetError: the one that was named is damaged.
    """
    if path is not None:
        found = Volume.open(path)
        if found.spec.sha256 != checkpoint.sha256:
            message = f"{path} is a volume of {found.spec.generator} (sha256 {found.spec.sha256[:12]}…), "
            message += f"and {checkpoint.name} ({checkpoint.sha256[:12]}…) is asked for"
            raise VolumeError(message, f"pass the generator it belongs to: {found.spec.generator}")
        return found
    for candidates in (_own(console), _published(checkpoint.name)):
        fitting = [v for v in candidates if _fits(v, checkpoint.sha256, top_k, (solver, precision), truncation)]
        if fitting:
            longest = max(fitting, key=lambda v: v.num_rows)
            others = f", the longest of {len(fitting)}" if len(fitting) > 1 else ""
            console.note(f"drawing from {longest.path} ({longest.num_rows:,} rows{others})")
            return longest
    flags = "".join(
        f" --{name} {value}"
        for name, value in (("top-k", top_k), ("solver", solver), ("precision", precision), ("truncation", truncation))
        if value not in {None, 1.0}
    )
    message = f"there is no volume of {checkpoint.name}{f' with{flags}' if flags else ''}"
    raise VolumeError(message, f"make one: magnet compute {checkpoint.reference}{flags}")


def volume_for_rendering(
    checkpoint: Checkpoint,
    console: Console,
    *,
    path: Path | None,
    top_k: int | None,
    solver: str | None,
    precision: str | None,
    truncation: float,
) -> Volume:
    """As `volume`; where there is none at the truncation asked for, that without truncation, with a warning.

    Raises:
        VolumeError, MagnetError: as `volume`.
    """
    wanted = {"path": path, "top_k": top_k, "solver": solver, "precision": precision}
    try:
        found = volume(checkpoint, console, truncation=truncation, **wanted)
    except VolumeError:
        if truncation == 1 or path is not None:
            raise
        found = volume(checkpoint, console, truncation=1.0, **wanted)
    if found.spec.truncation != truncation:
        made = f"magnet compute {checkpoint.reference} --truncation {truncation:g}"
        console.warning(
            f"rows are drawn by their volume at truncation {found.spec.truncation:g}, images are rendered at "
            f"{truncation:g}; for one at {truncation:g}: {made}"
        )
    return found


def _fits(found: Volume, sha256: str, top_k: int | None, how: tuple[str | None, ...], truncation: float) -> bool:
    spec = found.spec
    same = spec.sha256 == sha256 and spec.truncation == truncation
    wanted = all(asked in {None, real} for asked, real in zip(how, (spec.solver, spec.precision), strict=True))
    return same and wanted and spec.top_k >= (top_k or 1) and bool(found.shards())


def _own(console: Console) -> list[Volume]:
    found = []
    for path in sorted((cache.home() / "volumes").glob("*/volume.json")):
        try:
            found.append(Volume.open(path.parent))
        except MagnetError as error:
            console.warning(f"{path.parent} is passed over: {error.message}")
    return found


def _published(generator: str) -> list[Volume]:
    found = []
    for artifact in registry.registry().values():
        if artifact.kind == "volume" and artifact.generator == generator and cache.is_cached(artifact):
            path = cache.path_of(artifact)
            cache.verify(artifact, path)
            found.append(Volume.open(path))
    return found


def index_of(found: Volume, top_k: int | None, console: Console) -> tuple[Index, Path]:
    """The index of a volume: the stored one where it is of just these rows, else built and stored.

    Args:
        found: the volume.
        top_k: k; default as the contract says.
        console: warned where the index cannot be stored.

    Returns:
        The index, and where it is kept.

    Raises:
        SpecError, VolumeError: as index.build.
    """
    k = top_k or index.default_top_k(found.spec.top_k, found.spec.latent_dim)
    path = index.path_of(cache.home() / "indices", found, k)
    if known := index.stored(path, found, k):
        return known, path
    built = index.build(found, k)
    try:
        index.store(built, found, path)
    except MagnetError as error:
        console.warning(f"the index is not kept: {error.message}")
    return built, path
