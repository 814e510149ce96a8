"""Write a checkpoint anew as safetensors, with the settings that go with its weights as metadata.

Owns that the file is written whole and only where it gives a network. Names and values of tensors stay as they are.
"""

from dataclasses import dataclass
from pathlib import Path

from magnet_cli.catalog.cache import Checkpoint
from magnet_cli.errors import GeneratorError
from magnet_cli.files import atomic
from magnet_cli.files.checkpoints import safetensors_file
from magnet_cli.models import loading


@dataclass(frozen=True)
class Converted:
    """A file that was written, or was there already: where, of which family, its number of tensors and of bytes."""

    out: str
    family: str
    tensors: int
    size: int


def convert(checkpoint: Checkpoint, out: Path, *, force: bool = False) -> Converted:
    """Write the checkpoint's weights and settings to `out`; nothing is done where they are there already.

    Args:
        checkpoint: in any format that is read, of any family.
        out: the file; its folder is made.
        force: replace another file of that name.

    Raises:
        ArtifactError, GeneratorError: the checkpoint cannot be read, or gives no network.
        MagnetError: another file is there, or it cannot be written.
    """
    weights = loading.read(checkpoint)
    loading.build(weights)
    data = safetensors_file.write(weights.state, weights.settings)
    atomic.make_folder(out.parent)
    if not atomic.publish(out, data, replace=force):
        with atomic.explained("read", out):
            same = out.read_bytes() == data
        if not same:
            message = f"the weights of {checkpoint.name} are to be written to {out}, where another file is"
            raise GeneratorError(message, "choose another name, or replace it: --force")
    return Converted(str(out), weights.family, len(weights.state), len(data))
