"""Write a checkpoint as safetensors, with the settings that go with its weights as metadata."""

from dataclasses import dataclass
from pathlib import Path

from magnet_cli.catalog.checkpoint import Checkpoint
from magnet_cli.errors import GeneratorError
from magnet_cli.files import atomic
from magnet_cli.files.checkpoints import safetensors_file
from magnet_cli.models import loading


@dataclass(frozen=True)
class Converted:
    """The file that `convert` wrote, or that was there already; its size is in bytes."""

    out: str
    family: str
    tensors: int
    size: int


def convert(
    checkpoint: Checkpoint,
    out: Path,
    *,
    weights: str = "",
    settings: dict[str, object] | None = None,
    force: bool = False,
) -> Converted:
    """Write a checkpoint's weights and settings to `out`, unless the file already holds them.

    Args:
        checkpoint: of any format that magnet reads, and any family.
        out: the file; its folder is made.
        weights: where in the file the weights are that are meant, if it has several.
        settings: keywords of the family's `build`, instead of those that come with the file.
        force: replace another file of that name.

    Raises:
        ArtifactError, GeneratorError: the checkpoint cannot be read, or gives no network.
        MagnetError: `out` is another file, or cannot be written.
    """
    read = loading.read(checkpoint, weights)
    loading.build(read, **(settings or {}))  # so that only whole networks are written
    data = safetensors_file.write(read.state, read.settings | (settings or {}))
    atomic.make_folder(out.parent)
    if not atomic.publish(out, data, replace=force):
        with atomic.explained("read", out):
            same = out.read_bytes() == data
        if not same:
            message = f"the weights of {checkpoint.name} are to be written to {out}, where another file is"
            raise GeneratorError(message, "choose another name, or pass `force=True` to replace it")
    return Converted(str(out), read.family, len(read.state), len(data))
