"""Publish a volume as a dataset of the Hugging Face Hub: its files, a manifest, a card, an entry for artifacts.toml."""

import json
import re
import typing
from dataclasses import asdict, dataclass

from magnet_cli import __version__, index
from magnet_cli.catalog import cache, manifest, sources
from magnet_cli.catalog.entries import MANIFEST
from magnet_cli.errors import ArtifactError, MagnetError, VolumeError
from magnet_cli.files import documents
from magnet_cli.files.text import quoted
from magnet_cli.volume import Volume

_RHOS = (-1.0, -0.5, 0.5, 1.0)  # of the effective sizes in a card
_CARD, _ENTRY = "README.md", "artifacts.toml"


@dataclass(frozen=True)
class Publication:
    """A volume, checked and ready to be publication.

    Attributes:
        repository: OWNER/NAME.
        volume: the volume.
        names: names of its files, sorted.
        manifest: bytes of manifest.json.
        size: bytes in all.
    """

    repository: str
    volume: Volume
    names: tuple[str, ...]
    manifest: bytes
    size: int

    def source(self, commit: str) -> str:
        """Return what `magnet fetch` takes to get the volume of a commit."""
        return f"hub:datasets/{self.repository}@{commit}/{MANIFEST}"

    def entry(self, commit: str, license_: str) -> str:
        """Return the table for artifacts.toml that fetches the volume of a commit."""
        spec = self.volume.spec
        fields: dict[str, str | int] = {
            "kind": "volume",
            "generator": spec.generator,
            "family": spec.family,
            "output": spec.output,
        }
        fields |= {"source": self.source(commit), "sha256": documents.sha256_bytes(self.manifest)}
        fields |= {"size": len(self.manifest), "license": license_}
        rows = f"{self.volume.num_rows:,} rows of {spec.generator}, top_k {spec.top_k}"
        lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in fields.items() if value]
        name = re.sub(r"[^A-Za-z0-9]+", "-", self.repository.partition("/")[2]).strip("-") or "volume"
        return "\n".join([f"[{name}]", *lines, f"description = {json.dumps(rows, ensure_ascii=False)}", ""])


def prepare(volume: Volume, repository: str) -> Publication:
    """Check every byte of a volume, and return what would be publication.

    Raises:
        VolumeError: it holds no rows, or is damaged.
        ArtifactError: the repository's name is not OWNER/NAME.
        MagnetError: a file cannot be read.
    """
    if not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", repository, re.ASCII) or ".." in repository:
        message = f"{repository!r} is no repository of the hub"
        raise ArtifactError(message, "pass OWNER/NAME")
    shards = volume.shards()
    if not shards:
        message = f"{volume.path} holds no rows yet"
        raise VolumeError(
            message, f"fill it: magnet compute {quoted(volume.spec.generator)} --volume {quoted(volume.path)}"
        )
    if problems := volume.check():
        message = f"{volume.path} is damaged: {problems[0]}"
        raise VolumeError(message, f"see all of it: magnet info {quoted(volume.path)} --check")
    paths = [volume.path / "volume.json", *(p for s in shards for p in (volume.shard_path(s), volume.mark_path(s)))]
    paths += volume.hashed_files
    names = tuple(sorted(p.relative_to(volume.path).as_posix() for p in paths))
    listing = manifest.of_folder(volume.path, list(names))
    size = len(listing) + sum((volume.path / name).stat().st_size for name in names)
    return Publication(repository, volume, names, listing, size)


def card(publication: Publication, commit: str, license_: str) -> str:
    """Return the dataset's card: contents, use, effective sizes, spec."""
    spec, volume = publication.volume.spec, publication.volume
    k = index.default_top_k(spec.top_k, spec.latent_dim)
    rows = "\n".join(f"| {key} | {value} |" for key, value in asdict(spec).items() if value not in {"", 0, ()})
    try:
        built = index.build(volume, k)
        effective = "\n".join(f"| {rho:g} | {index.effective_size(built, rho):,.1f} |" for rho in _RHOS)
    except MagnetError as error:  # k falls below what the arithmetic resolves: published all the same
        effective = f"| | {error.message} |"
    return f"""---
tags: [magnet, singular-values]
pretty_name: {json.dumps(f"Volume of {spec.generator}")}
---
# Latents of {spec.generator} and the singular values of its Jacobian there

{volume.num_rows:,} latents of the generator `{spec.generator}` ({spec.family}, sha256 `{spec.sha256 or "not pinned"}`),
each with the {spec.top_k} leading singular values of the Jacobian of `{spec.output}` with respect to {spec.space}.
Float32, in HDF5 shards; magnet {__version__}, solver {spec.solver}. With weights exp(rho x log-volume) they give MaGNET
(rho 1) and Polarity Sampling.

## Use

```sh
magnet fetch {publication.source(commit)}
magnet sample {quoted(spec.generator)} --volume "$(magnet fetch --quiet {publication.source(commit)})" --rho 0.5
```

Or with this in a list of your own (`MAGNET_ARTIFACTS`), where `magnet sample {quoted(spec.generator)}` finds it:

```toml
{publication.entry(commit, license_)}```

`{MANIFEST}` has the size and sha256 of every file; magnet verifies them.

## Effective size, of {volume.num_rows:,} rows, at top_k {k}

| rho | rows |
|---|---|
{effective}

## Spec

| field | value |
|---|---|
{rows}

Licence of these files: {license_}.
"""


def push(publication: Publication, license_: str) -> str:
    """Send a volume: a commit with its files and the manifest, then a commit with card and entry, which name the first.

    Files that the repository has are not sent again.

    Returns:
        The first commit.

    Raises:
        ArtifactError: offline, no access, or the hub is in trouble; what was sent stays, the same command goes on.
    """
    if cache.offline():
        message = f"{publication.repository} is to be published, and MAGNET_OFFLINE=1 forbids it"
        raise ArtifactError(message, "unset MAGNET_OFFLINE")
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi()
    where: dict[str, typing.Any] = {"repo_id": publication.repository, "repo_type": "dataset"}
    what = f"{publication.volume.path} could not be published as {publication.repository}"
    with sources.hub_errors(what):
        api.create_repo(**where, exist_ok=True)
        head = api.repo_info(**where).sha
        adds = [CommitOperationAdd(name, str(publication.volume.path / name)) for name in publication.names]
        adds.append(CommitOperationAdd(MANIFEST, publication.manifest))
        message = f"Volume of {publication.volume.spec.generator}, {publication.volume.num_rows:,} rows"
        commit = api.create_commit(**where, operations=adds, commit_message=message).oid
        info: typing.Any = api.repo_info(**where, revision=commit)
        names = {sibling.rfilename for sibling in info.siblings or []}
    if commit != head or _ENTRY not in names:
        texts = {_CARD: card(publication, commit, license_), _ENTRY: publication.entry(commit, license_)}
        adds = [CommitOperationAdd(name, text.encode()) for name, text in texts.items()]
        with sources.hub_errors(f"{what}: its card is missing"):
            api.create_commit(**where, operations=adds, commit_message="Card, and entry for a list of artifacts")
    return commit
