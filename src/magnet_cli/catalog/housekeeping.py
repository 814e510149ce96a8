"""List, verify and remove the contents of MAGNET_HOME. Volumes that the user computed are listed and never removed."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from magnet_cli.catalog import cache, entries, manifest, sources
from magnet_cli.catalog.entries import Artifact
from magnet_cli.catalog.lockfile import Lockfile
from magnet_cli.errors import ArtifactError, MagnetError
from magnet_cli.files import atomic
from magnet_cli.files.text import quoted

COMPUTED = "computed volume"


@dataclass(frozen=True)
class CacheEntry:
    """A file or folder of the cache.

    Attributes:
        name: name of the artifact, else of the folder or file.
        kind: kind of the artifact; "computed volume", "index", "partial" (a transfer that broke off), or "unlisted"
            (no list has the artifact).
        path: the file or folder.
        size: bytes.
        used: time of last use.
        place: "own", "shared" or "hub".
    """

    name: str
    kind: str
    path: Path
    size: int
    used: datetime
    place: str = "own"


def list_entries() -> list[CacheEntry]:
    """Return all entries of the cache, artifacts first; without what ships with magnet and the user's own files.

    Raises:
        ArtifactError: a list of artifacts is wrong.
        MagnetError: the home cannot be read.
    """
    with atomic.explained("read", cache.home()):
        return [*_artifacts(), *_rest()]


def _artifacts() -> Iterator[CacheEntry]:
    own = cache.home()
    for artifact in _fetched():
        if cache.is_cached(artifact):
            path = cache.path_of(artifact)
            place = "hub" if artifact.scheme == "hub" else "own" if path.is_relative_to(own) else "shared"
            yield CacheEntry(artifact.name, artifact.kind, path, cache.size_here(artifact), _used(path), place)


def _fetched() -> list[Artifact]:
    return [a for a in entries.registry().values() if a.scheme not in {"builtin", "file"}]


def _rest() -> Iterator[CacheEntry]:
    home = cache.home()
    names = {cache.folder_of(a): a.name for a in _fetched()}
    for folder in sorted((home / "artifacts").glob("*")):
        if folder not in names:
            yield _entry(folder.name, "unlisted", folder)
            continue
        for path in sorted(folder.glob(".*")):
            yield _entry(f"{names[folder]}{path.name}", "partial", path)
    for path in sorted((home / "volumes").glob("*")):
        yield _entry(path.name, COMPUTED, path)
    for path in sorted((home / "indices").glob("*")):
        yield _entry(path.name, "index", path)


def _entry(name: str, kind: str, path: Path) -> CacheEntry:
    inside = [p for p in path.rglob("*") if p.is_file()] if path.is_dir() and not path.is_symlink() else [path]
    used = max((_used(p) for p in inside), default=_used(path))  # to list a folder changes its own time
    return CacheEntry(name, kind, path, sum(p.lstat().st_size for p in inside), used)


def _used(path: Path) -> datetime:
    file = cache.timekeeper(path)
    times = (file if file.exists() else path).lstat()
    return datetime.fromtimestamp(max(times.st_atime, times.st_mtime), UTC)


def verify() -> Iterator[tuple[CacheEntry, str]]:
    """Read every byte of the artifacts in the cache.

    Yields:
        (entry, problem) pairs, problem "" if intact. The time of last use stays.
    """
    for entry in _artifacts():
        artifact = entries.find(entry.name)
        file = cache.timekeeper(entry.path)
        before = file.stat()
        try:
            cache.verify(artifact, entry.path)
            yield entry, ""
        except MagnetError as error:
            yield entry, error.message
        with contextlib.suppress(OSError):
            os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def remove(names: list[str], *, forget: bool = False, dry_run: bool = False) -> list[CacheEntry]:
    """Remove entries by the names that `list_entries` has.

    Args:
        names: the names.
        forget: also forget the recorded hash; the next download will be trusted.
        dry_run: remove nothing.

    Returns:
        The removed entries.

    Raises:
        ArtifactError: nothing of that name is kept, or it is not to be removed here; nothing goes then.
        MagnetError: it cannot be removed.
    """
    by_name = {entry.name: entry for entry in list_entries()}
    artifacts = entries.registry()
    removed = []
    for name in names:
        if name in by_name:
            removed.append(_removable(by_name[name]))
        elif not (forget and name in artifacts):
            message = f"nothing called {name!r} is kept"
            raise ArtifactError(message, "`magnet cache list` shows all that is")
    for entry in removed if not dry_run else ():
        _remove(entry, artifacts.get(entry.name))
    for name in names if forget and not dry_run else ():
        if name in artifacts:
            Lockfile(cache.home()).forget(artifacts[name].source)
    return removed


def _removable(entry: CacheEntry) -> CacheEntry:
    if entry.kind == COMPUTED:
        message = f"{entry.name} was computed here: it is no copy of anything"
        raise ArtifactError(message, f"if it is to go: rm -r {quoted(entry.path)}")
    if entry.place == "shared":
        message = f"{entry.name} is in the shared home, {entry.path}"
        raise ArtifactError(message, "ask whoever keeps MAGNET_SHARED_HOME")
    return entry


def prune(*, unused_days: float | None = None, dry_run: bool = False) -> list[CacheEntry]:
    """Remove partial files that are a day old; younger ones may be in use.

    What no list here has may be of a list that is not named now: it is kept until it is old, or removed by name.

    Args:
        unused_days: also remove artifacts, listed or not, and indices not used for so many days.
        dry_run: remove nothing.

    Returns:
        The removed entries.

    Raises:
        MagnetError: it cannot be removed.
    """
    now = datetime.now(UTC)
    artifacts = entries.registry()
    removed = []
    for entry in list_entries():
        age = now - entry.used
        old = unused_days is not None and age >= timedelta(days=unused_days)
        left_over = entry.kind == "partial" and age >= timedelta(days=1)
        mine = entry.place == "own" and entry.kind not in {COMPUTED, "partial"}
        if left_over or (old and mine):
            removed.append(entry)
            if not dry_run:
                _remove(entry, artifacts.get(entry.name))
    return removed


def _remove(entry: CacheEntry, artifact: Artifact | None) -> None:
    with atomic.explained("remove", entry.path):
        if artifact is not None and entry.place == "hub":
            _remove_from_hub(artifact, entry.path)
            return
        path = cache.folder_of(artifact) if artifact is not None and entry.kind in entries.KINDS else entry.path
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _remove_from_hub(artifact: Artifact, path: Path) -> None:
    if artifact.form == "manifest":
        files = [path / entry.name for entry in manifest.read(path / entries.MANIFEST)] + [path / entries.MANIFEST]
    else:
        files = [path]
    for file in files:
        sources.hub_remove(file)
