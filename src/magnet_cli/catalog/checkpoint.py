"""The file of a generator's weights that a user names, by path or by the name of an artifact."""

import os
from dataclasses import dataclass
from pathlib import Path

from magnet_cli.catalog import cache, entries
from magnet_cli.errors import ArtifactError
from magnet_cli.files import documents
from magnet_cli.files.text import quoted


@dataclass(frozen=True)
class Checkpoint:
    """The file of a generator's weights on this machine.

    Attributes:
        name: the artifact's name, or the file's name without its suffix.
        path: the file.
        sha256: hash that the bytes must have: the pinned one, or the one measured for a user's own file; empty where
            none is known.
        reference: what the user typed, for commands in messages.
        family: architecture that the user or the artifact's entry names; empty where the weights tell.
        flags: what follows the reference in commands to copy, as " --family NAME"; empty unless the user named one.
    """

    name: str
    path: Path
    sha256: str
    reference: str
    family: str = ""
    flags: str = ""

    @classmethod
    def find(cls, reference: str, *, here: bool = True, family: str = "") -> "Checkpoint":
        """Return the checkpoint at a path, or that of an artifact.

        Args:
            reference: a path, or the name of an artifact.
            here: whether the artifact must be in the cache; without it, the pinned sha256 is enough.
            family: architecture that the user names.

        Raises:
            ArtifactError: no such file, no such artifact, not a generator, or not fetched yet.
        """
        path = Path(reference).expanduser()
        flags = f" --family {quoted(family)}" if family else ""
        if path.is_file():
            return cls(path.stem, path.resolve(), documents.sha256_file(path), reference, family, flags)
        if os.sep in reference:
            message = f"there is no checkpoint at {reference}"
            raise ArtifactError(message, "pass the path of a file, or a name from `magnet list`")
        artifact = entries.find(reference)
        if artifact.kind != "generator":
            message = f"{reference} is a {artifact.kind}, and a generator is asked for"
            raise ArtifactError(message, "`magnet list` shows the generators")
        if here:
            cache.check_cached(artifact)
        sha256 = cache.pinned(artifact).sha256
        return cls(artifact.name, cache.path_of(artifact), sha256, reference, family or artifact.family, flags)

    def read(self) -> bytes:
        """Return the verified bytes.

        Raises:
            ArtifactError: they changed since they were verified.
            MagnetError: they cannot be read.
        """
        return cache.read_verified(self.path, self.sha256, self.reference)
