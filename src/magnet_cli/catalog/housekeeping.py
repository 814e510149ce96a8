"""What MAGNET_HOME holds: how large it is, when it was last used, whether it is whole; and what may go.

Owns removal. Volumes that the user computed are listed and never removed: they are work, not copies.
"""

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

COMPUTED = "computed volume"
_LEFT_OVER = ("partial", "unlisted")  # what nothing but the fetch that it came from can use


@dataclass(frozen=True)
class CacheEntry:
    """Something that is kept.

    Attributes:
        name: of the artifact; of the folder or file where it is none.
        kind: of the artifact; "computed volume", "index", "partial" (of a transfer that broke off), or "unlisted": no
            list has such an artifact.
        path: the file or folder.
        size: bytes.
        used: when it was last used.
        place: "own", "shared" or "hub".
    """

    name: str
    kind: str
    path: Path
    size: int
    used: datetime
    place: str = "own"


def kept() -> list[CacheEntry]:
    """All that is kept, artifacts first; what ships with magnet and the user's own files are not.

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
            yield _kept(folder.name, "unlisted", folder)
            continue
        for path in sorted(folder.glob(".*")):
            yield _kept(f"{names[folder]}{path.name}", "partial", path)
    for path in sorted((home / "volumes").glob("*")):
        yield _kept(path.name, COMPUTED, path)
    for path in sorted((home / "indices").glob("*")):
        yield _kept(path.name, "index", path)


def _kept(name: str, kind: str, path: Path) -> CacheEntry:
    inside = [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path]
    return CacheEntry(name, kind, path, sum(p.lstat().st_size for p in inside), _used(path))


def _used(path: Path) -> datetime:
    told = cache.timekeeper(path)
    found = (told if told.exists() else path).lstat()
    return datetime.fromtimestamp(max(found.st_atime, found.st_mtime), UTC)


def verify() -> Iterator[tuple[CacheEntry, str]]:
    """Read every byte of the artifacts that are kept.

    Yields:
        Each, and what is wrong with it in words, empty where nothing is. Looking is no use of it.
    """
    for found in _artifacts():
        artifact = entries.find(found.name)
        told = cache.timekeeper(found.path)
        before = told.stat()
        try:
            cache.verify(artifact, found.path)
            yield found, ""
        except MagnetError as error:
            yield found, error.message
        with contextlib.suppress(OSError):
            os.utime(told, ns=(before.st_atime_ns, before.st_mtime_ns))


def remove(names: list[str], *, forget: bool = False, dry_run: bool = False) -> list[CacheEntry]:
    """Remove things by the names that `kept` gives them.

    Args:
        names: of them.
        forget: what was recorded of them at their first use goes too: whatever comes next is trusted then.
        dry_run: only say what would go.

    Returns:
        What went.

    Raises:
        ArtifactError: nothing of that name is kept, or it is not to be removed here; nothing goes then.
        MagnetError: it cannot be removed.
    """
    there = {found.name: found for found in kept()}
    known = entries.registry()
    going = []
    for name in names:
        if name in there:
            going.append(_removable(there[name]))
        elif not (forget and name in known):
            message = f"nothing called {name!r} is kept"
            raise ArtifactError(message, "`magnet cache list` shows all that is")
    for found in going if not dry_run else ():
        _remove(found, known.get(found.name))
    for name in names if forget and not dry_run else ():
        if name in known:
            Lockfile(cache.home()).forget(known[name].source)
    return going


def _removable(found: CacheEntry) -> CacheEntry:
    if found.kind == COMPUTED:
        message = f"{found.name} was computed here: it is no copy of anything"
        raise ArtifactError(message, f"if it is to go: rm -r {found.path}")
    if found.place == "shared":
        message = f"{found.name} is in the shared home, {found.path}"
        raise ArtifactError(message, "ask whoever keeps MAGNET_SHARED_HOME")
    return found


def prune(*, unused_days: float | None = None, dry_run: bool = False) -> list[CacheEntry]:
    """Remove what no fetch goes on with and no list has; with `unused_days`, artifacts and indices too that are so old.

    Partial files go when they are a day old; younger ones may be somebody's, at this moment.

    Returns:
        What went.

    Raises:
        MagnetError: it cannot be removed.
    """
    now = datetime.now(UTC)
    known = entries.registry()
    going = []
    for found in kept():
        age = now - found.used
        old = unused_days is not None and age >= timedelta(days=unused_days)
        left_over = found.kind == "unlisted" or (found.kind == "partial" and age >= timedelta(days=1))
        mine = found.place == "own" and found.kind not in {COMPUTED, *_LEFT_OVER}
        if left_over or (old and mine):
            going.append(found)
            if not dry_run:
                _remove(found, known.get(found.name))
    return going


def _remove(found: CacheEntry, artifact: Artifact | None) -> None:
    with atomic.explained("remove", found.path):
        if found.place == "hub":
            _remove_from_hub(artifact, found.path)
            return
        folder = found.kind in entries.KINDS
        path = cache.folder_of(artifact) if folder else found.path
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _remove_from_hub(artifact: Artifact, path: Path) -> None:
    """The files of this artifact alone, out of the hub's own cache."""
    if artifact.form == "manifest":
        mine = [path / entry.name for entry in manifest.read(path / entries.MANIFEST)] + [path / entries.MANIFEST]
    else:
        mine = [path]
    for file in mine:
        sources.hub_remove(file)
