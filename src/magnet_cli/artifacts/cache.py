"""The cache: verified files of artifacts under MAGNET_HOME, and the checkpoints that commands ask for.

Owns where things are kept and that nothing is visible or read unverified. Knows nothing of what the files mean.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from magnet_cli import files
from magnet_cli.artifacts import registry, sources
from magnet_cli.artifacts.registry import Artifact
from magnet_cli.errors import ArtifactError

BUILT_IN = Path(__file__).parents[1] / "assets"
DEFAULT_GENERATOR = "mnist"
_CHANGED = "fetch it again; if that does not help, its publisher has changed the file"


def home() -> Path:
    """MAGNET_HOME, else $XDG_CACHE_HOME/magnet, else ~/.cache/magnet. Nothing is created."""
    if own := os.environ.get("MAGNET_HOME"):
        return Path(own).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "magnet"


def path_of(artifact: Artifact) -> Path:
    """Where the artifact's file is, or will be once fetched."""
    rest = artifact.source.partition(":")[2]
    if artifact.scheme == "builtin":
        return BUILT_IN / rest
    if artifact.scheme == "file":
        return Path(rest).expanduser()
    if artifact.scheme == "hub" and (found := sources.hub_file(artifact, download=False)):
        return found
    return home() / "artifacts" / artifact.sha256[:12] / artifact.file_name


def is_cached(artifact: Artifact) -> bool:
    """Whether it is there, by name and size; its bytes are verified when they are read."""
    path = path_of(artifact)
    return path.is_dir() or (path.is_file() and path.stat().st_size == artifact.size)


def verify(artifact: Artifact, path: Path, hint: str = "") -> None:
    """Compare the bytes at `path` with what the artifact's entry says; `hint`: what to do where they differ.

    Raises:
        ArtifactError: size or sha256 differ.
    """
    if path.is_dir():
        sha256, size = files.sha256_folder(path)
    else:
        size = path.stat().st_size
        sha256 = files.sha256_file(path) if size == artifact.size else "not computed"
    if (size, sha256) != (artifact.size, artifact.sha256):
        message = (
            f"{artifact.name} is not what was pinned: asked for {artifact.size:,} bytes, sha256 {artifact.sha256}; "
            f"found {size:,} bytes, sha256 {sha256}"
        )
        hint = hint or f"remove {path.resolve()} and fetch it again: magnet fetch {artifact.name}"
        raise ArtifactError(message, hint)


def read(artifact: Artifact) -> bytes:
    """The verified bytes of an artifact that is in the cache.

    Raises:
        ArtifactError: it is not in the cache, or not what was pinned.
        MagnetError: it cannot be read.
    """
    if not is_cached(artifact):
        message = f"{artifact.name} is not in the cache ({artifact.size:,} bytes, {artifact.license})"
        raise ArtifactError(message, f"get it first: magnet fetch {artifact.name}")
    return Checkpoint(artifact.name, path_of(artifact), artifact.sha256, artifact.name).read()


def fetch(artifact: Artifact, *, accept_license: bool = False, advance: Callable[[int], None] = lambda _: None) -> bool:
    """Put an artifact's verified file into the cache, unless it is there.

    The file is had under a temporary name in its own folder, verified, and renamed: what is visible is whole and right.

    Args:
        artifact: what to fetch.
        accept_license: the user accepts a licence that forbids commercial use.
        advance: called with the number of bytes that arrived.

    Returns:
        True when it was downloaded, False when it was there.

    Raises:
        ArtifactError: licence not accepted, offline, unreachable, or the bytes differ; nothing is left behind.
        MagnetError: the cache cannot be written.
    """
    path = path_of(artifact)
    if is_cached(artifact):
        verify(artifact, path)
        return False
    if artifact.scheme in ("builtin", "file"):
        message = f"{artifact.name} should be at {path}, but there is no such file of {artifact.size:,} bytes"
        raise ArtifactError(message, "install magnet again" if artifact.scheme == "builtin" else "correct its source")
    if not (artifact.commercial_use or accept_license):
        message = (
            f"{artifact.name} is under a licence that forbids commercial use: {artifact.license} "
            f"({artifact.size:,} bytes from {artifact.source})"
        )
        hint = f"read the licence; to accept it: magnet fetch {artifact.name} --accept-license"
        raise ArtifactError(message, hint)
    if os.environ.get("MAGNET_OFFLINE") == "1":
        message = f"{artifact.name} is not in the cache, and MAGNET_OFFLINE=1 forbids to fetch it"
        raise ArtifactError(message, f"unset MAGNET_OFFLINE, or place the file at {path}")
    if artifact.scheme == "hub":
        _fetch_from_hub(artifact)
        return True
    with _created(path.parent):
        part = files.temporary(path)
        try:
            with files.explained("write", part):
                sources.download(artifact, part, place=path, advance=advance)
                verify(artifact, part, _CHANGED)
                part.replace(path)
                files.sync_folder(path.parent)
        finally:
            part.unlink(missing_ok=True)
    return True


def _fetch_from_hub(artifact: Artifact) -> None:
    """Into the hub's own cache, where the user's other tools find it too; what differs is removed again."""
    path = sources.hub_file(artifact, download=True)
    try:
        verify(artifact, path, _CHANGED)
    except ArtifactError:
        path.resolve().unlink()
        path.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def _created(folder: Path) -> Iterator[None]:
    """Make a folder for the block; when the block fails, take away what was made, where it is empty."""
    missing = [p for p in (folder, *folder.parents) if not p.exists()]
    files.make_folder(folder)
    files.sweep(folder)
    try:
        yield
    except BaseException:
        for made in missing:
            with contextlib.suppress(OSError):
                made.rmdir()
        raise


@dataclass(frozen=True)
class Checkpoint:
    """A generator's file on this machine.

    Attributes:
        name: the artifact's name, or the file's name without its ending.
        path: where it is.
        sha256: what its bytes must hash to: pinned, or as found for a file of the user's own.
        reference: what the user typed, to be shown in commands to copy.
        family: what the artifact's entry says it is; empty for a file, whose weights tell.
    """

    name: str
    path: Path
    sha256: str
    reference: str
    family: str = ""

    def read(self) -> bytes:
        """The bytes, verified.

        Raises:
            ArtifactError: they changed since they were verified.
            MagnetError: they cannot be read.
        """
        with files.explained("read", self.path):
            data = self.path.read_bytes()
        if files.sha256_bytes(data) != self.sha256:
            message = f"{self.path} is not what was pinned: its sha256 is not {self.sha256}"
            raise ArtifactError(message, f"remove that file and fetch it again: magnet fetch {self.reference}")
        return data


def checkpoint(reference: str, *, here: bool = True) -> Checkpoint:
    """The generator a user means: a path of a checkpoint, or the name of an artifact that is in the cache.

    Args:
        reference: the path or name.
        here: whether the artifact has to be in the cache; where its name is enough, its pinned sha256 stands for it.

    Raises:
        ArtifactError: no such file, no such artifact, not a generator, or not fetched yet.
    """
    path = Path(reference).expanduser()
    if path.is_file():
        return Checkpoint(path.stem, path.resolve(), files.sha256_file(path), reference)
    if os.sep in reference:
        message = f"there is no checkpoint at {reference}"
        raise ArtifactError(message, "pass the path of a file, or a name from `magnet list`")
    artifact = registry.find(reference)
    if artifact.kind != "generator":
        message = f"{reference} is a {artifact.kind}, and a generator is asked for"
        raise ArtifactError(message, "`magnet list` shows the generators")
    if here and not is_cached(artifact):
        message = f"{reference} is not in the cache ({artifact.size:,} bytes, {artifact.license})"
        raise ArtifactError(message, f"get it first: magnet fetch {reference}")
    return Checkpoint(artifact.name, path_of(artifact), artifact.sha256, reference, artifact.family)
