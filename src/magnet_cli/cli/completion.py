"""Shell completion: names of artifacts and paths of volumes on this machine. Needs no torch, and never fails."""

from collections.abc import Iterator
from pathlib import Path

from magnet_cli.errors import MagnetError


def generators(incomplete: str) -> list[str]:
    """Return names of generators that begin with what was typed."""
    return _artifacts(incomplete, {"generator"})


def artifacts(incomplete: str) -> list[str]:
    """Return names of artifacts of every kind."""
    return _artifacts(incomplete)


def image_models(incomplete: str) -> list[str]:
    """Return names of image models."""
    return _artifacts(incomplete, {"image-model"})


def volumes(incomplete: str) -> list[str]:
    """Return names of published volumes, and paths of volumes on this machine."""
    return _artifacts(incomplete, {"volume"}) + volume_paths(incomplete)


def targets(incomplete: str) -> list[str]:
    """Return names of generators and volumes, and paths of volumes on this machine."""
    return _artifacts(incomplete, {"generator", "volume"}) + volume_paths(incomplete)


def volume_paths(incomplete: str) -> list[str]:
    """Return paths of volumes: those under MAGNET_HOME, and those in the folder typed, or in the working folder."""
    return sorted({path for path in map(str, _volumes(incomplete)) if path.startswith(incomplete)})


def _artifacts(incomplete: str, kinds: set[str] | None = None) -> list[str]:
    from magnet_cli.catalog import entries

    try:
        listed = entries.registry().values()
    except MagnetError:  # the user's own list is wrong; the command will say so
        return []
    names = (artifact.name for artifact in listed if kinds is None or artifact.kind in kinds)
    return [name for name in names if name.startswith(incomplete)]


def _volumes(incomplete: str) -> Iterator[Path]:
    from magnet_cli.catalog import cache

    try:
        homes = [home / "volumes" for home in cache.homes()]
    except MagnetError:
        homes = []
    for folder in (Path(incomplete.rpartition("/")[0] or ("/" if incomplete.startswith("/") else ".")), *homes):
        yield from (document.parent for document in folder.glob("*/volume.json"))
