"""Fetch an artifact and make it what commands use: files as they are, published arrays as a volume.

Joins the cache to volumes. Knows nothing of networks.
"""

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from magnet_cli.catalog import cache, download, entries, imagenet
from magnet_cli.catalog.entries import Artifact
from magnet_cli.catalog.lockfile import Lockfile
from magnet_cli.errors import VolumeError
from magnet_cli.files import atomic
from magnet_cli.sharing import npz
from magnet_cli.volume import Volume

Progress = Callable[[str, int, str], AbstractContextManager[Callable[[int], None]]]
_CONDITIONAL = ("biggan-deep",)  # families all of whose generators take ImageNet's labels


@dataclass(frozen=True)
class Fetched:
    """An artifact that is here.

    Attributes:
        name: of the artifact.
        path: of its file, or of the volume's folder.
        sha256: of what was fetched, as pinned or recorded.
        size: bytes of what is at `path`.
        downloaded: whether anything came over the network.
        pinned: whether its entry says the sha256; otherwise it was trusted on first use.
    """

    name: str
    path: Path
    sha256: str
    size: int
    downloaded: bool
    pinned: bool


def fetch(artifact: Artifact, progress: Progress, *, accept_license: bool = False, trust: bool = False) -> Fetched:
    """Put an artifact into the cache, unless it is there; published arrays become a volume beside the cached files.

    Args:
        artifact: what to fetch.
        progress: a context in which work of (label, total, unit) is done; gives a function to call with what is done.
        accept_license: as `download.fetch`.
        trust: as `download.fetch`.

    Raises:
        ArtifactError: as `download.fetch`.
        VolumeError: the arrays are not those of a volume.
        MagnetError: the cache cannot be written.
    """
    if artifact.form == "npz" and cache.is_cached(artifact):
        downloaded = False
    else:
        total = 0 if cache.file_of(artifact).exists() else artifact.size
        with progress(artifact.name, total, "bytes") as advance:
            downloaded = download.fetch(artifact, accept_license=accept_license, trust=trust, advance=advance)
    if artifact.form == "manifest":
        downloaded |= download.fetch_listed(artifact)
    if artifact.form == "npz":
        _import(artifact, progress)
    path = cache.path_of(artifact)
    if artifact.form in {"npz", "manifest"}:
        cache.verify(artifact, path)
    sha256, size = cache.pinned(artifact).sha256, cache.size_here(artifact)
    return Fetched(artifact.name, path, sha256, size, downloaded, bool(artifact.sha256))


def _import(artifact: Artifact, progress: Progress) -> None:
    """Make the volume of published arrays; it appears whole, and then their file goes: the volume holds all of it."""
    with download.alone(artifact):
        if cache.is_cached(artifact):
            return
        file = cache.file_of(artifact)
        archive = npz.open_archive(file)
        tally = npz.inspect(archive)
        place = cache.folder_of(artifact) / cache.VOLUME
        with _building(place) as part:
            counts = {"rows": tally.rows, "dropped_rows": tally.dropped_rows, "sorted_rows": tally.sorted_rows}
            measured = {"imported": counts | {"file": artifact.source}}
            volume = Volume.create(part, _spec(artifact, archive), measured=measured)
            with progress(f"importing {artifact.name}", tally.rows, "rows") as advance:
                for _, rows in npz.fill(volume, archive, tally.rows):
                    advance(rows)
            (part / ".locks").unlink(missing_ok=True)
        if artifact.scheme not in {"file", "hub"}:
            file.unlink()


@contextmanager
def _building(place: Path) -> Iterator[Path]:
    """A folder that appears whole when the block ends, and not at all when it fails."""
    part = atomic.temporary(place)
    try:
        yield part
        with atomic.explained("write", place):
            part.rename(place)
            atomic.sync_folder(place.parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _spec(artifact: Artifact, archive: npz.Archive) -> npz.VolumeSpec:
    """The spec of a published volume: what its entry, and that of its generator, say."""
    known = entries.registry().get(artifact.generator)
    family = known.family if known else artifact.family
    about = {"family": family, "prior": entries.prior_of(family), "output": artifact.output}
    if family in _CONDITIONAL and archive.labels is None:
        about |= {"label": (_class(artifact),), "num_classes": imagenet.COUNT}
    sha256 = cache.pinned(known).sha256 if known else ""
    return npz.spec(archive, generator=artifact.generator, sha256=sha256, space="z", truncation=1.0, **about)


def _class(artifact: Artifact) -> int:
    """The class of a file of one class: its authors' names begin with the number, as 207_golden retriever.npz."""
    seen = next((seen for home in cache.homes() if (seen := Lockfile(home).seen(artifact.source))), {})
    name = seen.get("name", artifact.file_name)
    number = re.match(r"(\d{1,3})[_.]", name)
    if number is None:
        message = f"{artifact.name} is of one class of {artifact.generator}, and its file {name!r} does not say which"
        raise VolumeError(message, f"magnet import {cache.file_of(artifact)} {artifact.generator} --label CLASS")
    return int(number[1])
