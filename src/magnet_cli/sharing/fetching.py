"""Fetch artifacts; published arrays become a volume."""

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from magnet_cli.catalog import cache, download, entries, imagenet
from magnet_cli.catalog.entries import Artifact
from magnet_cli.catalog.lockfile import Lockfile
from magnet_cli.errors import VolumeError
from magnet_cli.files import atomic
from magnet_cli.files.progress import Progress
from magnet_cli.files.text import quoted
from magnet_cli.sharing import importing, published_arrays
from magnet_cli.sharing.published_arrays import Archive
from magnet_cli.volume.spec import VolumeSpec

Bar = Callable[[str, int, str], AbstractContextManager[Callable[[int], None]]]
_CONDITIONAL = ("biggan-deep",)  # families all of whose generators take ImageNet's labels


@dataclass(frozen=True)
class FetchedArtifact:
    """An artifact that is on this machine.

    Attributes:
        name: name of the artifact.
        path: its file, or the folder of its volume.
        sha256: hash of what was fetched, pinned or recorded.
        size: bytes at `path`.
        downloaded: whether anything came over the network.
        pinned: whether the artifact's entry has the sha256; otherwise the first download was trusted.
    """

    name: str
    path: Path
    sha256: str
    size: int
    downloaded: bool
    pinned: bool


def fetch(name: str, *, accept_license: bool = False, trust: bool = False, progress: Progress | None = None) -> Path:
    """Download an artifact into the cache, unless it is there, and verify it.

    >>> fetch("mnist").name
    'mnist.safetensors'

    Args:
        name: name of an artifact (`magnet list`), or where `magnet push` put a volume: "hub:datasets/…/manifest.json".
        accept_license: accept a licence that forbids commercial use.
        trust: trust a file without pinned sha256 whose format could carry code.
        progress: called with (units done, units in all); the units are bytes, then rows.

    Returns:
        The path of the verified file, or of the volume's folder.

    Raises:
        ArtifactError: unknown name, licence not accepted, offline, unreachable, not trusted, or the bytes differ.
        VolumeError: published arrays that are not those of a volume.
        MagnetError: the cache cannot be written.
    """

    @contextmanager
    def bar(_label: str, total: int, _unit: str) -> Iterator[Callable[[int], None]]:
        done = 0

        def advance(more: int) -> None:
            nonlocal done
            done += more
            if progress is not None:
                progress(done, total)

        yield advance

    return fetch_artifact(entries.find(name), bar, accept_license=accept_license, trust=trust).path


def fetch_artifact(
    artifact: Artifact, bar: Bar, *, accept_license: bool = False, trust: bool = False
) -> FetchedArtifact:
    """Put an artifact into the cache, unless it is there; published arrays become a volume beside the cached files.

    Args:
        artifact: the artifact.
        bar: bar(label, total, unit), a context that gives a function to call with the number of units done.
        accept_license: as `fetch`.
        trust: as `fetch`.

    Raises:
        ArtifactError, VolumeError, MagnetError: as `fetch`.
    """
    if artifact.form == "npz" and cache.is_cached(artifact):
        downloaded = False
    else:
        total = 0 if cache.file_of(artifact).exists() else artifact.size
        with bar(artifact.name, total, "bytes") as advance:
            downloaded = download.fetch(artifact, accept_license=accept_license, trust=trust, advance=advance)
    if artifact.form == "manifest":
        downloaded |= download.fetch_listed(artifact)
    if artifact.form == "npz":
        _import(artifact, bar)
    path = cache.path_of(artifact)
    if artifact.form in {"npz", "manifest"}:
        cache.verify(artifact, path)
    sha256, size = cache.pinned(artifact).sha256, cache.size_here(artifact)
    return FetchedArtifact(artifact.name, path, sha256, size, downloaded, bool(artifact.sha256))


def _import(artifact: Artifact, bar: Bar) -> None:
    """Make the volume of published arrays, then remove their file, whose content is in the volume."""
    with download.alone(artifact):
        if cache.is_cached(artifact):
            return
        file = cache.file_of(artifact)
        archive = published_arrays.open_archive(file)
        tally = published_arrays.inspect(archive)
        with _building(cache.folder_of(artifact) / cache.VOLUME) as part:
            volume = importing.create(part, _spec(artifact, archive), tally, artifact.source)
            with bar(f"importing {artifact.name}", tally.rows, "rows") as advance:
                for _, rows in importing.fill(volume, archive, tally.rows):
                    advance(rows)
            (part / ".locks").unlink(missing_ok=True)
        if artifact.scheme not in {"file", "hub"}:
            file.unlink()


@contextmanager
def _building(path: Path) -> Iterator[Path]:
    """Yield a folder that is renamed to `path` when the block ends, and removed when it fails."""
    part = atomic.temporary(path)
    try:
        yield part
        with atomic.explained("write", path):
            part.rename(path)
            atomic.sync_folder(path.parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _spec(artifact: Artifact, archive: Archive) -> VolumeSpec:
    """Return the spec of a published volume, by its entry and that of its generator."""
    generator = entries.registry().get(artifact.generator)
    family = generator.family if generator else artifact.family
    about: dict[str, Any] = {"family": family, "prior": entries.prior_of(family), "output": artifact.output}
    if family in _CONDITIONAL and archive.labels is None:
        about |= {"label": (_class(artifact),), "num_classes": imagenet.COUNT}
    sha256 = cache.pinned(generator).sha256 if generator else ""
    return importing.spec_of(archive, generator=artifact.generator, sha256=sha256, space="z", truncation=1.0, **about)


def _class(artifact: Artifact) -> int:
    """Return the class of a file of one class, whose published name begins with it: 207_golden retriever.npz."""
    record = next((record for home in cache.homes() if (record := Lockfile(home).seen(artifact.source))), {})
    name = record.get("name", artifact.file_name)
    number = re.match(r"(\d{1,3})[_.]", name)
    if number is None:
        message = f"{artifact.name} is of one class of {artifact.generator}, and its file {name!r} does not say which"
        raise VolumeError(
            message, f"magnet import {quoted(cache.file_of(artifact))} {quoted(artifact.generator)} --label CLASS"
        )
    return int(number[1])
