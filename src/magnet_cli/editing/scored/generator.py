"""The generator that scored latents belong to."""

from typing import TYPE_CHECKING, Any

from magnet_cli.editing.scored.folders import ScoredLatents
from magnet_cli.errors import ArtifactError, GeneratorError

if TYPE_CHECKING:
    from magnet_cli.models import Generator


def load_generator(
    latents: ScoredLatents, generator: str | None, device: str | None, own: dict[str, Any]
) -> "Generator":
    """Load the generator that is passed, else the one that the latents name, which is looked up by name only.

    `own` are settings of a generator of the user's own.
    """
    from magnet_cli import models
    from magnet_cli.catalog.checkpoint import Checkpoint

    try:
        source = generator or Checkpoint.find(latents.generator)
    except ArtifactError as error:
        if error.hint and "magnet fetch" in error.hint:
            raise
        raise ArtifactError(
            f"{latents.path} is of the generator {latents.generator}, and {error.message}",
            f"its code runs only where you name it: repeat the command with --generator {latents.reference}"
            if latents.reference
            else "pass `generator`: its path, or file.py:factory",
        ) from error
    loaded = models.load(source, device=device or models.default_device(), **own)
    if latents.sha256 and loaded.sha256 != latents.sha256:
        raise GeneratorError(
            f"{latents.path} is of {latents.generator} (sha256 {latents.sha256[:12]}…), and "
            f"{loaded.name} ({loaded.sha256[:12]}…) is passed",
            "pass the `generator` that it was made with",
        )
    if latents.latents.shape[1] != loaded.latent_dim:
        raise GeneratorError(
            f"{latents.path} has latents of {latents.latents.shape[1]} numbers, and {loaded.name} takes latents of "
            f"{loaded.latent_dim}",
            "pass the `generator` that they belong to",
        )
    if loaded.num_classes and latents.labels is None:
        raise GeneratorError(
            f"{loaded.name} takes labels, and {latents.path} has none",
            "pass a folder of `magnet attributes`, which has labels; or `no_images=True`",
        )
    return loaded
