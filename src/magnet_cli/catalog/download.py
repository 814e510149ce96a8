"""Fetch artifacts into the cache: the licence is accepted, the file is trusted, the bytes are verified.

A file arrives under a hidden name in its own folder, is verified, and then renamed. One process at a time fetches an
artifact; others wait, and then find it in the cache.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

from magnet_cli.catalog import cache, https, manifest, safe_formats, sources
from magnet_cli.catalog.cache import CHANGED
from magnet_cli.catalog.entries import Artifact
from magnet_cli.catalog.lockfile import Lockfile
from magnet_cli.errors import ArtifactError
from magnet_cli.files import atomic, documents
from magnet_cli.files.locks import Locks


def fetch(
    artifact: Artifact,
    *,
    accept_license: bool = False,
    trust: bool = False,
    advance: Callable[[int], None] = lambda _: None,
) -> bool:
    """Put the verified file of an artifact into the cache, unless it is there.

    Args:
        artifact: the artifact.
        accept_license: the user accepts a licence that forbids commercial use; remembered.
        trust: the user trusts a file without pinned sha256 whose format could carry code.
        advance: called with the number of bytes that arrived.

    Returns:
        True when the file was downloaded, False when it was there.

    Raises:
        ArtifactError: licence not accepted, offline, unreachable, not trusted, or the bytes differ. A transfer that
            broke off is kept under a hidden name and resumed by the same command; nothing else is left behind.
        MagnetError: the cache cannot be written.
    """
    path = cache.file_of(artifact)
    if cache.is_file_cached(artifact):
        hint = f"remove it and fetch it again: magnet cache rm {artifact.name}"
        cache.verify_file(cache.pinned(artifact), path, hint)
        return False
    if artifact.scheme in {"builtin", "file"} and (artifact.sha256 or not path.exists()):
        message = f"{artifact.name} should be at {path}, but there is no such file of {artifact.size_text}"
        raise ArtifactError(message, "install magnet again" if artifact.scheme == "builtin" else "correct its source")
    _check_license(artifact, accepted=accept_license)
    if not artifact.sha256 and path.exists():  # placed by hand, or the user's own file
        _verify_new(artifact, path, path.name, trust=trust)
        return False
    if cache.offline():
        message = f"{artifact.name} is not in the cache, and MAGNET_OFFLINE=1 forbids to fetch it"
        raise ArtifactError(message, f"unset MAGNET_OFFLINE, or place the file at {path}")
    if not (trust or cache.pinned(artifact).sha256 or safe_formats.may_be_safe(artifact.file_name)):
        raise _untrusted(artifact, artifact.file_name)
    if artifact.scheme == "hub":
        _fetch_from_hub(artifact, trust=trust)
        return True
    return _download(artifact, trust=trust, advance=advance)


def _download(artifact: Artifact, *, trust: bool, advance: Callable[[int], None]) -> bool:
    folder = cache.folder_of(artifact)
    path = folder / artifact.file_name
    with alone(artifact):
        if cache.is_cached(artifact) or cache.is_file_cached(artifact):  # another process was first
            cache.verify(artifact, cache.path_of(artifact) if cache.is_cached(artifact) else path)
            return False
        part = folder / f".{artifact.file_name}.partial"
        with atomic.explained("write", part):
            name = sources.download(artifact, part, place=path, advance=advance)
            try:
                _verify_new(artifact, part, name, trust=trust)
                part.replace(path)
                atomic.sync_folder(folder)
            finally:
                https.discard(part)
    return True


@contextlib.contextmanager
def alone(artifact: Artifact) -> Iterator[None]:
    """Make the artifact's folder, and keep other processes from fetching the same artifact during the block.

    Raises:
        MagnetError: the folder cannot be made; where the block fails, an empty folder is removed.
    """
    folder = cache.folder_of(artifact)
    with _created(folder), Locks(cache.home() / ".locks").held(int(folder.name[:7], 16)):
        yield


@contextlib.contextmanager
def _created(folder: Path) -> Iterator[None]:
    missing = [p for p in (folder, *folder.parents) if not p.exists()]
    atomic.make_folder(folder)
    atomic.sweep(folder)
    try:
        yield
    except BaseException:
        for path in missing:
            with contextlib.suppress(OSError):
                path.rmdir()
        raise


def _check_license(artifact: Artifact, *, accepted: bool) -> None:
    if artifact.commercial_use:
        return
    if accepted:
        Lockfile(cache.home()).accept(artifact.license)
    elif not any(Lockfile(folder).accepts(artifact.license) for folder in cache.homes()):
        message = f"{artifact.name} is under a licence that forbids commercial use: {artifact.license} "
        message += f"({artifact.size_text} from {artifact.source})"
        hint = f"read the licence; to accept it: magnet fetch {artifact.name} --accept-license"
        raise ArtifactError(message, hint)


def _verify_new(artifact: Artifact, path: Path, name: str, *, trust: bool) -> None:
    """Verify a file that has arrived, `name` to its publisher; without pinned sha256 it is recorded, if trusted."""
    pin = cache.pinned(artifact)
    if not pin.sha256:
        format_ = safe_formats.of_file(path, name)
        if not (format_ or trust):
            raise _untrusted(artifact, name)
        if path.is_dir():
            sha256, size = documents.sha256_folder(path)
        else:
            sha256, size = documents.sha256_file(path), path.stat().st_size
        if artifact.size not in {0, size}:
            raise ArtifactError(f"{artifact.name} has {size:,} bytes, and {artifact.size:,} are asked for", CHANGED)
        fields = {"sha256": sha256, "size": size, "format": format_ or "unknown", "name": name}
        record = Lockfile(cache.home()).record(artifact.source, fields)
        pin = dataclasses.replace(artifact, sha256=record["sha256"], size=record["size"])
    hint = CHANGED
    if not artifact.sha256:
        hint = f"it is not what it was at its first use; to trust it as it is now: magnet cache rm {artifact.name} "
        hint += "--forget, and fetch it again"
    cache.verify_file(pin, path, hint)


def _untrusted(artifact: Artifact, name: str) -> ArtifactError:
    message = f"nobody has pinned the sha256 of {artifact.name}, and {name} is not of a format that cannot carry code "
    message += f"({', '.join(safe_formats.SAFE)}): whatever {artifact.source} gives would be believed"
    return ArtifactError(message, f"add its sha256 to an entry of your own; or: magnet fetch {artifact.name} --trust")


def _fetch_from_hub(artifact: Artifact, *, trust: bool) -> None:
    """Fetch into the hub's own cache, which other tools share; a file that differs is removed again."""
    path = sources.hub_download(artifact)
    try:
        _verify_new(artifact, path, path.name, trust=trust)
    except ArtifactError:
        sources.hub_remove(path)
        raise


def fetch_listed(artifact: Artifact) -> bool:
    """Fetch the files that the manifest of a published volume lists, and verify each.

    Returns:
        True when any was downloaded.

    Raises:
        ArtifactError: offline, unreachable, or not what the manifest says; a file that differs is removed again.
        MagnetError: the manifest is damaged.
    """
    path = cache.file_of(artifact)
    any_new = False
    for entry in manifest.read(path):
        if not manifest.problem(path.parent, entry, hashed=True):
            continue
        if cache.offline():
            message = f"{entry.name} of {artifact.name} is not in the cache, and MAGNET_OFFLINE=1 forbids to fetch it"
            raise ArtifactError(message, "unset MAGNET_OFFLINE")
        file = sources.hub_download(artifact, entry.name)
        if problem := manifest.problem(path.parent, entry, hashed=True):
            sources.hub_remove(file)
            raise ArtifactError(f"{artifact.name} is not what was published: {problem}", CHANGED)
        any_new = True
    return any_new
