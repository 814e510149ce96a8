"""The cache: artifacts to paths below MAGNET_HOME, and verification of size and sha256 before a file is used."""

import contextlib
import dataclasses
import os
import time
from pathlib import Path

from magnet_cli.catalog import manifest, sources
from magnet_cli.catalog.entries import MANIFEST, Artifact
from magnet_cli.catalog.lockfile import Lockfile
from magnet_cli.errors import ArtifactError, MagnetError
from magnet_cli.files import documents, opening
from magnet_cli.files.text import quoted

BUILT_IN = Path(__file__).parents[1] / "assets"
VOLUME = "volume"  # the folder, beside a file of published arrays, of the volume made from them
CHANGED = "fetch it again; if that does not help, its publisher has changed the file"


def home() -> Path:
    """Return MAGNET_HOME, else $XDG_CACHE_HOME/magnet, else ~/.cache/magnet. Nothing is created."""
    if own := os.environ.get("MAGNET_HOME"):
        return Path(own).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "magnet"


def homes() -> list[Path]:
    """Return the folders that cached files are looked for in: `home()`, then MAGNET_SHARED_HOME, which is only read."""
    shared = os.environ.get("MAGNET_SHARED_HOME")
    return [home(), *([Path(shared).expanduser()] if shared else [])]


def volume_path(name: str, fingerprint: str) -> Path:
    """Return the folder of a volume for which no folder is named: MAGNET_HOME/volumes/NAME-FINGERPRINT."""
    return home() / "volumes" / f"{name}-{fingerprint[:12]}"


def offline() -> bool:
    """Return whether MAGNET_OFFLINE=1 forbids the network."""
    return os.environ.get("MAGNET_OFFLINE") == "1"


def pinned(artifact: Artifact) -> Artifact:
    """Return the artifact with the sha256 and size of its entry, or else with those recorded at its first use.

    Raises:
        ArtifactError: artifacts.lock is damaged.
    """
    if artifact.sha256:
        return artifact
    for folder in homes():
        if record := Lockfile(folder).seen(artifact.source):
            return dataclasses.replace(artifact, sha256=record["sha256"], size=record["size"])
    return artifact


def file_of(artifact: Artifact) -> Path:
    """Return the path of the file that the artifact's source names, fetched or not."""
    rest = artifact.source.partition(":")[2]
    if artifact.scheme == "builtin":
        return BUILT_IN / rest
    if artifact.scheme == "file":
        return Path(rest).expanduser()
    if artifact.scheme == "hub" and (path := sources.hub_cached(artifact)):
        return path
    return _first_existing(artifact, artifact.file_name)


def path_of(artifact: Artifact) -> Path:
    """Return the path of what commands use, fetched or not: the artifact's file, or the folder of a volume."""
    if artifact.form == "npz":
        return _first_existing(artifact, VOLUME)
    file = file_of(artifact)
    return file.parent if artifact.form == "manifest" else file


def folder_of(artifact: Artifact, base: Path | None = None) -> Path:
    """Return the folder of an artifact below `base`, by default below `home()`."""
    key = artifact.sha256 or documents.sha256_bytes(artifact.source.encode())
    return (base or home()) / "artifacts" / key[:12]


def _first_existing(artifact: Artifact, name: str) -> Path:
    paths = [folder_of(artifact, base) / name for base in homes()]
    return next((path for path in paths if path.exists()), paths[0])


def is_cached(artifact: Artifact) -> bool:
    """Return whether an artifact is in the cache, by name and size; its bytes are verified when they are read.

    Raises:
        ArtifactError: artifacts.lock is damaged.
    """
    if artifact.form == "npz":
        return path_of(artifact).is_dir()
    if artifact.form == "manifest":
        return is_file_cached(artifact) and not _manifest_problems(file_of(artifact), hashed=False)
    return is_file_cached(artifact)


def is_file_cached(artifact: Artifact) -> bool:
    """Return whether the file of the artifact's source is in the cache, by name and size, with a sha256 to verify."""
    pin, path = pinned(artifact), file_of(artifact)
    fits = path.is_dir() or (path.is_file() and pin.size in {0, path.stat().st_size})
    return fits and bool(pin.sha256)


def check_cached(artifact: Artifact) -> None:
    """Check that an artifact is in the cache.

    Raises:
        ArtifactError: it is not; the hint is the command that fetches it.
    """
    if not is_cached(artifact):
        message = f"{artifact.name} is not in the cache ({artifact.size_text}, {artifact.license})"
        raise ArtifactError(message, f"get it first: magnet fetch {artifact.name}")


def _manifest_problems(path: Path, *, hashed: bool) -> list[str]:
    try:
        entries = manifest.read(path)
    except MagnetError as error:
        return [error.message]
    return [text for entry in entries if (text := manifest.problem(path.parent, entry, hashed=hashed))]


def size_here(artifact: Artifact) -> int:
    """Return the bytes that a cached artifact takes, without the file it was made from."""
    path = path_of(artifact)
    return sum(p.stat().st_size for p in path.rglob("*") if p.is_file()) if path.is_dir() else path.stat().st_size


def verify(artifact: Artifact, path: Path, hint: str = "") -> None:
    """Compare the bytes of an artifact with its pinned or recorded sha256.

    Args:
        artifact: the artifact.
        path: its file, or the folder of its volume.
        hint: the hint of the error; by default the commands that fetch the artifact again.

    Raises:
        ArtifactError: size or sha256 differ.
    """
    pin = pinned(artifact)
    hint = hint or f"remove it and fetch it again: magnet cache rm {artifact.name}; magnet fetch {artifact.name}"
    mark_used(path)
    if artifact.form == "npz" and path.name == VOLUME:  # its shards are verified one by one, whenever they are read
        spec = documents.read(path / "volume.json").get("spec")
        if not isinstance(spec, dict) or spec.get("imported_sha256") != pin.sha256:
            message = f"the volume in {path} was not made from the file of {artifact.name}, sha256 {pin.sha256}"
            raise ArtifactError(message, hint)
    elif artifact.form == "manifest" and path.is_dir():
        verify_file(pin, path / MANIFEST, hint)
        if problems := _manifest_problems(path / MANIFEST, hashed=True):
            raise ArtifactError(f"{artifact.name} is not what was published: {'; '.join(problems[:3])}", hint)
    else:
        verify_file(pin, path, hint)


def verify_file(pin: Artifact, path: Path, hint: str = CHANGED) -> None:
    """Compare the bytes at `path` with the sha256 of `pin` and, unless it is 0, its size.

    Raises:
        ArtifactError: they differ.
    """
    if path.is_dir():
        sha256, size = documents.sha256_folder(path)
    else:
        size = path.stat().st_size
        sha256 = documents.sha256_file(path) if pin.size in {0, size} else "not computed"
    if pin.size in {0, size} and sha256 == pin.sha256:
        return
    expected = f"{pin.size:,} bytes, " if pin.size else ""
    message = f"{pin.name} is not what was pinned: asked for {expected}sha256 {pin.sha256}; "
    message += f"found {size:,} bytes, sha256 {sha256}"
    where = f" ({path.resolve()})" if not path.name.startswith(".") else ""
    raise ArtifactError(message + where, hint)


def mark_used(path: Path) -> None:
    """Set the access time of an artifact below `home()` to now, where that is possible."""
    if path.is_relative_to(home()):
        file = timekeeper(path)
        with contextlib.suppress(OSError):  # a read-only disk
            os.utime(file, ns=(time.time_ns(), file.stat().st_mtime_ns))


def timekeeper(path: Path) -> Path:
    """Return the file whose access time tells when an artifact was last used; listing a folder changes the folder's."""
    return path / "volume.json" if path.is_dir() else path


def read(artifact: Artifact) -> bytes:
    """Return the verified bytes of a cached artifact.

    Raises:
        ArtifactError: it is not in the cache, or not what was pinned.
        MagnetError: it cannot be read.
    """
    check_cached(artifact)
    return read_verified(path_of(artifact), pinned(artifact).sha256, artifact.name)


def read_verified(path: Path, sha256: str, reference: str) -> bytes:
    """Return the bytes of a file.

    Args:
        path: the file.
        sha256: the hash that the bytes must have.
        reference: what `magnet fetch` takes to get the file again.

    Raises:
        ArtifactError: the bytes have another hash.
        MagnetError: the file cannot be read.
    """
    data = opening.read(path)
    if documents.sha256_bytes(data) != sha256:
        message = f"{path} is not what was pinned: its sha256 is not {sha256}"
        raise ArtifactError(message, f"remove that file and fetch it again: magnet fetch {quoted(reference)}")
    mark_used(path)
    return data
