"""The cache: verified files of artifacts under MAGNET_HOME, and the checkpoints that commands ask for.

Owns where things are kept and that nothing is visible or read unverified. Knows nothing of what the files mean.
"""

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from magnet_cli.catalog import entries as entries_
from magnet_cli.catalog import https, manifest, safe_formats, sources
from magnet_cli.catalog.entries import Artifact
from magnet_cli.catalog.lockfile import Ledger
from magnet_cli.errors import ArtifactError, MagnetError
from magnet_cli.files import atomic, documents
from magnet_cli.files.locks import Locks

BUILT_IN = Path(__file__).parents[1] / "assets"
DEFAULT_GENERATOR = "mnist"
VOLUME = "volume"  # the folder, beside a file of published arrays, of the volume that they became
_CHANGED = "fetch it again; if that does not help, its publisher has changed the file"


def home() -> Path:
    """MAGNET_HOME, else $XDG_CACHE_HOME/magnet, else ~/.cache/magnet. Nothing is created."""
    if own := os.environ.get("MAGNET_HOME"):
        return Path(own).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "magnet"


def homes() -> list[Path]:
    """Where cached files are looked for: the user's own home, then MAGNET_SHARED_HOME, which is never written to."""
    shared = os.environ.get("MAGNET_SHARED_HOME")
    return [home(), *([Path(shared).expanduser()] if shared else [])]


def volume_path(name: str, fingerprint: str) -> Path:
    """Return the folder of a volume for which no folder is named: MAGNET_HOME/volumes/NAME-FINGERPRINT."""
    return home() / "volumes" / f"{name}-{fingerprint[:12]}"


def offline() -> bool:
    """Whether MAGNET_OFFLINE=1 forbids the network."""
    return os.environ.get("MAGNET_OFFLINE") == "1"


def pinned(artifact: Artifact) -> Artifact:
    """The artifact with the sha256 and size of its entry; what it leaves out, as recorded when it was first used.

    Raises:
        ArtifactError: a record is damaged.
    """
    if artifact.sha256:
        return artifact
    for place in homes():
        if seen := Ledger(place).seen(artifact.source):
            return dataclasses.replace(artifact, sha256=seen["sha256"], size=seen["size"])
    return artifact


def file_of(artifact: Artifact) -> Path:
    """Where the file is that its source names, or will be once fetched."""
    rest = artifact.source.partition(":")[2]
    if artifact.scheme == "builtin":
        return BUILT_IN / rest
    if artifact.scheme == "file":
        return Path(rest).expanduser()
    if artifact.scheme == "hub" and (found := sources.hub_file(artifact, download=False)):
        return found
    return _first_there(artifact, artifact.file_name)


def path_of(artifact: Artifact) -> Path:
    """Where what is used of the artifact is, or will be: its file; of a volume always the folder."""
    if artifact.form == "npz":
        return _first_there(artifact, VOLUME)
    file = file_of(artifact)
    return file.parent if artifact.form == "manifest" else file


def folder_of(artifact: Artifact, place: Path | None = None) -> Path:
    """The folder of an artifact in a home, the user's own if none is given."""
    key = artifact.sha256 or documents.sha256_bytes(artifact.source.encode())
    return (place or home()) / "artifacts" / key[:12]


def _first_there(artifact: Artifact, name: str) -> Path:
    places = [folder_of(artifact, place) / name for place in homes()]
    return next((place for place in places if place.exists()), places[0])


def is_cached(artifact: Artifact) -> bool:
    """Whether it is there, by name and size; its bytes are verified when they are read.

    Raises:
        ArtifactError: a record of first uses is damaged.
    """
    if artifact.form == "npz":
        return path_of(artifact).is_dir()
    if artifact.form == "manifest":
        return _is_file_cached(artifact) and not _manifest_problems(file_of(artifact), hashed=False)
    return _is_file_cached(artifact)


def _is_file_cached(artifact: Artifact) -> bool:
    known, path = pinned(artifact), file_of(artifact)
    right = path.is_dir() or (path.is_file() and known.size in {0, path.stat().st_size})
    return right and bool(known.sha256)


def _manifest_problems(path: Path, *, hashed: bool) -> list[str]:
    try:
        entries = manifest.read(path)
    except MagnetError as error:
        return [error.message]
    return [found for entry in entries if (found := manifest.problem(path.parent, entry, hashed=hashed))]


def size_here(artifact: Artifact) -> int:
    """Bytes of what is used of an artifact that is in the cache."""
    path = path_of(artifact)
    return sum(p.stat().st_size for p in path.rglob("*") if p.is_file()) if path.is_dir() else path.stat().st_size


def verify(artifact: Artifact, path: Path, hint: str = "") -> None:
    """Compare the bytes of what is used of an artifact, at `path`, with what is pinned or was recorded.

    Args:
        artifact: whose bytes they are.
        path: of the file, or the volume's folder.
        hint: what to do where they differ.

    Raises:
        ArtifactError: size or sha256 differ.
    """
    known = pinned(artifact)
    hint = hint or f"remove it and fetch it again: magnet cache rm {artifact.name}; magnet fetch {artifact.name}"
    used(path)
    if artifact.form == "npz" and path.name == VOLUME:  # its shards are verified one by one, whenever they are read
        spec = documents.read(path / "volume.json").get("spec")
        if not isinstance(spec, dict) or spec.get("imported_sha256") != known.sha256:
            message = f"the volume in {path} was not made of the file of {artifact.name}, sha256 {known.sha256}"
            raise ArtifactError(message, hint)
        return
    if artifact.form == "manifest" and path.is_dir():
        verify_file(known, path / entries_.MANIFEST, hint)
        if problems := _manifest_problems(path / entries_.MANIFEST, hashed=True):
            message = f"{artifact.name} is not what was published: {'; '.join(problems[:3])}"
            raise ArtifactError(message, hint)
        return
    verify_file(known, path, hint)


def verify_file(known: Artifact, path: Path, hint: str = _CHANGED) -> None:
    """Compare the bytes at `path` with a sha256 and, where it is known, a size.

    Raises:
        ArtifactError: they differ.
    """
    if path.is_dir():
        sha256, size = documents.sha256_folder(path)
    else:
        size = path.stat().st_size
        sha256 = documents.sha256_file(path) if known.size in {0, size} else "not computed"
    if known.size not in {0, size} or sha256 != known.sha256:
        asked = f"{known.size:,} bytes, " if known.size else ""
        message = (
            f"{known.name} is not what was pinned: asked for {asked}sha256 {known.sha256}; "
            f"found {size:,} bytes, sha256 {sha256}"
        )
        where = f" ({path.resolve()})" if not path.name.startswith(".") else ""
        raise ArtifactError(message + where, hint)


def used(path: Path) -> None:
    """Note that something in the user's home was used now: its time of access, where that can be set."""
    if not path.is_relative_to(home()):
        return
    told = timekeeper(path)
    with contextlib.suppress(OSError):  # a read-only disk
        os.utime(told, ns=(time.time_ns(), told.stat().st_mtime_ns))


def timekeeper(path: Path) -> Path:
    """The file whose time of access is when something was last used; looking into a folder changes the folder's own."""
    return path / "volume.json" if path.is_dir() else path


def read(artifact: Artifact) -> bytes:
    """The verified bytes of an artifact that is in the cache.

    Raises:
        ArtifactError: it is not in the cache, or not what was pinned.
        MagnetError: it cannot be read.
    """
    check_cached(artifact)
    return Checkpoint(artifact.name, path_of(artifact), pinned(artifact).sha256, artifact.name).read()


def check_cached(artifact: Artifact) -> None:
    """Whether an artifact is in the cache.

    Raises:
        ArtifactError: it is not; the command that fetches it is named.
    """
    if not is_cached(artifact):
        message = f"{artifact.name} is not in the cache ({artifact.size_text}, {artifact.license})"
        raise ArtifactError(message, f"get it first: magnet fetch {artifact.name}")


def fetch(
    artifact: Artifact,
    *,
    accept_license: bool = False,
    trust: bool = False,
    advance: Callable[[int], None] = lambda _: None,
) -> bool:
    """Put an artifact's verified file into the cache, unless it is there.

    The file is had under a hidden name in its own folder, verified, and renamed: what is visible is whole and right.
    One process at a time fetches it; the others wait, and find it there.

    Args:
        artifact: what to fetch.
        accept_license: the user accepts a licence that forbids commercial use; remembered.
        trust: the user trusts a file that nobody pinned, though its format could carry code.
        advance: called with the number of bytes that arrived.

    Returns:
        True when it was downloaded, False when it was there.

    Raises:
        ArtifactError: licence not accepted, offline, unreachable, not to be trusted, or the bytes differ. A transfer
            that broke off stays, hidden, for the same command to go on with; nothing else is left behind.
        MagnetError: the cache cannot be written.
    """
    path = file_of(artifact)
    if _is_file_cached(artifact):
        verify_file(pinned(artifact), path, f"remove it and fetch it again: magnet cache rm {artifact.name}")
        return False
    here = artifact.scheme in {"builtin", "file"}
    if here and (artifact.sha256 or not path.exists()):
        message = f"{artifact.name} should be at {path}, but there is no such file of {artifact.size_text}"
        raise ArtifactError(message, "install magnet again" if artifact.scheme == "builtin" else "correct its source")
    _check_license(artifact, accepted=accept_license)
    if not artifact.sha256 and path.exists():  # placed by hand, or the user's own file
        _admit(artifact, path, path.name, trust=trust)
        return False
    if offline():
        message = f"{artifact.name} is not in the cache, and MAGNET_OFFLINE=1 forbids to fetch it"
        raise ArtifactError(message, f"unset MAGNET_OFFLINE, or place the file at {path}")
    if not (artifact.sha256 or trust or pinned(artifact).sha256 or safe_formats.may_be_safe(artifact.file_name)):
        raise _untrusted(artifact, artifact.file_name)
    if artifact.scheme == "hub":
        _fetch_from_hub(artifact, trust=trust)
        return True
    folder = folder_of(artifact)
    path = folder / artifact.file_name
    with alone(artifact):
        if is_cached(artifact) or _is_file_cached(artifact):  # another process had it meanwhile
            verify(artifact, path_of(artifact) if is_cached(artifact) else path)
            return False
        part = folder / f".{artifact.file_name}.partial"
        with atomic.explained("write", part):
            name = sources.download(artifact, part, place=path, advance=advance)
            try:
                _admit(artifact, part, name, trust=trust)
                part.replace(path)
                atomic.sync_folder(folder)
            finally:
                https.discard(part)
    return True


@contextlib.contextmanager
def alone(artifact: Artifact) -> Iterator[None]:
    """Make the artifact's folder for the block, in which no other process fetches the same artifact.

    Raises:
        MagnetError: it cannot be made; where the block fails, what was made is taken away if it is empty.
    """
    folder = folder_of(artifact)
    with _created(folder), Locks(home() / ".locks").held(int(folder.name[:7], 16)):
        yield


def _check_license(artifact: Artifact, *, accepted: bool) -> None:
    """A licence that forbids commercial use has to be accepted once.

    Raises:
        ArtifactError: it is not.
    """
    if artifact.commercial_use:
        return
    if accepted:
        Ledger(home()).accept(artifact.license)
    elif not any(Ledger(place).accepts(artifact.license) for place in homes()):
        message = (
            f"{artifact.name} is under a licence that forbids commercial use: {artifact.license} "
            f"({artifact.size_text} from {artifact.source})"
        )
        hint = f"read the licence; to accept it: magnet fetch {artifact.name} --accept-license"
        raise ArtifactError(message, hint)


def _admit(artifact: Artifact, path: Path, name: str, *, trust: bool) -> None:
    """Verify a file that has arrived; one that nobody pinned is recorded, if it can be trusted.

    Args:
        artifact: which it should be.
        path: where it is.
        name: what its publisher calls it.
        trust: whether the user trusts it whatever its format.

    Raises:
        ArtifactError: it differs from what is pinned or was recorded, or could carry code.
    """
    known = pinned(artifact)
    if not known.sha256:
        found = safe_formats.of_file(path, name)
        if not (found or trust):
            raise _untrusted(artifact, name)
        sha256, size = (
            documents.sha256_folder(path) if path.is_dir() else (documents.sha256_file(path), path.stat().st_size)
        )
        if artifact.size not in {0, size}:
            message = f"{artifact.name} has {size:,} bytes, and {artifact.size:,} are asked for"
            raise ArtifactError(message, _CHANGED)
        record = {"sha256": sha256, "size": size, "format": found or "unknown", "name": name}
        seen = Ledger(home()).record(artifact.source, record)
        known = dataclasses.replace(artifact, sha256=seen["sha256"], size=seen["size"])
    changed = _CHANGED
    if not artifact.sha256:
        changed = f"it is not what it was at its first use; to trust it as it is now: magnet cache rm {artifact.name} "
        changed += "--forget, and fetch it again"
    verify_file(known, path, changed)


def _untrusted(artifact: Artifact, name: str) -> ArtifactError:
    message = (
        f"nobody has pinned the sha256 of {artifact.name}, and {name} is not of a format that cannot carry code "
        f"({', '.join(safe_formats.SAFE)}): whatever {artifact.source} gives would be believed"
    )
    return ArtifactError(message, f"add its sha256 to an entry of your own; or: magnet fetch {artifact.name} --trust")


def _fetch_from_hub(artifact: Artifact, *, trust: bool) -> None:
    """Into the hub's own cache, where the user's other tools find it too; what differs is removed again."""
    path = sources.hub_file(artifact, download=True)
    try:
        _admit(artifact, path, path.name, trust=trust)
    except ArtifactError:
        path.resolve().unlink()
        path.unlink(missing_ok=True)
        raise


def fetch_listed(artifact: Artifact) -> bool:
    """Fetch the files that the manifest of a published volume lists, each verified, beside the manifest.

    Returns:
        True when any was downloaded.

    Raises:
        ArtifactError: offline, unreachable, or not what the manifest says; what differs is removed again.
        MagnetError: the manifest is damaged.
    """
    path = file_of(artifact)
    new = False
    for entry in manifest.read(path):
        if not manifest.problem(path.parent, entry, hashed=True):
            continue
        if offline():
            message = f"{entry.name} of {artifact.name} is not in the cache, and MAGNET_OFFLINE=1 forbids to fetch it"
            raise ArtifactError(message, "unset MAGNET_OFFLINE")
        found = sources.hub_file(artifact, download=True, file=entry.name)
        if wrong := manifest.problem(path.parent, entry, hashed=True):
            found.resolve().unlink()
            found.unlink(missing_ok=True)
            message = f"{artifact.name} is not what was published: {wrong}"
            raise ArtifactError(message, _CHANGED)
        new = True
    return new


@contextlib.contextmanager
def _created(folder: Path) -> Iterator[None]:
    """Make a folder for the block; when the block fails, take away what was made, where it is empty."""
    missing = [p for p in (folder, *folder.parents) if not p.exists()]
    atomic.make_folder(folder)
    atomic.sweep(folder)
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
        sha256: what its bytes must hash to: pinned, or as found for a file of the user's own or at first use.
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
        with atomic.explained("read", self.path):
            data = self.path.read_bytes()
        if documents.sha256_bytes(data) != self.sha256:
            message = f"{self.path} is not what was pinned: its sha256 is not {self.sha256}"
            raise ArtifactError(message, f"remove that file and fetch it again: magnet fetch {self.reference}")
        used(self.path)
        return data


def checkpoint(reference: str, *, here: bool = True) -> Checkpoint:
    """The generator a user means: a path of a checkpoint, or the name of an artifact that is in the cache.

    Args:
        reference: the path or name.
        here: whether the artifact has to be in the cache; where its name is enough, its pinned sha256 stands for it,
            or nothing where nobody has pinned one.

    Raises:
        ArtifactError: no such file, no such artifact, not a generator, or not fetched yet.
    """
    path = Path(reference).expanduser()
    if path.is_file():
        return Checkpoint(path.stem, path.resolve(), documents.sha256_file(path), reference)
    if os.sep in reference:
        message = f"there is no checkpoint at {reference}"
        raise ArtifactError(message, "pass the path of a file, or a name from `magnet list`")
    artifact = entries_.find(reference)
    if artifact.kind != "generator":
        message = f"{reference} is a {artifact.kind}, and a generator is asked for"
        raise ArtifactError(message, "`magnet list` shows the generators")
    if here:
        check_cached(artifact)
    known = pinned(artifact)
    return Checkpoint(artifact.name, path_of(artifact), known.sha256, reference, artifact.family)
